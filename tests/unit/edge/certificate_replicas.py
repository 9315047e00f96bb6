"""Replicas with certificates, the time that passes for them, and what they have told the API server."""

import base64
import ssl
from datetime import datetime, timedelta
from typing import Any

import aiohttp
from aiohttp import web
from podvisor_common.http.server import serve_http
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.resources import (
    CONFIGMAPS,
    CRDS,
    MUTATING_WEBHOOKS,
    SECRETS,
    VALIDATING_WEBHOOKS,
    ObjectKey,
)
from podvisor_common.tls.authority import split_bundle
from podvisor_common.tls.identities import TRUST_CONFIG_MAP, TRUST_FIELD
from podvisor_controller.subresources.api_services import API_SERVICES, NAMES
from podvisor_controller.webhooks.certificates import Certificates

from tests.unit.kube.fake_apiserver import FakeApiServer

NAMESPACE = "kubevirt"
SECRET = ObjectKey(NAMESPACE, "podvisor-ca")
CRD = ObjectKey("", "virtualmachines.kubevirt.io")


class Clock:
    """Wall and monotonic time that pass when told to. TLS looks at the real time only."""

    def __init__(self, start: datetime) -> None:
        self.start = start
        self.passed_s = 0.0

    def wall(self) -> datetime:
        return self.start + timedelta(seconds=self.passed_s)

    def monotonic_s(self) -> float:
        return self.passed_s

    def pass_(self, time: timedelta) -> None:
        self.passed_s += time.total_seconds()


def replica(client: KubeClient, clock: Clock, *, leads: bool = True) -> Certificates:
    return Certificates(
        client,
        NAMESPACE,
        leads=lambda: leads,
        wall_clock=clock.wall,
        monotonic_s=clock.monotonic_s,
    )


def published(server: FakeApiServer) -> list[bytes]:
    """The bundle, once it is sure that everybody has the same."""
    bundles = set()
    for resource, name in (
        (MUTATING_WEBHOOKS, "podvisor-mutating"),
        (VALIDATING_WEBHOOKS, "podvisor-validating"),
    ):
        found = server.get(resource, ObjectKey("", name))
        assert found is not None
        bundles |= {webhook["clientConfig"]["caBundle"] for webhook in found["webhooks"]}
    definition = server.get(CRDS, CRD)
    assert definition is not None
    conversion = definition["spec"]["conversion"]
    bundles.add(conversion["webhook"]["clientConfig"]["caBundle"])
    services = server.list(API_SERVICES)
    assert [one["metadata"]["name"] for one in services] == sorted(NAMES.values())
    bundles |= {one["spec"]["caBundle"] for one in services}
    trust = server.get(CONFIGMAPS, ObjectKey(NAMESPACE, TRUST_CONFIG_MAP))
    assert trust is not None
    bundles.add(base64.b64encode(trust["data"][TRUST_FIELD].encode()).decode())
    (bundle,) = bundles
    return split_bundle(base64.b64decode(bundle))


def stored(server: FakeApiServer) -> dict[str, Any]:
    secret = server.get(SECRETS, SECRET)
    assert secret is not None
    data: dict[str, Any] = secret["data"]
    return data


async def is_trusted(certificates: Certificates, bundle: list[bytes]) -> bool:
    """Whether a client that trusts `bundle` and asks for the Service's name accepts the replica."""
    trust = ssl.create_default_context(cadata=b"".join(bundle).decode())
    async with (
        serve_http(web.Application(), host="127.0.0.1", port=0, tls=certificates.context) as port,
        aiohttp.ClientSession() as session,
    ):
        try:
            async with session.get(
                f"https://127.0.0.1:{port}/",
                ssl=trust,
                server_hostname="virt-controller.kubevirt.svc",
            ):
                return True
        except aiohttp.ClientConnectorCertificateError:
            return False
