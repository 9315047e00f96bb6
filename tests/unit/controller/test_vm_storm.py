"""The users of the end-to-end storm against an API server on a real socket, with a node that does its part at once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from podvisor_common.api.meta import format_time, now
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.resources import PODS, VIRTUAL_MACHINE_INSTANCES
from podvisor_controller.controllers import Controllers

from tests.support.storm import blow, watching
from tests.unit.controller.api_server import ApiServer, Json


class Node:
    """Scheduler, kubelet and handler: binds pods, runs what is scheduled, ends what is deleted."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server

    async def run(self) -> None:
        while True:
            await self._server.until(lambda: bool(self._work()))
            for resource, changed in self._work():
                self._server.put(resource, changed)

    def _work(self) -> list[tuple[Any, Json]]:
        pods = self._server.list(PODS)
        work = [
            (PODS, pod | {"spec": pod["spec"] | {"nodeName": "n1"}, "status": {"phase": "Pending"}})
            for pod in pods
            if "nodeName" not in pod["spec"]
        ]
        carried = {pod["metadata"]["ownerReferences"][0]["uid"] for pod in pods}
        for vmi in self._server.list(VIRTUAL_MACHINE_INSTANCES):
            phase = vmi.get("status", {}).get("phase", "")
            is_carried = vmi["metadata"]["uid"] in carried
            if "deletionTimestamp" in vmi["metadata"]:
                if not is_carried and phase not in ("Succeeded", "Failed"):
                    # As of a guest that ignores the power button: it is destroyed.
                    work.append((VIRTUAL_MACHINE_INSTANCES, _reported(vmi, "Failed", "False")))
            elif phase == "Scheduled" and is_carried:
                work.append((VIRTUAL_MACHINE_INSTANCES, _reported(vmi, "Running", "True")))
        return work


def _reported(vmi: Json, phase: str, ready: str) -> Json:
    old = vmi.get("status", {})
    entered = {"phase": phase, "phaseTransitionTimestamp": format_time(now())}
    return vmi | {
        "status": old
        | {
            "phase": phase,
            "conditions": [{"type": "Ready", "status": ready, "reason": "", "message": ""}],
            "phaseTransitionTimestamps": [*old.get("phaseTransitionTimestamps", []), entered],
        }
    }


@asynccontextmanager
async def node(server: ApiServer) -> AsyncIterator[None]:
    playing = asyncio.create_task(Node(server).run(), name="node")
    try:
        yield
        assert not playing.done()
    finally:
        playing.cancel()
        await asyncio.gather(playing, return_exceptions=True)


@pytest.mark.parametrize("seed", [0, 4])
async def test_every_machine_is_as_its_user_left_it(
    seed: int, server: ApiServer, client: KubeClient, leading: Controllers
) -> None:
    async with node(server), watching(client, "shop", patience_s=8) as scene:
        sailors = await blow(scene, seed)
        kept = {sailor.name for sailor in sailors if sailor.final == "running"}
        assert {vmi.metadata.name for vmi in scene.vmis.list()} == kept
