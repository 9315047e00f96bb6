"""Whole replicas against an API server on a socket: who leads, and what the others do meanwhile."""

import asyncio
import base64
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import aiohttp
import pytest
from podvisor.identity.v1 import identity_pb2, identity_pb2_grpc
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.leader import LeaderElection
from podvisor_common.kube.resources import (
    CONFIGMAPS,
    CRDS,
    LEASES,
    MUTATING_WEBHOOKS,
    PODS,
    SECRETS,
    VIRTUAL_MACHINE_INSTANCES,
    ObjectKey,
)
from podvisor_common.rpc.client import call
from podvisor_common.rpc.errors import Unauthenticated
from podvisor_common.rpc.tcp import tls_channel
from podvisor_controller import app
from podvisor_controller.settings import Settings
from podvisor_controller.subresources.api_services import API_SERVICES
from podvisor_controller.subresources.front_proxy import CONFIG_MAP

from tests.unit.controller.api_server import ApiServer, Json
from tests.unit.controller.builders import vmi_body
from tests.unit.edge.subresource_session import USER, authority, client_context, leaf, trust_data

LEASE = ObjectKey("kubevirt", "virt-controller")


def holder(server: ApiServer) -> str:
    lease = server.get(LEASES, LEASE)
    return lease["spec"].get("holderIdentity", "") if lease else ""


def apply_vmi(server: ApiServer, name: str) -> None:
    body = vmi_body(metadata={"name": name, "uid": name})
    del body["metadata"]["resourceVersion"]
    server.put(VIRTUAL_MACHINE_INSTANCES, body)


@asynccontextmanager
async def replica(
    server: ApiServer, settings: Settings, name: str
) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """A running replica; yields what stops it."""
    stop = asyncio.Event()
    async with (
        KubeClient.for_url(server.url, user_agent=name) as client,
        asyncio.TaskGroup() as group,
    ):
        running = group.create_task(app.serve(client, replace(settings, pod_name=name), stop))

        async def end() -> None:
            stop.set()
            await running

        yield end
        stop.set()


def pods_of(server: ApiServer, name: str) -> list[Json]:
    return [p for p in server.list(PODS) if f"virt-launcher-{name}-" in p["metadata"]["name"]]


async def test_one_replica_leads_and_hands_over_when_it_is_stopped(
    server: ApiServer, settings: Settings
) -> None:
    async with replica(server, settings, "a") as end_a:
        await server.until(lambda: holder(server) == "a")
        async with replica(server, settings, "b"):
            apply_vmi(server, "first")
            await server.until(lambda: len(pods_of(server, "first")) == 1)
            await end_a()
            await server.until(lambda: holder(server) == "b")
            apply_vmi(server, "second")
            await server.until(lambda: len(pods_of(server, "second")) == 1)
    agents = {r.headers["User-Agent"] for r in server.requests if r.path.endswith("shop/pods")}
    assert agents == {"a", "b"}
    assert holder(server) == ""


async def test_a_follower_only_watches(server: ApiServer, settings: Settings) -> None:
    async with replica(server, settings, "a"):
        await server.until(lambda: holder(server) == "a")
        async with replica(server, settings, "b"):

            def watching() -> set[str]:
                mine = [r for r in server.requests if r.headers["User-Agent"] == "b"]
                return {r.path for r in mine if r.is_watch}

            await server.until(lambda: len(watching()) == 18)
            apply_vmi(server, "first")
            await server.until(lambda: len(pods_of(server, "first")) == 1)
    writes = [
        r.path for r in server.requests if r.method != "GET" and r.headers["User-Agent"] == "b"
    ]
    assert writes == []


async def test_every_replica_has_the_webhooks_authority(
    server: ApiServer, settings: Settings
) -> None:
    async with replica(server, settings, "a"):
        await server.until(
            lambda: server.get(SECRETS, ObjectKey("kubevirt", "podvisor-ca")) is not None
        )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def test_a_replica_issues_certificates_to_whoever_proves_to_be_a_handler(
    server: ApiServer, settings: Settings
) -> None:
    """With the certificate that handlers are told to trust."""
    server.put(CRDS, {"metadata": {"name": "virtualmachines.kubevirt.io"}, "spec": {}})
    settings = replace(settings, identity_port=free_port())
    trust = ObjectKey("kubevirt", "podvisor-ca")
    async with replica(server, settings, "a"):
        await server.until(lambda: server.get(CONFIGMAPS, trust) is not None)
        told = server.get(CONFIGMAPS, trust)
        assert told is not None
        async with tls_channel(
            f"127.0.0.1:{settings.identity_port}",
            server_name="virt-controller.kubevirt.svc",
            authorities=told["data"]["ca.crt"].encode(),
        ) as channel:
            stub = identity_pb2_grpc.IdentityServiceStub(channel)
            with pytest.raises(Unauthenticated) as refused:
                await call(
                    stub.IssueCertificate, identity_pb2.IssueCertificateRequest(), timeout_s=5
                )
    assert refused.value.reason == "NoToken"


async def test_a_replica_that_stops_hands_the_lease_back_first_and_answers_on(
    server: ApiServer, client: KubeClient, settings: Settings
) -> None:
    stop = asyncio.Event()
    settings = replace(settings, pod_name="a", webhook_port=free_port(), drain_s=60.0)
    running = asyncio.create_task(app.serve(client, settings, stop), name="replica")
    url = f"https://127.0.0.1:{settings.webhook_port}/virtualmachines-validate"
    try:
        # It leads, and has noticed: who is stopped before that has nothing to hand back.
        await server.until(lambda: len(server.list(MUTATING_WEBHOOKS)) == 1)
        stop.set()
        await server.until(lambda: holder(server) == "")
        async with (
            aiohttp.ClientSession() as session,
            session.post(url, data=b"{}", ssl=False) as answer,
        ):
            assert answer.status == 400
            assert answer.headers["Connection"] == "close"
        assert not running.done()
    finally:
        running.cancel()
        await asyncio.wait([running])


async def test_subresources_are_asked_for_as_the_api_server_does(
    server: ApiServer, client: KubeClient, settings: Settings
) -> None:
    """By the address and the authority of the APIService, and with a certificate that the ConfigMap in kube-system vouches for."""
    proxy_authority = authority()
    metadata = {"namespace": CONFIG_MAP.namespace, "name": CONFIG_MAP.name}
    server.put(CONFIGMAPS, {"metadata": metadata, "data": trust_data(proxy_authority)})
    server.put(CRDS, {"metadata": {"name": "virtualmachines.kubevirt.io"}, "spec": {}})
    stop = asyncio.Event()
    settings = replace(settings, pod_name="a", subresource_port=free_port())
    running = asyncio.create_task(app.serve(client, settings, stop), name="replica")
    url = f"https://127.0.0.1:{settings.subresource_port}"
    try:
        await server.until(lambda: len(server.list(API_SERVICES)) == 2)
        path = "/api/v1/namespaces/kube-system/configmaps"
        await server.until(lambda: any(r.path == path and r.is_watch for r in server.requests))
        service = server.list(API_SERVICES)[0]["spec"]
        assert service["service"] == {
            "namespace": "kubevirt",
            "name": "virt-controller",
            "port": 8444,
        }
        # The leading replica publishes first, and has its certificate only then.
        published = base64.b64decode(service["caBundle"])
        context = client_context(published, leaf(proxy_authority, "front-proxy-client"))
        name = "virt-controller.kubevirt.svc"
        async with aiohttp.ClientSession() as session:
            resources = f"{url}/apis/{service['group']}/{service['version']}"
            answer = await answered(session, resources, context, name)
            assert answer == 200
            missing = f"{resources}/namespaces/shop/virtualmachines/a/addvolume"
            async with session.put(
                missing, data=b"{}", headers=USER, ssl=context, server_hostname=name
            ) as reply:
                # The fake API server knows no reviews: that it was asked says who we take the client for.
                assert reply.status >= 500
        [review] = [r for r in server.requests if r.path.endswith("/subjectaccessreviews")]
        assert review.body["spec"]["user"] == "jane"
    finally:
        stop.set()
        await running


async def answered(
    session: aiohttp.ClientSession, url: str, context: ssl.SSLContext, name: str
) -> int:
    """The code of the first answer with a certificate that is trusted; the test's timeout bounds how long that takes."""
    while True:
        try:
            async with session.get(url, ssl=context, server_hostname=name) as answer:
                return answer.status
        except aiohttp.ClientConnectorCertificateError:
            continue


class Exited(BaseException):
    """Stands for the end of the process."""


async def test_work_that_outlives_the_lease_takes_the_process_with_it(
    server: ApiServer, client: KubeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end_process(code: int) -> None:
        raise Exited(code)

    monkeypatch.setattr(os, "_exit", end_process)
    began, end = asyncio.Event(), asyncio.Event()

    async def stubborn() -> None:
        began.set()
        while not end.is_set():
            try:
                await end.wait()
            except asyncio.CancelledError:
                continue

    election = LeaderElection(
        client, LEASE.namespace, LEASE.name, "a", retry_s=0.2, cancel_within_s=0.1
    )
    standing = asyncio.ensure_future(app.stand_for_election(election, stubborn))
    await began.wait()
    standing.cancel()
    with pytest.raises(Exited, match="1"):
        await standing
    end.set()
