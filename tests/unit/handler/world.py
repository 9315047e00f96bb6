"""A node with a handler: the whole handler process, as far as one can be had in a test, between a fake API server and whatever
serves as a launcher, all on real sockets."""

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from podvisor.domain.v1 import domain_pb2
from podvisor_common.inotify import Inotify
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.resources import (
    NODES,
    PODS,
    VIRTUAL_MACHINE_INSTANCES,
    ObjectKey,
    Resource,
)
from podvisor_handler.app import App
from podvisor_handler.devices.kvm import KvmVerdict
from podvisor_handler.settings import Settings

from tests.unit.handler.builders import pod_manifest, vmi_manifest
from tests.unit.handler.fake_launcher import POD_UID, VMI_UID, control_group
from tests.unit.kube.fake_apiserver import FakeApiServer

KEY = ObjectKey("default", "myvm")
POD_KEY = ObjectKey("default", "virt-launcher-myvm-abcde")
NO_NETWORK = {"domain": {"memory": {"guest": "64M"}, "devices": {"autoattachPodInterface": False}}}
RUNNING: dict[str, Any] = {
    "state": domain_pb2.DOMAIN_STATE_RUNNING,
    "uid": VMI_UID,
    "applied_generation": 1,
    "machine_type": "pc-q35-10.0",
}


@dataclass
class World:
    """A node with a handler: what a test looks at."""

    server: FakeApiServer
    pods: Path
    run: Path

    def vmi(self) -> dict[str, Any]:
        found = self.server.get(VIRTUAL_MACHINE_INSTANCES, KEY)
        assert found is not None
        return found

    def status(self, field: str) -> Any:
        return self.vmi()["status"].get(field)

    def condition(self, type_: str) -> dict[str, Any]:
        found = [c for c in self.status("conditions") or () if c["type"] == type_]
        return found[0] if found else {}

    def writes(self, resource: Resource, subresource: str = "") -> int:
        return sum(
            1
            for request in self.server.requests
            if request.method in ("POST", "PUT", "PATCH", "DELETE")
            and f"/{resource.plural}" in request.path
            and request.path.endswith(subresource)
        )

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            await self.server.until(condition)


@contextlib.asynccontextmanager
async def handler(world: World, **further: Any) -> AsyncIterator[None]:
    """A running handler process, as far as one can be had in a test, with `further` settings."""
    settings = Settings(
        node_name="node1",
        pod_name="virt-handler-x",
        pods_directory=str(world.pods),
        run_directory=world.run,
        metrics_port=0,
        **further,
    )
    stop = asyncio.Event()
    async with KubeClient.for_url(world.server.url, user_agent="test") as client:
        app = App(settings, client, KvmVerdict(False, "not here"))
        task = asyncio.create_task(app.run(stop), name="handler")
        try:
            yield
        finally:
            stop.set()
            await task


@contextlib.asynccontextmanager
async def world_in(directory: Path, *pod_uids: str) -> AsyncIterator[World]:
    """A node without a handler yet, whose pods are in `directory`. This process counts as one of the pod POD_UID, and of
    those named."""
    pods = directory / "pods"
    pods.mkdir()
    with control_group(POD_UID, *pod_uids), tempfile.TemporaryDirectory(prefix="pv") as run:
        async with FakeApiServer() as server:
            server.put(NODES, {"metadata": {"name": "node1"}})
            yield World(server, pods, Path(run))


def start(world: World, **arguments: Any) -> None:
    """The controller has done its part: pod bound, instance scheduled."""
    world.server.put(PODS, pod_manifest())
    world.server.put(VIRTUAL_MACHINE_INSTANCES, vmi_manifest(**{"spec": NO_NETWORK, **arguments}))


async def directory_until(directory: Path, condition: Callable[[], bool]) -> None:
    """Wait until a directory is as it should be."""
    changed = asyncio.Event()
    with Inotify() as inotify:
        descriptor = os.open(directory, os.O_PATH)
        inotify.watch_directory(descriptor, changed.set)
        os.close(descriptor)
        async with asyncio.timeout(20):
            while not condition():
                await changed.wait()
                changed.clear()
                await asyncio.sleep(0.05)  # many changes are worth one look
