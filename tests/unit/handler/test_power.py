"""The verbs of HandlerService through a whole handler: they reach the machine's launcher, and its answer is theirs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import repeat
from pathlib import Path
from typing import TypeAlias

import pytest
from podvisor.domain.v1 import domain_pb2
from podvisor.handler.v1 import handler_pb2 as pb
from podvisor.handler.v1 import handler_pb2_grpc
from podvisor_common.rpc.client import call, stream, unix_channel
from podvisor_common.rpc.errors import (
    FailedPrecondition,
    NotFound,
    ResourceExhausted,
    Unavailable,
)

from tests.unit.handler.fake_launcher import FakeLauncher, needs_root, serving
from tests.unit.handler.world import RUNNING, World, handler, start, world_in

pytestmark = needs_root

REFERENCE = pb.MachineReference(namespace="default", name="myvm")
Stub: TypeAlias = "handler_pb2_grpc.HandlerServiceAsyncStub"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with world_in(tmp_path) as it:
        start(it)
        yield it


@asynccontextmanager
async def _handler(world: World) -> AsyncIterator[Stub]:
    async with handler(world), unix_channel(str(world.run / "handler.sock")) as channel:
        stub: Stub = handler_pb2_grpc.HandlerServiceStub(channel)
        await call(stub.GetNodeInfo, pb.GetNodeInfoRequest(), timeout_s=5, wait_for_ready=True)
        yield stub


@asynccontextmanager
async def _running(world: World, launcher: FakeLauncher) -> AsyncIterator[Stub]:
    async with serving(launcher, world.pods), _handler(world) as stub:
        await launcher.report(**RUNNING)
        await world.until(lambda: world.status("phase") == "Running")
        yield stub


async def _pause(stub: Stub) -> None:
    await call(stub.PauseDomain, pb.PauseDomainRequest(reference=REFERENCE), timeout_s=5)


async def test_the_launcher_is_asked_and_answers(world: World) -> None:
    launcher = FakeLauncher()
    async with _running(world, launcher) as stub:
        await _pause(stub)
        assert launcher.current.state == domain_pb2.DOMAIN_STATE_PAUSED
        with pytest.raises(FailedPrecondition, match=r"The guest is paused\.") as caught:
            await _pause(stub)
        assert caught.value.reason == "AlreadyPaused"
        await call(stub.ResumeDomain, pb.ResumeDomainRequest(reference=REFERENCE), timeout_s=5)
        assert launcher.current.state == domain_pb2.DOMAIN_STATE_RUNNING


async def test_what_a_launcher_says_is_cut_and_printable(world: World) -> None:
    """Nobody vouches for it."""
    launcher = FakeLauncher()
    launcher.pause_refusal = FailedPrecondition("\x1b[2J" + "x" * 5000, reason="no reason; really")
    async with _running(world, launcher) as stub:
        with pytest.raises(FailedPrecondition) as caught:
            await _pause(stub)
    assert (caught.value.reason, "\x1b" in caught.value.message) == ("FailedPrecondition", False)
    assert len(caught.value.message) <= 1024


async def test_an_older_launcher_does_not_know_the_question(world: World) -> None:
    async with _running(world, FakeLauncher()) as stub:
        with pytest.raises(FailedPrecondition, match="restart the machine") as caught:
            await call(stub.ResetDomain, pb.ResetDomainRequest(reference=REFERENCE), timeout_s=5)
        assert caught.value.reason == "LauncherTooOld"


async def test_a_launcher_that_does_not_answer(world: World) -> None:
    async with _handler(world) as stub:
        await world.until(lambda: world.status("phase") == "Scheduled")
        with pytest.raises(Unavailable) as caught:
            await _pause(stub)
        assert caught.value.reason == "LauncherUnreachable"
        other = pb.PauseDomainRequest(reference=pb.MachineReference(namespace="a", name="b"))
        with pytest.raises(NotFound):
            await call(stub.PauseDomain, other, timeout_s=5)


async def test_a_picture_has_a_bounded_size(world: World) -> None:
    launcher = FakeLauncher()
    async with _running(world, launcher) as stub:
        assert await _picture(stub) == b"picture"
        launcher.picture = repeat(bytes(1 << 20))
        with pytest.raises(ResourceExhausted):
            await _picture(stub)


async def _picture(stub: Stub) -> bytes:
    request = pb.TakeScreenshotRequest(reference=REFERENCE)
    pieces = stream(stub.TakeScreenshot, request, first_reply_timeout_s=5)
    return b"".join([piece.png async for piece in pieces])
