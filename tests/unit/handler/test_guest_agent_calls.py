"""What people ask a handler about the inside of a guest, and what a launcher that is not to be trusted answers."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from podvisor.domain.v1 import guest_pb2
from podvisor.handler.v1 import handler_pb2 as pb
from podvisor.handler.v1 import handler_pb2_grpc
from podvisor.launcher.v1 import launcher_pb2
from podvisor_common.rpc.client import call, unix_channel
from podvisor_common.rpc.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    NotFound,
    RpcError,
    Unimplemented,
)
from podvisor_handler.rpc.guest_agent import bound

from tests.unit.handler.fake_launcher import FakeLauncher, needs_root, serving
from tests.unit.handler.world import RUNNING, World, handler, start, world_in

REFERENCE = pb.MachineReference(namespace="default", name="myvm")
Ask = Callable[..., Awaitable[Any]]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with world_in(tmp_path) as it:
        yield it


@contextlib.asynccontextmanager
async def asking(world: World, launcher: FakeLauncher) -> AsyncIterator[Ask]:
    """A machine that runs, and a client of its handler."""
    start(world)
    path = f"{world.run}/handler.sock"
    async with serving(launcher, world.pods), handler(world), unix_channel(path) as channel:
        await launcher.report(**RUNNING)
        await world.until(lambda: world.status("phase") == "Running")
        stub: Any = handler_pb2_grpc.HandlerServiceStub(channel)

        async def ask(
            method: str, reference: pb.MachineReference = REFERENCE, **fields: Any
        ) -> Any:
            request = getattr(pb, f"{method}Request")(reference=reference, **fields)
            return await call(getattr(stub, method), request, timeout_s=10)

        yield ask


def able() -> FakeLauncher:
    """A launcher that can ask its agent."""
    launcher = FakeLauncher()
    launcher.features = ["guest-agent", "something-else"]
    return launcher


@needs_root
async def test_every_question_reaches_the_launcher(world: World) -> None:
    launcher = able()
    launcher.agent = guest_pb2.GuestInfo(
        host_name="shop",
        users=[guest_pb2.GuestUser(name="root")],
        filesystems=[guest_pb2.GuestFilesystem(mount_point="/")],
    )
    async with asking(world, launcher) as ask:
        assert (await ask("GetGuestInfo")).info == launcher.agent
        assert list((await ask("ListGuestUsers")).users) == list(launcher.agent.users)
        told = (await ask("ListGuestFilesystems")).filesystems
        assert [each.mount_point for each in told] == ["/"]
        await ask("FreezeGuest", thaw_after_s=300)
        await ask("ThawGuest")
    assert launcher.asked[-2:] == [
        launcher_pb2.FreezeGuestRequest(thaw_after_s=300),
        launcher_pb2.ThawGuestRequest(),
    ]


@needs_root
async def test_a_launcher_of_an_older_release_is_not_asked(world: World) -> None:
    launcher = FakeLauncher()
    async with asking(world, launcher) as ask:
        with pytest.raises(Unimplemented, match="started again") as refused:
            await ask("GetGuestInfo")
    assert refused.value.reason == "LauncherTooOld"
    assert launcher.asked == []


@needs_root
async def test_of_a_machine_that_is_not_here_nobody_is_asked(world: World) -> None:
    async with asking(world, able()) as ask:
        with pytest.raises(NotFound, match="default/other"):
            await ask("GetGuestInfo", pb.MachineReference(namespace="default", name="other"))


@needs_root
@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (FailedPrecondition("no agent", reason="GuestAgentNotConnected"), "GuestAgentNotConnected"),
        (DeadlineExceeded("silent", reason="GuestAgentTimedOut"), "GuestAgentTimedOut"),
        (FailedPrecondition("\x1b[2J" + "x" * 2000, reason="\x1b[2J"), "FailedPrecondition"),
    ],
    ids=["not connected", "silent", "hostile"],
)
async def test_errors_are_passed_on(world: World, failure: RpcError, reason: str) -> None:
    launcher = able()
    launcher.agent_failure = failure
    async with asking(world, launcher) as ask:
        with pytest.raises(type(failure)) as raised:
            await ask("FreezeGuest")
    assert raised.value.reason == reason
    assert raised.value.message.isprintable()
    assert len(raised.value.message) <= 1024


def test_whatever_is_told_is_bounded() -> None:
    user = guest_pb2.GuestUser(name="\x1b[2J" + "x" * 100_000, login_time_s=1.5)
    disk = guest_pb2.GuestFilesystemDisk(serial="\u202e1")
    filesystem = guest_pb2.GuestFilesystem(mount_point="/", total_bytes=7, disks=[disk] * 1000)
    response = launcher_pb2.GetGuestInfoResponse(
        info=guest_pb2.GuestInfo(
            users=[user] * 1000, filesystems=[filesystem], os=guest_pb2.GuestOs(name="\x00a")
        )
    )
    bound(response)
    assert (len(response.info.users), len(response.info.users[0].name)) == (256, 1023)
    assert response.info.users[0].login_time_s == 1.5
    [kept] = response.info.filesystems
    assert (kept.mount_point, kept.total_bytes, len(kept.disks)) == ("/", 7, 256)
    assert (kept.disks[0].serial, response.info.os.name) == ("1", "a")
