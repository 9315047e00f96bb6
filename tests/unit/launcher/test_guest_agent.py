"""The guest's agent, which may be anything. libvirt's test driver has none, so what libvirt says of one is put in its place."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import libvirt
import pytest
from podvisor.domain.v1 import domain_pb2 as pb
from podvisor_common.guest_interfaces import GuestInterface
from podvisor_launcher.lifecycle import guest_agent
from podvisor_launcher.lifecycle.guest_agent import Agent, GuestAgent
from podvisor_launcher.settings import Settings
from podvisor_launcher.virt import agent as virt_agent
from podvisor_launcher.virt.agent import AgentQuestions, Answer, Command
from podvisor_launcher.virt.connection import LibvirtConnection
from podvisor_launcher.virt.errors import AgentFailed, LibvirtFailed, LibvirtUnreachable

from tests.unit.kube.virtual_time import virtual_time
from tests.unit.launcher.conftest import connected
from tests.unit.launcher.fake_agent import FakeAgent, in_guest
from tests.unit.launcher.launched import launcher
from tests.unit.launcher.plugging import failure
from tests.unit.launcher.specs import spec

__all__ = ["in_guest"]

MAC = "02:00:00:00:00:01"
NAME = "org.qemu.guest_agent.0"
ETH0 = {
    "hwaddr": MAC,
    "addrs": [{"addr": "10.0.2.2", "prefix": 24, "type": 0}],
}
LO = {"hwaddr": "00:00:00:00:00:00", "addrs": [{"addr": "127.0.0.1", "prefix": 8, "type": 0}]}
# More than libvirt passes on, which it reports as it does a broken connection.
TOO_LONG = failure("Number of interfaces, 4000 exceeds the max limit: 2048")
TOO_LONG.err = (libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_FROM_RPC, "too many interfaces")
BROKEN = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")


@dataclass
class InGuest:
    """What the agent does. `tells` is what libvirt makes of its answer, or raises."""

    is_there: bool = False
    tells: Any = field(default_factory=lambda: {"lo": LO, "eth0": ETH0})
    gate: threading.Event = field(default_factory=threading.Event)  # what an answer waits for
    asked: int = 0
    timeouts_s: list[int] = field(default_factory=list)
    heard: list[Callable[[], None]] = field(default_factory=list)

    def comes(self, is_there: bool = True) -> None:
        """It opens the channel, or closes it."""
        self.is_there = is_there
        for tell in self.heard:
            tell()

    def describe(self, plain: str) -> str:
        state = "connected" if self.is_there else "disconnected"
        return plain.replace(f"name='{NAME}'", f"name='{NAME}' state='{state}'")

    def answer(self, source: int) -> Any:
        assert source == libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT
        self.asked += 1
        assert self.gate.wait(10)
        if isinstance(self.tells, Exception):
            raise self.tells
        return self.tells


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> InGuest:
    it = InGuest()
    it.gate.set()
    real_xml, real_register = libvirt.virDomain.XMLDesc, libvirt.virConnect.domainEventRegisterAny

    def register(
        self: libvirt.virConnect, domain: Any, event: int, callback: Any, opaque: Any
    ) -> int:
        if event == libvirt.VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE:
            it.heard.append(lambda: callback(self, None, 1, 2, opaque))
        number: int = real_register(self, domain, event, callback, opaque)
        return number

    monkeypatch.setattr(libvirt.virConnect, "domainEventRegisterAny", register)
    monkeypatch.setattr(libvirt.virDomain, "XMLDesc", lambda self: it.describe(real_xml(self)))
    monkeypatch.setattr(
        libvirt.virDomain, "interfaceAddresses", lambda _, source: it.answer(source)
    )
    monkeypatch.setattr(
        libvirt.virDomain,
        "agentSetResponseTimeout",
        lambda _, seconds: it.timeouts_s.append(seconds),
    )
    monkeypatch.setattr(guest_agent, "_PAUSE_S", 0.01)
    return it


def names(report: pb.DomainReport) -> list[str]:
    return [each.name for each in report.guest_agent.interfaces]


@asynccontextmanager
async def guest_of(name: str) -> AsyncIterator[LibvirtConnection]:
    """A connection to a libvirt at which a guest of that name runs."""
    async with connected() as it:
        await it.define(
            f"<domain type='test'><name>{name}</name><memory>8192</memory><os><type>hvm</type></os></domain>"
        )
        await it.start(name)
        yield it
        await it.destroy(name)


async def test_an_agent_comes_tells_and_goes(settings: Settings, name: str, agent: InGuest) -> None:
    async with launcher(settings) as it:
        await it.machine.apply(spec(name=name))
        alone = await it.until(lambda report: report.HasField("guest_agent"))
        assert not alone.guest_agent.connected
        await it.until_state(pb.DOMAIN_STATE_RUNNING)
        agent.comes()
        told = await it.until(lambda report: names(report) == ["eth0"])
        assert (told.guest_agent.connected, told.guest_agent.answered) == (True, True)
        (eth0,) = told.guest_agent.interfaces
        assert (eth0.mac, list(eth0.addresses)) == (MAC, ["10.0.2.2"])
        assert set(agent.timeouts_s) == {5}
        agent.tells = {"lo": LO}
        it.machine.agent.is_due_again()
        nothing = await it.until(lambda report: names(report) == [])
        assert (nothing.guest_agent.connected, nothing.guest_agent.answered) == (True, True)
        agent.comes(False)
        gone = await it.until(lambda report: not report.guest_agent.connected)
        assert (names(gone), gone.guest_agent.answered) == ([], False)


async def test_what_changes_in_the_guest_is_told_without_an_event(
    settings: Settings, name: str, agent: InGuest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guest_agent, "_PERIOD_S", 0.02)
    async with launcher(settings) as it:
        await it.machine.apply(spec(name=name))
        await it.until_state(pb.DOMAIN_STATE_RUNNING)
        agent.comes()
        first = await it.until(lambda report: names(report) == ["eth0"])
        agent.tells = {"eth0": ETH0, "eth1": {"hwaddr": None, "addrs": None}}
        second = await it.until(lambda report: names(report) == ["eth0", "eth1"])
        assert second.sequence == first.sequence + 1  # what stayed the same was not told again


async def test_nobody_waits_for_an_agent_that_does_not_answer(
    settings: Settings, name: str, agent: InGuest
) -> None:
    agent.gate.clear()
    async with launcher(settings) as it:
        await it.machine.apply(spec(name=name))
        await it.until_state(pb.DOMAIN_STATE_RUNNING)
        agent.comes()
        silent = await it.until(lambda report: report.guest_agent.connected)
        assert (names(silent), silent.guest_agent.answered) == ([], False)
        await it.machine.shutdown(30)
        await it.until_state(pb.DOMAIN_STATE_ENDED)
        agent.gate.set()
        assert await it.exit_code() == 0


async def test_an_agent_that_libvirt_never_comes_back_from_is_looked_at_again(
    settings: Settings, name: str, agent: InGuest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a libvirtd whose worker is stuck. Its going is noticed, and no second thread is stuck beside the first."""
    monkeypatch.setattr(virt_agent, "_DEADLINE_S", 0.05)
    monkeypatch.setattr(guest_agent, "_PERIOD_S", 0.02)
    agent.gate.clear()
    async with launcher(settings) as it:
        await it.machine.apply(spec(name=name))
        await it.until_state(pb.DOMAIN_STATE_RUNNING)
        for _ in range(3):
            agent.comes()
            await it.until(lambda report: report.guest_agent.connected)
            agent.comes(False)
            await it.until(lambda report: not report.guest_agent.connected)
        assert agent.asked == 1
        agent.gate.set()
        agent.comes()
        await it.until(lambda report: names(report) == ["eth0"])


async def test_a_question_that_is_given_up_is_a_failure_of_its_own(
    name: str, agent: InGuest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other calls go on over the same connection. The next question is put when the thread of this one is back."""
    monkeypatch.setattr(virt_agent, "_DEADLINE_S", 0.05)
    agent.gate.clear()
    async with guest_of(name) as libvirt_:
        before = libvirt_.connections
        with pytest.raises(LibvirtFailed, match=r"within 0\.05 s"):
            await libvirt_.guest_interfaces(name)
        with pytest.raises(LibvirtFailed, match="earlier question"):
            await libvirt_.guest_interfaces(name)
        assert (libvirt_.connected, libvirt_.connections) == (True, before)
        assert agent.asked == 1
        agent.gate.set()
        for thread in threading.enumerate():
            if thread.name == "guest agent":
                await asyncio.to_thread(thread.join, 10)
        assert [each.name for each in await libvirt_.guest_interfaces(name)] == ["eth0"]


@pytest.mark.parametrize(
    "answer",
    [
        failure("no answer"),
        TOO_LONG,
        BROKEN,
        {"\x1b": {"hwaddr": MAC, "addrs": []}},
    ],
    ids=["none", "too long", "no text", "no device"],
)
async def test_an_answer_that_is_none(
    name: str, agent: InGuest, answer: Exception | dict[str, Any]
) -> None:
    """It is a failure of the question, and never one of the connection."""
    agent.tells = answer
    async with guest_of(name) as libvirt_:
        before = libvirt_.connections
        if isinstance(answer, Exception):
            with pytest.raises(LibvirtFailed):
                await libvirt_.guest_interfaces(name)
        else:
            assert await libvirt_.guest_interfaces(name) == ()
        assert (libvirt_.connected, libvirt_.connections) == (True, before)


async def test_without_a_connection_nobody_is_asked() -> None:
    with pytest.raises(LibvirtUnreachable):
        await LibvirtConnection("test:///default", lambda: None).guest_interfaces("x")


async def test_an_agent_tells_its_system(
    settings: Settings,
    name: str,
    agent: InGuest,
    in_guest: FakeAgent,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(guest_agent, "_PERIOD_S", 0.02)
    async with launcher(settings) as it:
        await it.machine.apply(spec(name=name))
        await it.until_state(pb.DOMAIN_STATE_RUNNING)
        agent.comes()
        told = await it.until(lambda report: report.guest_agent.HasField("os"))
        assert (told.guest_agent.os.id, told.guest_agent.version) == ("debian", "7.2.9")
        await it.until(lambda report: names(report) == ["eth0"])
        assert in_guest.commands == ["guest-get-osinfo"]
        agent.comes(False)
        await it.until(lambda report: not report.guest_agent.connected)
        in_guest.answers["guest-get-osinfo"] = {"id": "\x1b" * 1000, "name": "x" * 1000}
        agent.comes()
        other = await it.until(lambda report: report.guest_agent.HasField("os"))
        assert (other.guest_agent.os.id, len(other.guest_agent.os.name)) == ("", 256)


class FakeQuestions(AgentQuestions):
    """To an agent that tells nothing of its system. Notes when it was asked."""

    def __init__(self) -> None:
        super().__init__(lambda: None)
        self.asked_s: list[float] = []

    async def ask(
        self,
        name: str,
        commands: Sequence[Command],
        *,
        deadline_s: float,
        waits: bool = True,
        by_people: bool = False,
    ) -> list[Answer | AgentFailed]:
        assert (waits, by_people) == (False, False)
        self.asked_s.append(asyncio.get_running_loop().time() - 1000)
        return [{"version": "7.2"}, AgentFailed("not today")]


class FakeLibvirt(LibvirtConnection):
    """Where libvirt would be: an agent that is there, or not, and answers, or does not. Notes when it was asked."""

    def __init__(self) -> None:
        super().__init__("test:///default", lambda: None)
        self.state = "connected"
        self.answers: tuple[GuestInterface, ...] | None = (GuestInterface("eth0"),)
        self.is_up = True
        self.asked_s: list[float] = []
        self.agent = self.questions = FakeQuestions()

    async def domain_xml(self, name: str) -> str:
        if not self.is_up:
            raise LibvirtUnreachable("libvirt is being restarted")
        target = f"<target type='virtio' name='{NAME}' state='{self.state}'/>"
        return (
            f"<domain type='kvm'><name>{name}</name><memory>1</memory><vcpu>1</vcpu><os><type>hvm</type></os>"
            f"<devices><channel type='unix'>{target}</channel></devices></domain>"
        )

    async def guest_interfaces(self, name: str) -> tuple[GuestInterface, ...]:
        self.asked_s.append(asyncio.get_running_loop().time() - 1000)
        if self.answers is None:
            raise LibvirtFailed("Guest agent is not responding")
        return self.answers


class Watched:
    """A GuestAgent that runs, on a clock that leaps."""

    def __init__(self) -> None:
        self.libvirt = FakeLibvirt()
        self.changes = 0
        self.agent = GuestAgent(lambda: "default_myvm", self._changed)
        self._running = asyncio.create_task(self.agent.run(self.libvirt), name="guest agent")

    def _changed(self) -> None:
        self.changes += 1

    async def after(self, seconds: float) -> Agent | None:
        """What is known so much later."""
        await asyncio.sleep(seconds)
        return self.agent.known


@virtual_time
async def test_how_often_it_is_asked() -> None:
    it = Watched()
    await it.after(60)
    assert it.libvirt.asked_s == []  # nobody has said that there is one
    it.agent.is_due_again()
    await it.after(150)
    assert it.libvirt.asked_s == [60, 65, 75, 95, 125, 155, 185]
    # It is there, has told its devices and its version: the same ever since.
    assert it.changes == 3
    assert it.libvirt.questions.asked_s == [60, 185]
    it.libvirt.asked_s.clear()
    it.agent.is_due_again()  # a device has come
    await it.after(20)
    assert it.libvirt.asked_s == [210, 215, 225]


@virtual_time
async def test_a_guest_that_comes_and_goes_without_an_end_costs_no_more() -> None:
    it = Watched()
    for number in range(1000):
        it.libvirt.state = "connected" if number % 2 else "disconnected"
        it.agent.is_due_again()
        await it.after(0.1)
    assert len(it.libvirt.asked_s) <= 100 / 5 + 1
    assert it.changes <= 3 * (100 / 5 + 1)
    assert len(it.libvirt.questions.asked_s) <= len(it.libvirt.asked_s)


@virtual_time
async def test_what_was_told_stays_known_while_nobody_answers() -> None:
    it = Watched()
    it.agent.is_due_again()
    known = await it.after(1)
    assert known == Agent(True, True, (GuestInterface("eth0"),), version="7.2")
    it.libvirt.answers = None
    assert await it.after(100) == known
    it.libvirt.is_up = False
    it.agent.is_due_again()
    assert await it.after(100) == known
    it.libvirt.is_up, it.libvirt.state = True, "disconnected"
    assert await it.after(5) == Agent()
