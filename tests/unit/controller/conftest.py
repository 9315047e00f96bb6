"""A controller process's insides against an API server on a real socket."""

import asyncio

import pytest
from aiohttp import web
from podvisor_common.api.meta import format_time, now
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.resources import CONFIGMAPS, KUBEVIRTS, NODES, ObjectKey
from podvisor_controller.controllers import Controllers
from podvisor_controller.settings import Settings

from tests.unit.controller.builders import IMAGE
from tests.unit.kube.fake_apiserver import FakeApiServer, Refuse

KUBEVIRT = ObjectKey("kubevirt", "kubevirt")
SETTINGS = Settings(
    pod_name="virt-controller-1",
    pod_namespace="kubevirt",
    launcher_image=IMAGE,
    architecture="amd64",
    observability_port=0,
    webhook_port=0,
)


class ApiServer(FakeApiServer):
    """The fake API server, with dry runs, refusals of what a test names, and a clock."""

    def __init__(self):
        super().__init__()
        self._refusals = []

    def refuse(self, method: str, path_end: str, refusal: Refuse) -> None:
        """Refuse the next request of that method whose path ends so."""
        self._refusals.append((method, path_end, refusal))

    def _store(self, collection, key, obj, type_):
        if type_ == "ADDED":
            obj["metadata"]["creationTimestamp"] = format_time(now())
        return super()._store(collection, key, obj, type_)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        for planned in self._refusals:
            method, path_end, refusal = planned
            if request.method == method and request.path.endswith(path_end):
                self._refusals.remove(planned)
                return self._reply_refusal(refusal)
        if "dryRun" in request.query:
            return self._reply(await request.json(), 201)
        return await super()._handle(request)


@pytest.fixture
def settings():
    return SETTINGS


@pytest.fixture
async def server():
    """A cluster with one node and the chart's settings."""
    async with ApiServer() as api:
        api.put(NODES, {"metadata": {"name": "n1"}})
        spec = '{"configuration":{"developerConfiguration":{"useEmulation":true}}}'
        api.put(
            CONFIGMAPS,
            {
                "metadata": {"namespace": "kubevirt", "name": "podvisor-config"},
                "data": {"spec.json": spec},
            },
        )
        yield api


@pytest.fixture
async def client(server):
    async with KubeClient.for_url(server.url, user_agent="test") as one:
        yield one


@pytest.fixture
async def leading(server, client, settings):
    """Controllers that lead, with complete caches, in an installation that is complete."""
    controllers = Controllers(client, settings)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(controllers.watch()), group.create_task(controllers.lead())]
        await server.until(lambda: "status" in (server.get(KUBEVIRTS, KUBEVIRT) or {}))
        yield controllers
        for task in tasks:
            task.cancel()
