"""A node that does its part at once, and controllers that succeed each other, for storms against the fake API server."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from podvisor_common.api.meta import format_time, now
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.resources import PODS, VIRTUAL_MACHINE_INSTANCES
from podvisor_controller.controllers import Controllers
from podvisor_controller.settings import Settings

from tests.unit.controller.api_server import ApiServer, Fate, Json


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


def is_ours(request: web.Request) -> bool:
    """The controller writes."""
    return request.method != "GET" and request.headers["User-Agent"] != "users"


def losing_writes(
    server: ApiServer, chance: random.Random, weights: tuple[float, float, float]
) -> set[Fate]:
    """From now on each write of the controller is answered, refused, or done without an answer, with these chances. What became
    of them, as it grows."""
    fates = set[Fate]()

    def fate_of(request: web.Request) -> Fate:
        if not is_ours(request):
            return Fate.ANSWERED
        [fate] = chance.choices((Fate.ANSWERED, Fate.REFUSED, Fate.ANSWER_LOST), weights)
        fates.add(fate)
        return fate

    server.fate_of = fate_of
    return fates


async def lead(client: KubeClient, settings: Settings) -> None:
    """The life of one controller that leads."""
    controllers = Controllers(client, settings)
    async with asyncio.TaskGroup() as group:
        group.create_task(controllers.watch(), name="watch")
        group.create_task(controllers.lead(), name="lead")


@asynccontextmanager
async def changing_leaders(
    server: ApiServer, client: KubeClient, settings: Settings, *, writes_each: int
) -> AsyncIterator[list[str]]:
    """For the body one controller after the other leads: none outlives that many writes. What they wrote, as it grows."""
    writes: list[str] = []
    over = asyncio.Event()

    def fate_of(request: web.Request) -> Fate:
        if is_ours(request):
            writes.append(f"{request.method} {request.path}")
            if len(writes) % writes_each == 0:
                over.set()
        return Fate.ANSWERED

    async def take_turns() -> None:
        while True:
            leader = asyncio.create_task(lead(client, settings), name="leader")
            try:
                await over.wait()
                over.clear()
            finally:
                leader.cancel()
                await asyncio.wait([leader])

    server.fate_of = fate_of
    async with asyncio.TaskGroup() as group:
        turns = group.create_task(take_turns(), name="turns")
        yield writes
        turns.cancel()


@asynccontextmanager
async def leader_that_ends(
    server: ApiServer, client: KubeClient, settings: Settings, *, after: int | None
) -> AsyncIterator[Callable[[int], None]]:
    """One controller leads until that many of its writes about machines were done, and another from then on. Without a number the
    first one leads until the function that is given is called with one, and that many more were done."""
    count, is_spent, is_over = 0, asyncio.Event(), asyncio.Event()

    def end_after(more: int) -> None:
        nonlocal after
        after = count + more

    def fate_of(request: web.Request) -> Fate:
        nonlocal count
        if is_over.is_set() or not is_ours(request) or "/namespaces/shop/" not in request.path:
            return Fate.ANSWERED
        count += "events" not in request.path
        if after is None or count <= after:
            return Fate.ANSWERED
        is_spent.set()
        return Fate.REFUSED

    async def take_turns() -> None:
        first = asyncio.create_task(lead(client, settings), name="first leader")
        try:
            await is_spent.wait()
        finally:
            first.cancel()
            await asyncio.wait([first])
        is_over.set()
        await lead(client, settings)

    server.fate_of = fate_of
    async with asyncio.TaskGroup() as group:
        turns = group.create_task(take_turns(), name="turns")
        yield end_after
        assert is_over.is_set()
        turns.cancel()
