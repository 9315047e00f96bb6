"""Kubernetes events: shape, deduplication, bounds. All in virtual time."""

import asyncio
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import msgspec
from podvisor_common.api.meta import ObjectMeta
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.events import (
    NORMAL,
    WARNING,
    WINDOW_S,
    EventRecorder,
    ObjectReference,
    reference_to,
)
from podvisor_common.kube.resources import EVENTS, NODES, VIRTUAL_MACHINE_INSTANCES

from tests.unit.kube.fake_apiserver import FakeApiServer, Refuse
from tests.unit.kube.virtual_time import jump, virtual_time

LIMIT = 20
MANY = 2000
REMEMBERED_BYTES = 500
T0 = datetime(2026, 3, 1, tzinfo=UTC)
VMI = ObjectReference(
    api_version="kubevirt.io/v1",
    kind="VirtualMachineInstance",
    name="vm",
    namespace="shop",
    uid="u1",
)


@asynccontextmanager
async def recording(**options: int) -> AsyncIterator[tuple[FakeApiServer, EventRecorder]]:
    async with (
        FakeApiServer() as server,
        KubeClient.for_url(server.url, user_agent="test") as client,
    ):
        recorder = EventRecorder(
            client, "virt-handler", "virt-handler-x", wall_clock=lambda: T0, **options
        )
        task = asyncio.create_task(recorder.run(), name="events")
        yield server, recorder
        task.cancel()
        await asyncio.wait([task])


@virtual_time
async def test_event_has_everything_the_api_asks_for() -> None:
    async with recording() as (server, recorder):
        recorder.record(VMI, NORMAL, "Started", "The guest has started.", action="Start")
        await server.until(lambda: bool(server.list(EVENTS)))
        [event] = server.list(EVENTS)
        name = event["metadata"]["name"]
        assert name.startswith("vm.")
        event.pop("metadata")
        assert event == {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "eventTime": "2026-03-01T00:00:00.000000Z",
            "type": "Normal",
            "reason": "Started",
            "action": "Start",
            "note": "The guest has started.",
            "regarding": {
                "apiVersion": "kubevirt.io/v1",
                "kind": "VirtualMachineInstance",
                "name": "vm",
                "namespace": "shop",
                "uid": "u1",
            },
            "reportingController": "virt-handler",
            "reportingInstance": "virt-handler-x",
        }


@virtual_time
async def test_repeated_event_is_one_object_with_a_series() -> None:
    async with recording() as (server, recorder):
        for _ in range(20):
            recorder.record(VMI, WARNING, "Broken", "It is broken.")
            await asyncio.sleep(1)
        await server.until(lambda: server.list(EVENTS)[0].get("series", {}).get("count") == 16)
        assert len(server.list(EVENTS)) == 1
        assert len(server.requests) == 5
        recorder.record(VMI, WARNING, "Broken", "It is broken otherwise.")
        await server.until(lambda: len(server.list(EVENTS)) == 2)


@virtual_time
async def test_event_known_from_an_earlier_process_is_not_made_again() -> None:
    async with recording() as (server, recorder):
        recorder.record(VMI, NORMAL, "Started", "The guest has started.")
        await server.until(lambda: bool(server.list(EVENTS)))
        async with KubeClient.for_url(server.url, user_agent="test") as client:
            again = EventRecorder(client, "virt-handler", "virt-handler-x", wall_clock=lambda: T0)
            task = asyncio.create_task(again.run(), name="again")
            again.record(VMI, NORMAL, "Started", "The guest has started.")
            again.record(VMI, NORMAL, "Stopped", "The guest has stopped.")
            await server.until(lambda: len(server.list(EVENTS)) == 2)
            task.cancel()
            await asyncio.wait([task])


@virtual_time
async def test_recording_never_waits_and_memory_is_bounded() -> None:
    async with recording(queue_limit=LIMIT) as (server, recorder):
        server.hang = True
        for number in range(LIMIT + 10):
            recorder.record(VMI, NORMAL, "Counted", f"number {number}")
        server.hang = False
        await server.until(
            lambda: any(e["note"] == f"number {LIMIT + 9}" for e in server.list(EVENTS))
        )
        assert len(server.list(EVENTS)) == LIMIT


@virtual_time
async def test_what_is_remembered_of_sent_events_is_little_and_ends_with_the_window() -> None:
    async with recording(queue_limit=1) as (_, recorder):
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            for number in range(MANY):
                regarding = msgspec.structs.replace(
                    VMI, name=f"machine-{number}", uid=f"{number:036}"
                )
                recorder.record(regarding, NORMAL, "SuccessfulCreate", f"Created pod of {number}.")
            remembered, _ = tracemalloc.get_traced_memory()
            jump(WINDOW_S)
            recorder.record(VMI, NORMAL, "Started", "The guest has started.")
            forgotten, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert (remembered - before) / MANY < REMEMBERED_BYTES
        assert (forgotten - before) / MANY < REMEMBERED_BYTES / 4


@virtual_time
async def test_sending_is_rate_limited() -> None:
    async with recording() as (server, recorder):
        started_s = asyncio.get_running_loop().time()
        for number in range(100):
            recorder.record(VMI, NORMAL, "Counted", f"number {number}")
        await server.until(lambda: len(server.list(EVENTS)) == 100)
        assert 4 <= asyncio.get_running_loop().time() - started_s < 8


@virtual_time
async def test_busy_server_is_asked_again_and_a_refusal_is_not_repeated() -> None:
    async with recording() as (server, recorder):
        server.refusals.append(Refuse(429, "TooManyRequests", headers={"Retry-After": "5"}))
        recorder.record(VMI, NORMAL, "First", "one")
        await server.until(lambda: len(server.list(EVENTS)) == 1)
        server.refusals.append(Refuse(403, "Forbidden", "namespace is being terminated"))
        recorder.record(VMI, NORMAL, "Second", "two")
        recorder.record(VMI, NORMAL, "Third", "three")
        await server.until(lambda: len(server.list(EVENTS)) == 2)
        assert sorted(event["reason"] for event in server.list(EVENTS)) == ["First", "Third"]


@virtual_time
async def test_what_happened_while_nobody_answered_is_told_when_the_server_is_back() -> None:
    async with recording() as (server, recorder):
        server.refusals.extend([Refuse(503, "ServiceUnavailable")] * 10_000)
        for number in range(5):
            recorder.record(VMI, NORMAL, "Counted", f"number {number}")
        await asyncio.sleep(100)
        assert len(server.requests) < 20
        server.refusals.clear()
        back_s = asyncio.get_running_loop().time()
        await server.until(lambda: len(server.list(EVENTS)) == 5)
        assert asyncio.get_running_loop().time() - back_s < 16


@virtual_time
async def test_an_event_that_always_fails_does_not_keep_back_the_others_for_ever() -> None:
    async with recording() as (server, recorder):
        server.refusals.extend([Refuse(500, "InternalError")] * 3)
        recorder.record(VMI, NORMAL, "First", "one")
        recorder.record(VMI, NORMAL, "Second", "two")
        await server.until(lambda: len(server.list(EVENTS)) == 1)
        assert [event["reason"] for event in server.list(EVENTS)] == ["Second"]


@virtual_time
async def test_long_notes_are_cut_between_characters() -> None:
    async with recording() as (server, recorder):
        recorder.record(VMI, NORMAL, "Long", "ä" * 5000)
        await server.until(lambda: bool(server.list(EVENTS)))
        note = server.list(EVENTS)[0]["note"]
        assert 1000 < len(note.encode()) <= 1024
        assert note.endswith("ä…")


@virtual_time
async def test_events_of_cluster_scoped_objects_go_to_the_default_namespace() -> None:
    class Node:
        metadata = ObjectMeta(name="n1", uid="u2")

    async with recording() as (server, recorder):
        recorder.record(reference_to(NODES, Node()), NORMAL, "Ready", "ready")
        await server.until(lambda: bool(server.list(EVENTS)))
        [event] = server.list(EVENTS)
        assert event["metadata"]["namespace"] == "default"
        assert event["regarding"] == {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "u2"}
    assert reference_to(VIRTUAL_MACHINE_INSTANCES, Node()).kind == "VirtualMachineInstance"
