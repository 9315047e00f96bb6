"""The aggregated API over real TLS, with one instance on node n1 whose handler is on a real socket."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.resources import VIRTUAL_MACHINE_INSTANCES, VIRTUAL_MACHINES, ObjectKey

from tests.unit.controller.builders import vm_body
from tests.unit.edge.fake_handler import FakeHandler, serving
from tests.unit.edge.subresource_session import USER, Authorizer, Json, path_of, served

KEY = ObjectKey("shop", "myvm")


def instance(**status: Any) -> Json:
    """One that runs on n1."""
    domain = {"devices": {"interfaces": [{"name": "default", "masquerade": {}}]}}
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"namespace": KEY.namespace, "name": KEY.name, "uid": "vmi-1"},
        "spec": {"domain": domain},
        "status": {"phase": "Running", "nodeName": "n1", "activePods": {"pod-1": "n1"}, **status},
    }


@dataclass
class Guests:
    """What a test works with."""

    server: Authorizer
    handler: FakeHandler
    session: aiohttp.ClientSession

    def set(self, devices: Json | None = None, **status: Any) -> None:
        """The instance is now as that says."""
        body = instance(**status)
        body["spec"]["domain"]["devices"].update(devices or {})
        self.server.put(VIRTUAL_MACHINE_INSTANCES, body)

    async def put(
        self,
        verb: str,
        options: Json | None = None,
        resource: str = "virtualmachineinstances",
    ) -> tuple[int, Json | None]:
        """PUT a verb; code and Status, which is None for an empty body."""
        path = path_of(resource, KEY, verb)
        async with self.session.put(path, headers=USER, json=options) as answer:
            return answer.status, await answer.json() if await answer.read() else None

    async def get(self, verb: str, resource: str = "virtualmachineinstances") -> tuple[int, Json]:
        """GET a subresource that answers in JSON, if only with a Status; its code and that."""
        async with self.session.get(path_of(resource, KEY, verb), headers=USER) as answer:
            return answer.status, await answer.json()

    def socket(
        self,
        verb: str,
        resource: str = "virtualmachineinstances",
        protocols: tuple[str, ...] = ("plain.kubevirt.io",),
    ) -> "aiohttp.client._WSRequestContextManager":
        """A websocket to a stream."""
        return self.session.ws_connect(
            path_of(resource, KEY, verb), headers=USER, protocols=protocols, autoping=False
        )


@asynccontextmanager
async def guests() -> AsyncIterator[Guests]:
    """Serves it all for the body."""
    handler = FakeHandler()
    async with (
        Authorizer() as server,
        KubeClient.for_url(server.url, user_agent="test") as client,
        serving(handler) as handlers,
        served(client, handlers=handlers) as api,
        api.asked_by(api.proxy) as session,
    ):
        server.put(VIRTUAL_MACHINES, vm_body())
        server.put(VIRTUAL_MACHINE_INSTANCES, instance())
        yield Guests(server, handler, session)
