"""A controller process's insides against an API server on a real socket."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.resources import (
    CONFIGMAPS,
    DAEMONSETS,
    KUBEVIRTS,
    NODES,
    ObjectKey,
)
from podvisor_controller.controllers import Controllers
from podvisor_controller.settings import Settings

from tests.unit.controller.api_server import ApiServer
from tests.unit.controller.builders import IMAGE, handlers_body
from tests.unit.controller.clones import CloneUser
from tests.unit.controller.exports import ExportUser
from tests.unit.controller.restores import RestoreUser, restore_user
from tests.unit.controller.scripted_cluster import Cluster
from tests.unit.controller.scripted_node import node
from tests.unit.controller.set_users import Pools, Sets
from tests.unit.controller.snapshots import SnapshotUser, snapshot_user

KUBEVIRT = ObjectKey("kubevirt", "kubevirt")
SETTINGS = Settings(
    pod_name="virt-controller-1",
    pod_namespace="kubevirt",
    launcher_image=IMAGE,
    exporter_image="registry.example/virt-controller:1",
    architecture="amd64",
    observability_port=0,
    webhook_port=0,
    subresource_port=0,
    identity_port=0,
    drain_s=0.0,
)


@pytest.fixture
def settings() -> Settings:
    return SETTINGS


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    """A cluster with one node, its handler and the chart's settings."""
    async with ApiServer() as api:
        api.put(NODES, {"metadata": {"name": "n1"}})
        api.put(DAEMONSETS, handlers_body())
        spec = (
            '{"configuration":{"developerConfiguration":{"useEmulation":true},'
            '"network":{"defaultNetworkInterface":"masquerade"}}}'
        )
        api.put(
            CONFIGMAPS,
            {
                "metadata": {"namespace": "kubevirt", "name": "podvisor-config"},
                "data": {"spec.json": spec},
            },
        )
        yield api


@pytest.fixture
def cluster(server: ApiServer) -> Cluster:
    return Cluster(server)


@pytest.fixture
async def client(server: ApiServer) -> AsyncIterator[KubeClient]:
    async with KubeClient.for_url(server.url, user_agent="test") as one:
        yield one


@pytest.fixture
async def leading(
    server: ApiServer, client: KubeClient, settings: Settings
) -> AsyncIterator[Controllers]:
    """Controllers that lead, with complete caches, in an installation that is complete."""
    controllers = Controllers(client, settings)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(controllers.watch()), group.create_task(controllers.lead())]
        await server.until(lambda: "status" in (server.get(KUBEVIRTS, KUBEVIRT) or {}))
        yield controllers
        for task in tasks:
            task.cancel()


@pytest.fixture
async def users(server: ApiServer) -> AsyncIterator[KubeClient]:
    """A client of somebody else's, in a cluster whose node works."""
    async with KubeClient.for_url(server.url, user_agent="users") as users, node(server):
        yield users


@pytest.fixture
async def user(server: ApiServer, users: KubeClient) -> AsyncIterator[SnapshotUser]:
    """Who takes snapshots of a machine, where a storage driver works."""
    async with snapshot_user(server, users) as one:
        yield one


@pytest.fixture
async def restorer(server: ApiServer, users: KubeClient) -> AsyncIterator[RestoreUser]:
    """Who takes snapshots of a machine and restores it, where a storage driver works."""
    async with restore_user(server, users) as one:
        yield one


@pytest.fixture
def cloner(restorer: RestoreUser, users: KubeClient) -> CloneUser:
    """Who clones a machine, where a storage driver works."""
    return CloneUser(restorer, users)


@pytest.fixture
def sets(server: ApiServer, users: KubeClient) -> Sets:
    return Sets(server, users)


@pytest.fixture
def pools(server: ApiServer, users: KubeClient) -> Pools:
    return Pools(server, users)


@pytest.fixture
async def exports(server: ApiServer) -> AsyncIterator[ExportUser]:
    async with KubeClient.for_url(server.url, user_agent="exports") as client:
        yield ExportUser(server, client)
