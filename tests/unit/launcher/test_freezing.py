"""File systems that stand still for a while, whatever becomes of the launcher."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import libvirt
import pytest
from podvisor_launcher.lifecycle import freezing
from podvisor_launcher.lifecycle.freezing import Freeze, Freezing, load_freeze, pause_s
from podvisor_launcher.lifecycle.guest_questions import GuestQuestions
from podvisor_launcher.virt.connection import LibvirtConnection
from podvisor_launcher.virt.errors import (
    AgentCommandUnsupported,
    AgentFailed,
    AgentNotConnected,
    AgentTimedOut,
)

from tests.unit.launcher.fake_agent import KILLED, SILENCE, FakeAgent, KnownAgent, error, in_guest
from tests.unit.launcher.test_guest_agent import guest_of

__all__ = ["in_guest"]

FREEZE, THAW = "guest-fsfreeze-freeze", "guest-fsfreeze-thaw"
NO_TEXT = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
REFUSED = error(libvirt.VIR_ERR_INTERNAL_ERROR, "failed to freeze /: Device or resource busy")


class Frozen:
    """A launcher's part of it, on a clock of the test's."""

    def __init__(
        self, path: Path, connection: LibvirtConnection, name: str, in_guest: FakeAgent
    ) -> None:
        self.now_ms = 1_000_000
        self._changed = asyncio.Event()
        self.agent = KnownAgent(name, self._changed.set)
        self.looks_at(in_guest)
        self.path = path
        self._connection = connection
        self.restart()

    def restart(self) -> None:
        """By another process, which knows what is on disk."""
        questions = GuestQuestions(self.agent, self._connection)
        self.freezing = Freezing(self.path, self.agent, questions, lambda: self.now_ms)

    @property
    def is_frozen(self) -> bool:
        """What is reported."""
        return self.agent.work.filesystems_frozen

    async def is_asked_to_freeze(self, in_guest: FakeAgent) -> asyncio.Task[None]:
        """Who waits for a freeze that the agent has been told, and will answer when its gate is opened."""
        is_told = threading.Event()

        def stops() -> None:
            if FREEZE in in_guest.commands:
                in_guest.gate.clear()
                is_told.set()

        in_guest.when_asked = stops
        freezing_ = asyncio.create_task(self.freezing.freeze(300), name="freeze")
        assert await asyncio.to_thread(is_told.wait, 10)
        self.looks_at(in_guest)
        return freezing_

    def looks_at(self, in_guest: FakeAgent) -> None:
        """From now on runs_until() looks after every question too."""
        loop = asyncio.get_running_loop()
        in_guest.when_asked = partial(loop.call_soon_threadsafe, self._changed.set)

    async def runs_until(self, holds: Callable[[], bool]) -> None:
        """Until then."""
        running = asyncio.create_task(self.freezing.run(), name="freezing")
        try:
            async with asyncio.timeout(10):
                while not holds():
                    await self._changed.wait()
                    self._changed.clear()
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running


@pytest.fixture
async def it(name: str, tmp_path: Path, in_guest: FakeAgent) -> AsyncIterator[Frozen]:
    async with guest_of(name) as connection:
        yield Frozen(tmp_path / "freeze.json", connection, name, in_guest)


async def test_freezing_and_thawing(it: Frozen, in_guest: FakeAgent) -> None:
    assert not it.is_frozen
    await it.freezing.freeze(300)
    assert it.is_frozen
    assert load_freeze(it.path) == Freeze(1_300_000)
    await it.freezing.freeze(0)
    assert load_freeze(it.path) == Freeze(None)
    assert in_guest.commands.count(FREEZE) == 1
    await it.freezing.thaw()
    await it.freezing.thaw()
    assert not it.is_frozen
    assert load_freeze(it.path) is None


async def test_it_thaws_by_itself(it: Frozen, in_guest: FakeAgent) -> None:
    await it.freezing.freeze(300)
    it.now_ms += 300_000
    await it.runs_until(lambda: not it.is_frozen)
    assert in_guest.commands[-1] == THAW
    assert load_freeze(it.path) is None


async def test_it_thaws_when_the_launcher_was_killed(it: Frozen, in_guest: FakeAgent) -> None:
    await it.freezing.freeze(300)
    it.restart()
    assert it.is_frozen
    it.now_ms += 300_000
    await it.runs_until(lambda: not it.is_frozen)
    assert in_guest.answers["guest-fsfreeze-status"] == "thawed"


async def test_it_is_noted_before_it_is_done(it: Frozen, in_guest: FakeAgent) -> None:
    freezing_ = await it.is_asked_to_freeze(in_guest)
    assert load_freeze(it.path) is not None
    in_guest.gate.set()
    await freezing_


@pytest.mark.parametrize("answer", [REFUSED, None], ids=["refuses", "cannot"])
async def test_a_guest_that_does_not_freeze(
    it: Frozen, in_guest: FakeAgent, answer: Exception | None
) -> None:
    if answer is None:
        del in_guest.answers[FREEZE]
    else:
        in_guest.answers[FREEZE] = answer
    with pytest.raises((AgentFailed, AgentCommandUnsupported)):
        await it.freezing.freeze(300)
    assert (it.is_frozen, load_freeze(it.path)) == (False, None)


async def test_a_guest_without_an_agent(it: Frozen) -> None:
    it.agent.comes(connected=False)
    for action in (it.freezing.freeze(300), it.freezing.thaw()):
        with pytest.raises(AgentNotConnected):
            await action
    assert load_freeze(it.path) is None


@pytest.mark.parametrize("answer", [SILENCE, KILLED, NO_TEXT], ids=["silent", "killed", "no text"])
async def test_a_guest_that_may_have_frozen_is_thawed(
    it: Frozen, in_guest: FakeAgent, answer: Exception
) -> None:
    """Its agent has not said so: whoever asked cannot know that it has to be thawed."""
    in_guest.answers[FREEZE] = answer
    with pytest.raises((AgentTimedOut, AgentFailed)):
        await it.freezing.freeze(0)
    assert it.is_frozen
    await it.runs_until(lambda: THAW in in_guest.commands)


async def test_a_freeze_whose_end_cannot_be_noted_is_over(it: Frozen, in_guest: FakeAgent) -> None:
    unwritable = it.path.with_name("freeze.json.new")

    def fills_the_disk() -> None:
        if FREEZE in in_guest.commands:
            unwritable.mkdir(exist_ok=True)

    in_guest.when_asked = fills_the_disk
    with pytest.raises(OSError):
        await it.freezing.freeze(0)
    assert it.is_frozen
    it.looks_at(in_guest)
    await it.runs_until(lambda: not it.is_frozen)
    assert in_guest.commands[-1] == THAW


async def test_a_freeze_that_nobody_waits_for_any_more_is_over(
    it: Frozen, in_guest: FakeAgent
) -> None:
    freezing_ = await it.is_asked_to_freeze(in_guest)
    freezing_.cancel()
    with pytest.raises(asyncio.CancelledError):
        await freezing_
    assert it.is_frozen
    in_guest.gate.set()
    await it.runs_until(lambda: not it.is_frozen)
    assert in_guest.commands[-1] == THAW


@pytest.mark.parametrize(
    ("left_s", "retry_s", "expected"),
    [
        (None, None, None),
        (30.0, None, 30.0),
        (30.0, 90.0, 30.0),
        (300.0, 2.0, 2.0),
        (None, 2.0, 2.0),
        (0.0, 2.0, 2.0),
        (0.0, None, 0.0),
    ],
)
def test_no_look_is_later_than_the_thaw(
    left_s: float | None, retry_s: float | None, expected: float | None
) -> None:
    assert pause_s(left_s, retry_s) == expected


def test_a_note_that_the_disk_does_not_give_back_is_a_freeze_that_is_over(tmp_path: Path) -> None:
    assert load_freeze(tmp_path) == Freeze(0)


async def test_a_launcher_that_is_killed_over_a_freeze_thaws(
    it: Frozen, in_guest: FakeAgent
) -> None:
    """What was to have no end has one as long as nobody knows that it has begun."""
    in_guest.answers[FREEZE] = SILENCE
    with pytest.raises(AgentTimedOut):
        await it.freezing.freeze(0)
    it.restart()
    it.now_ms += 120_000
    await it.runs_until(lambda: THAW in in_guest.commands)


async def test_thawing_is_tried_again(
    it: Frozen, in_guest: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(freezing, "_FIRST_RETRY_S", 0.01)
    await it.freezing.freeze(300)
    it.now_ms += 300_000
    in_guest.answers[THAW] = SILENCE
    await it.runs_until(lambda: in_guest.commands.count(THAW) == 3)
    assert it.is_frozen
    in_guest.answers[THAW] = 1
    await it.runs_until(lambda: not it.is_frozen)


async def test_a_guest_that_was_booted_again_is_not_frozen(it: Frozen, in_guest: FakeAgent) -> None:
    await it.freezing.freeze(0)
    in_guest.answers["guest-fsfreeze-status"] = "thawed"
    it.agent.comes(connected=False)
    it.agent.comes()
    await it.runs_until(lambda: not it.is_frozen)
    assert load_freeze(it.path) is None
    assert THAW not in in_guest.commands


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"thaw_at_ms":"x"}', "\xff"])
def test_a_note_that_cannot_be_read_is_a_freeze_that_is_over(tmp_path: Path, content: str) -> None:
    path = tmp_path / "freeze.json"
    path.write_text(content)
    assert load_freeze(path) == Freeze(0)


async def test_where_no_thread_is_to_be_had_thawing_is_tried_again(
    it: Frozen, in_guest: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(freezing, "_FIRST_RETRY_S", 0.01)
    await it.freezing.freeze(300)
    it.now_ms += 300_000
    start, failures = threading.Thread.start, [1, 2, 3]

    def fails_at_first(thread: threading.Thread) -> None:
        if thread.name == "freeze" and failures:
            failures.pop()
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", fails_at_first)
    await it.runs_until(lambda: not it.is_frozen)
    assert (failures, load_freeze(it.path)) == ([], None)


async def test_what_cannot_be_noted_is_not_done(it: Frozen, in_guest: FakeAgent) -> None:
    it.path.with_name("freeze.json.new").mkdir()
    with pytest.raises(OSError):
        await it.freezing.freeze(300)
    assert FREEZE not in in_guest.commands
