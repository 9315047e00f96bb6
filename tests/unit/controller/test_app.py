"""Whole replicas against an API server on a socket: who leads, and what the others do meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.resources import (
    LEASES,
    PODS,
    SECRETS,
    VIRTUAL_MACHINE_INSTANCES,
    ObjectKey,
)
from podvisor_controller import app
from podvisor_controller.settings import Settings

from tests.unit.controller.api_server import ApiServer, Json
from tests.unit.controller.builders import vmi_body

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

            await server.until(lambda: len(watching()) == 6)
            apply_vmi(server, "first")
            await server.until(lambda: len(pods_of(server, "first")) == 1)
    writes = [
        r.path
        for r in server.requests
        if r.method != "GET" and r.headers["User-Agent"] == "b" and "kubevirt.io" in r.path
    ]
    assert writes == []


async def test_every_replica_has_the_webhooks_authority(
    server: ApiServer, settings: Settings
) -> None:
    async with replica(server, settings, "a"):
        await server.until(
            lambda: server.get(SECRETS, ObjectKey("kubevirt", "podvisor-ca")) is not None
        )
