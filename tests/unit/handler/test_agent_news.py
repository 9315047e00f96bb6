"""How soon the words of a guest's agent are heard, and how often they may be others."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import pytest
from podvisor.domain.v1 import domain_pb2, guest_pb2
from podvisor_common.kube.resources import VIRTUAL_MACHINE_INSTANCES
from podvisor_handler.vmi import agent_news
from podvisor_handler.vmi.agent_news import AgentNews

from tests.unit.handler.fake_launcher import FakeLauncher, needs_root, serving
from tests.unit.handler.world import RUNNING, World, handler, start, world_in

HOUR_S = 3600
NOT_LOOKED = domain_pb2.DomainReport()
Words = domain_pb2.GuestAgentReport
GONE, SILENT = Words(), Words(connected=True)


def tells(*names: str) -> Words:
    devices = [domain_pb2.GuestInterface(name=name) for name in names]
    return Words(connected=True, answered=True, interfaces=devices)


def report(words: Words) -> domain_pb2.DomainReport:
    return domain_pb2.DomainReport(message="the rest", guest_agent=words)


class Listened:
    """An agent that is listened to whenever a handler would."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.news = AgentNews(lambda: self.now_s)
        self.current = NOT_LOOKED
        self.heard: list[tuple[float, Words]] = []

    def says(self, words: Words) -> None:
        self.current = report(words)
        self._look()

    def passes(self, seconds: float) -> None:
        """Time, in which nobody says anything new."""
        end_s = self.now_s + seconds
        while (look_s := self.news.next_look_s) is not None and self.now_s + look_s <= end_s:
            assert look_s > 0
            self.now_s += look_s
            self._look()
        self.now_s = end_s

    def _look(self) -> None:
        self.news.listen(self.current)
        heard = self.news.heard(self.current)
        assert heard is not None
        assert heard.message == self.current.message  # nothing else is held back
        before = self.heard[-1][1] if self.heard else GONE
        if heard.guest_agent != before:
            self.heard.append((self.now_s, heard.guest_agent))


def changes() -> Iterator[Words]:
    """Without an end: it comes and goes, and never says the same twice."""
    number = 0
    while True:
        yield GONE
        yield tells(f"eth{number}")
        number += 1


def test_a_machine_that_boots_is_heard_at_once() -> None:
    it = Listened()
    for after_s, words in (
        (0, GONE),
        (1, SILENT),
        (0, tells("eth0")),
        (10, tells("eth0", "eth1")),
        (30, tells("eth0", "eth2")),
    ):
        it.passes(after_s)
        it.says(words)
    assert [at_s for at_s, _ in it.heard] == [1, 2, 11, 41]


def test_how_often_it_takes_its_credentials_or_not_is_heard_ever_more_seldom() -> None:
    now_s = 0.0
    news, said, heard_at_s = AgentNews(lambda: now_s), domain_pb2.DomainReport(), list[float]()
    said.guest_agent.connected = True
    was_synchronized = None
    for second in range(HOUR_S):
        now_s = float(second)
        said.access_credentials.synchronized = second % 2 == 0
        news.listen(said)
        heard = news.heard(said)
        assert heard is not None
        assert heard.guest_agent == said.guest_agent
        if heard.access_credentials.synchronized != was_synchronized:
            was_synchronized = heard.access_credentials.synchronized
            heard_at_s.append(now_s)
    assert heard_at_s[:3] == [0, 1, 4]
    assert len(heard_at_s) < 50


def test_a_launcher_that_has_not_tried_yet_says_nothing_of_credentials() -> None:
    news, said = AgentNews(lambda: 0.0), domain_pb2.DomainReport()
    said.access_credentials.synchronized = True
    news.listen(said)
    news.listen(NOT_LOOKED)
    assert news.heard(NOT_LOOKED) == NOT_LOOKED
    assert news.next_look_s is None


def test_the_more_often_it_changes_the_later_it_is_heard() -> None:
    it = Listened()
    words = changes()
    for _ in range(HOUR_S // 5):
        it.says(next(words))
        it.passes(5)
    heard_s = [at_s for at_s, _ in it.heard]
    assert heard_s[:4] == [5, 10, 15, 20]
    assert all(later - sooner >= 120 for sooner, later in pairwise(heard_s[8:]))
    assert HOUR_S / 130 < len(heard_s) <= HOUR_S / 120 + 8
    it.passes(120)
    assert it.heard[-1][1] == it.current.guest_agent  # the last word is heard in the end


def test_a_guest_that_makes_the_best_of_it() -> None:
    """It changes whenever it is heard, and is quiet for just as long as makes it be heard soon again."""
    most = 0
    for together in range(1, 20):
        it = Listened()
        words = changes()
        while it.now_s < 10 * HOUR_S:
            for _ in range(together):
                it.says(next(words))
                it.passes(it.news.next_look_s or 0)
            it.passes(15 * 60)
        most = max(most, len(it.heard))
    assert most <= 10 * 30 + 8


def test_after_a_long_quiet_it_is_heard_at_once_again() -> None:
    it = Listened()
    words = changes()
    for _ in range(200):
        it.says(next(words))
        it.passes(5)
    it.passes(20 * 60)
    it.says(tells("a"))
    assert it.heard[-1] == (it.now_s, tells("a"))
    it.passes(1)
    it.says(tells("b"))
    assert it.heard[-1] == (it.now_s, tells("b"))


@pytest.mark.parametrize("words", [SILENT, None], ids=["has not answered", "has not looked"])
def test_a_launcher_that_starts_anew_has_no_news(words: Words | None) -> None:
    """What its agent said before stays heard, and the answer is no change."""
    it = Listened()
    it.says(tells("eth0"))
    again = report(words) if words is not None else NOT_LOOKED
    it.news.listen(again)
    assert it.news.next_look_s is None
    heard = it.news.heard(again)
    assert heard is not None
    assert heard.HasField("guest_agent") is (words is not None)
    assert words is None or heard.guest_agent == tells("eth0")
    it.says(tells("eth0"))
    it.says(GONE)
    it.passes(0.9)
    assert len(it.heard) == 1
    it.passes(0.1)
    assert it.heard[-1] == (1, GONE)


def test_an_agent_that_tells_its_system_and_nothing_else_is_heard() -> None:
    it = Listened()
    it.says(SILENT)
    it.says(Words(connected=True, os=guest_pb2.GuestOs(id="debian")))
    it.passes(1)
    assert it.heard[-1][1].os.id == "debian"


def test_what_is_taken_back_in_time_was_never_said() -> None:
    it = Listened()
    it.says(tells("eth0"))
    it.says(GONE)
    it.says(tells("eth0"))
    it.passes(HOUR_S)
    assert it.heard == [(0, tells("eth0"))]


def test_without_a_report_there_is_nothing_to_hear() -> None:
    news = AgentNews()
    news.listen(None)
    assert (news.heard(None), news.next_look_s) == (None, None)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with world_in(tmp_path) as it:
        yield it


class Say(Protocol):
    def __call__(self, words: Words, **others: object) -> Awaitable[None]: ...


@contextlib.asynccontextmanager
async def heard_once(world: World) -> AsyncIterator[Say]:
    """A machine that runs and has an agent; what its agent says next."""
    launcher = FakeLauncher()
    start(world)
    async with serving(launcher, world.pods), handler(world):
        await launcher.report(**RUNNING, guest_agent=tells("eth0"))
        await world.until(lambda: world.condition("AgentConnected") != {})

        async def say(words: Words, **others: object) -> None:
            launcher.current.guest_agent.CopyFrom(words)
            await launcher.report(**others)

        yield say


@needs_root
async def test_a_guest_does_not_set_the_rate_of_writes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_news, "_FIRST_PAUSE_S", 60.0)
    async with heard_once(world) as say:
        for number in range(10):
            await say(GONE)
            await say(tells(f"eth{number}"))
        # What is not the agent's does not wait for it, and comes after all that the handler had no reason to say.
        await say(GONE, state=domain_pb2.DOMAIN_STATE_PAUSED)
        await world.until(lambda: world.condition("Paused") != {})
        assert world.condition("AgentConnected")["status"] == "True"
        assert world.writes(VIRTUAL_MACHINE_INSTANCES, "/status") == 2


@needs_root
async def test_news_that_was_held_back_is_told_without_another_word(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_news, "_FIRST_PAUSE_S", 0.3)
    async with heard_once(world) as say:
        await say(GONE)
        await world.until(lambda: world.condition("AgentConnected") == {})
        assert world.writes(VIRTUAL_MACHINE_INSTANCES, "/status") == 2
