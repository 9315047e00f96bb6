"""Questions to an agent, through libvirt's own bindings; what libvirt would pass on of one is the test's to say."""

import asyncio
import threading
from collections.abc import AsyncIterator

import libvirt
import pytest
from podvisor_launcher.lifecycle.guest_questions import GuestQuestions
from podvisor_launcher.virt.agent import Command
from podvisor_launcher.virt.connection import LibvirtConnection
from podvisor_launcher.virt.errors import (
    AgentBusy,
    AgentCommandUnsupported,
    AgentError,
    AgentFailed,
    AgentNotConnected,
    AgentRefused,
    AgentTimedOut,
    DomainMissing,
    LibvirtFailed,
    LibvirtUnreachable,
)

from tests.unit.launcher.fake_agent import KILLED, SILENCE, FakeAgent, KnownAgent, error, in_guest
from tests.unit.launcher.test_guest_agent import guest_of

__all__ = ["in_guest"]

REFUSED = error(libvirt.VIR_ERR_INTERNAL_ERROR, "unable to execute: \x1b[2Jno such \u202ething")


@pytest.fixture
async def connection(name: str) -> AsyncIterator[LibvirtConnection]:
    async with guest_of(name) as it:
        yield it


@pytest.fixture
def questions(connection: LibvirtConnection, name: str) -> GuestQuestions:
    return GuestQuestions(KnownAgent(name), connection)


async def test_everything(in_guest: FakeAgent, questions: GuestQuestions) -> None:
    info = await questions.info()
    assert info.agent_version == "7.2.9"
    assert "guest-ping" in [each.name for each in info.commands]
    assert (info.os.id, info.host_name, info.time_zone) == ("debian", "shop", "CET")
    assert info.time_zone_offset_s == 3600
    assert [each.name for each in info.users] == ["root"]
    assert [each.mount_point for each in info.filesystems] == ["/"]
    assert not info.filesystems_frozen
    assert await questions.users() == list(info.users)
    assert await questions.filesystems() == list(info.filesystems)


async def test_what_an_agent_cannot_tell_is_left_out(
    in_guest: FakeAgent, questions: GuestQuestions
) -> None:
    for command in ("guest-get-osinfo", "guest-get-users", "guest-fsfreeze-status"):
        in_guest.answers[command] = REFUSED
    info = await questions.info()
    assert (info.os.id, len(info.users), info.host_name) == ("", 0, "shop")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (SILENCE, AgentTimedOut),
        (error(libvirt.VIR_ERR_AGENT_UNSYNCED, "not in step"), AgentTimedOut),
        (error(libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED, "not configured"), AgentNotConnected),
        (error(libvirt.VIR_ERR_OPERATION_INVALID, "domain is not running"), DomainMissing),
        (REFUSED, AgentRefused),
        (error(113, "guest agent command failed: busy"), AgentRefused),
        (error(112, "guest agent command timed out"), AgentTimedOut),
        (KILLED, AgentFailed),
        (error(libvirt.VIR_ERR_INTERNAL_ERROR, "client socket is closed", libvirt.VIR_FROM_RPC), AgentFailed),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), AgentFailed),
    ],
    ids=["silent", "out of step", "no channel", "ended", "refused", "refused by code", "too late", "killed", "closed", "no text"],
)  # fmt: skip
async def test_no_answer(
    in_guest: FakeAgent, questions: GuestQuestions, answer: Exception, expected: type[Exception]
) -> None:
    in_guest.answers["guest-get-users"] = answer
    with pytest.raises(expected) as raised:
        await questions.users()
    assert type(raised.value) is expected
    assert str(raised.value).isprintable()


@pytest.mark.parametrize(
    "text",
    [
        '{"return":"' + "x" * 4_000_000 + '"}',
        '{"return":' + "[" * 100_000,
        '{"return":' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"return":' + "9" * 10_000 + "}",
        "[]",
        '{"error":{}}',
        "",
    ],
    ids=["4 MB", "open brackets", "deep", "a long number", "a list", "an error", "empty"],
)
async def test_what_libvirt_passes_on_may_be_anything(
    in_guest: FakeAgent, questions: GuestQuestions, connection: LibvirtConnection, text: str
) -> None:
    in_guest.raw["guest-get-users"] = text
    before = connection.connections
    with pytest.raises(AgentFailed):
        await questions.users()
    assert (connection.connected, connection.connections) == (True, before)
    assert (await questions.info()).host_name == "shop"


@pytest.mark.parametrize("is_known", [True, False], ids=["switched off", "unknown"])
async def test_what_an_agent_does_not_offer_it_is_not_asked_for(
    in_guest: FakeAgent, questions: GuestQuestions, is_known: bool
) -> None:
    if is_known:
        in_guest.disabled.add("guest-get-users")
    else:
        del in_guest.answers["guest-get-users"]
    with pytest.raises(AgentCommandUnsupported, match="guest-get-users"):
        await questions.users()
    assert in_guest.commands == []


async def test_where_no_agent_is_nobody_is_asked(
    in_guest: FakeAgent, connection: LibvirtConnection, name: str
) -> None:
    agent = KnownAgent(name)
    agent.comes(connected=False)
    with pytest.raises(AgentNotConnected):
        await GuestQuestions(agent, connection).info()
    assert in_guest.commands == []


async def test_of_another_guest_nobody_is_asked(
    in_guest: FakeAgent, connection: LibvirtConnection
) -> None:
    with pytest.raises(DomainMissing):
        await GuestQuestions(KnownAgent("gone"), connection).info()


async def test_without_a_connection_nobody_is_asked(name: str) -> None:
    alone = LibvirtConnection("test:///default", lambda: None)
    with pytest.raises(LibvirtUnreachable):
        await GuestQuestions(KnownAgent(name), alone).info()


async def test_a_slow_agent_holds_up_no_other_call(
    in_guest: FakeAgent, questions: GuestQuestions, connection: LibvirtConnection, name: str
) -> None:
    in_guest.gate.clear()
    slow = [asyncio.create_task(questions.users(), name=f"question {n}") for n in range(20)]
    await asyncio.to_thread(in_guest.is_waited_for.wait, 10)
    async with asyncio.timeout(5):
        for _ in range(10):
            await connection.domain_xml(name)
    threads = [each for each in threading.enumerate() if each.name == "guest agent"]
    assert len(threads) == 1
    in_guest.gate.set()
    outcomes = await asyncio.gather(*slow, return_exceptions=True)
    busy = [each for each in outcomes if isinstance(each, BaseException)]
    assert {type(each) for each in busy} == {AgentBusy}
    assert len(busy) == 17


async def test_who_is_curious_keeps_no_probe_and_no_thaw_out(
    in_guest: FakeAgent, questions: GuestQuestions
) -> None:
    in_guest.gate.clear()
    curious = [asyncio.create_task(questions.users(), name=f"question {n}") for n in range(20)]
    await asyncio.to_thread(in_guest.is_waited_for.wait, 10)
    needed = [
        asyncio.create_task(questions.ping(5), name="probe"),
        asyncio.create_task(questions.thaw(), name="thaw"),
    ]
    await asyncio.sleep(0)
    in_guest.gate.set()
    await asyncio.gather(*needed)
    assert in_guest.commands[:2] == ["guest-ping", "guest-fsfreeze-thaw"]
    await asyncio.gather(*curious, return_exceptions=True)
    assert in_guest.commands.count("guest-get-users") == 3


async def test_a_question_that_is_given_up(
    in_guest: FakeAgent, connection: LibvirtConnection, name: str
) -> None:
    """Those after it wait for its thread, and no longer than they may."""
    in_guest.gate.clear()
    for _ in range(2):
        with pytest.raises(AgentTimedOut):
            await connection.agent.ask(name, [Command("guest-ping")], deadline_s=0.05)
    assert in_guest.commands == ["guest-ping"]
    in_guest.gate.set()
    [answer] = await connection.agent.ask(name, [Command("guest-ping")], deadline_s=5)
    assert answer == {}


async def test_an_agent_that_is_silent_once_is_asked_nothing_more(
    in_guest: FakeAgent, questions: GuestQuestions
) -> None:
    in_guest.answers["guest-get-osinfo"] = SILENCE
    with pytest.raises(AgentTimedOut):
        await questions.info()
    assert in_guest.commands == ["guest-get-osinfo"]


async def test_what_is_confidential_is_in_no_error(
    in_guest: FakeAgent, connection: LibvirtConnection, name: str
) -> None:
    in_guest.answers["guest-set-user-password"] = error(
        libvirt.VIR_ERR_INTERNAL_ERROR, "cannot set aHVudGVyMg=="
    )
    command = Command("guest-set-user-password", {"password": "aHVudGVyMg=="}, is_confidential=True)
    [failure] = await connection.agent.ask(name, [command], deadline_s=5)
    assert isinstance(failure, AgentError)
    assert "aHVu" not in f"{failure} {failure!r} {failure.__cause__!r} {command!r}"


async def test_where_no_thread_is_to_be_had_the_next_question_may_have_one(
    in_guest: FakeAgent, questions: GuestQuestions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", none)
        with pytest.raises(LibvirtFailed, match="no thread"):
            await questions.users()
    assert [each.name for each in await questions.users()] == ["root"]
