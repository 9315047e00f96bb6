"""LauncherService's questions to a guest's agent, over a socket: what is answered, and which reasons failures have."""

import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import libvirt
import pytest
from podvisor.launcher.v1 import launcher_pb2 as pb
from podvisor.launcher.v1 import launcher_pb2_grpc
from podvisor_common.rpc.client import call, unix_channel
from podvisor_common.rpc.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    RpcError,
    Unavailable,
)
from podvisor_common.rpc.server import serve_unix
from podvisor_launcher.lifecycle.freezing import Freezing
from podvisor_launcher.lifecycle.guest_questions import GuestQuestions
from podvisor_launcher.lifecycle.machine import Machine
from podvisor_launcher.lifecycle.reports import Reports
from podvisor_launcher.rpc.guest_agent import GuestAgentCalls
from podvisor_launcher.rpc.servicer import launcher_service
from podvisor_launcher.settings import Settings

from tests.unit.launcher.fake_agent import SILENCE, FakeAgent, KnownAgent, error, in_guest
from tests.unit.launcher.test_guest_agent import guest_of

__all__ = ["in_guest"]

Ask = Callable[..., Awaitable[Any]]
REFUSED = error(libvirt.VIR_ERR_INTERNAL_ERROR, "not today")


@pytest.fixture
def agent(name: str) -> KnownAgent:
    return KnownAgent(name)


@pytest.fixture
async def ask(
    settings: Settings, name: str, in_guest: FakeAgent, agent: KnownAgent
) -> AsyncIterator[Ask]:
    """A client of a launcher whose guest has that agent."""
    async with guest_of(name) as connection:
        reports = Reports(epoch=7)
        machine = Machine(settings, reports, lambda _: None)
        questions = GuestQuestions(agent, connection)
        calls = GuestAgentCalls(questions, Freezing(settings.freeze, agent, questions))
        service = launcher_service(machine, reports, calls)
        with tempfile.TemporaryDirectory(prefix="pv") as short:
            async with (
                serve_unix(f"{short}/s", [service], grace_s=0.0),
                unix_channel(f"{short}/s") as channel,
            ):
                stub: Any = launcher_pb2_grpc.LauncherServiceStub(channel)

                async def ask(method: str, **fields: Any) -> Any:
                    request = getattr(pb, f"{method}Request")(**fields)
                    return await call(getattr(stub, method), request, timeout_s=10)

                yield ask


async def test_what_is_answered(ask: Ask) -> None:
    assert list((await ask("GetInfo")).features) == ["guest-agent"]
    info = (await ask("GetGuestInfo")).info
    assert (info.os.id, info.host_name) == ("debian", "shop")
    assert list((await ask("ListGuestUsers")).users) == list(info.users)
    assert list((await ask("ListGuestFilesystems")).filesystems) == list(info.filesystems)
    await ask("FreezeGuest", thaw_after_s=60)
    assert (await ask("GetGuestInfo")).info.filesystems_frozen
    await ask("ThawGuest")
    assert not (await ask("GetGuestInfo")).info.filesystems_frozen


@pytest.mark.parametrize(
    ("answer", "type_", "reason"),
    [
        (SILENCE, DeadlineExceeded, "GuestAgentTimedOut"),
        (REFUSED, FailedPrecondition, "GuestAgentFailed"),
        (None, FailedPrecondition, "GuestAgentCommandUnsupported"),
    ],
    ids=["silent", "refuses", "unknown"],
)
@pytest.mark.parametrize(
    ("method", "command"),
    [
        ("ListGuestUsers", "guest-get-users"),
        ("ListGuestFilesystems", "guest-get-fsinfo"),
        ("FreezeGuest", "guest-fsfreeze-freeze"),
        ("ThawGuest", "guest-fsfreeze-thaw"),
    ],
)
async def test_reasons(
    ask: Ask,
    in_guest: FakeAgent,
    method: str,
    command: str,
    answer: Exception | None,
    type_: type[RpcError],
    reason: str,
) -> None:
    if answer is None:
        del in_guest.answers[command]
    else:
        in_guest.answers[command] = answer
    with pytest.raises(type_) as failed:
        await ask(method)
    assert failed.value.reason == reason


@pytest.mark.parametrize(
    "method",
    ["GetGuestInfo", "ListGuestUsers", "ListGuestFilesystems", "FreezeGuest", "ThawGuest"],
)
async def test_without_an_agent(ask: Ask, agent: KnownAgent, method: str) -> None:
    agent.comes(connected=False)
    with pytest.raises(FailedPrecondition) as failed:
        await ask(method)
    assert failed.value.reason == "GuestAgentNotConnected"


async def test_a_freeze_that_cannot_be_noted(ask: Ask, settings: Settings) -> None:
    settings.freeze.with_name("freeze.json.new").mkdir()
    with pytest.raises(Unavailable, match="cannot be noted: Is a directory"):
        await ask("FreezeGuest")
