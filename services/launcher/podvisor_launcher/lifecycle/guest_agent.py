"""What the guest's agent tells: whether there is one, which network devices it knows, and which operating system it is in.

Invariants: the agent is the guest's, and the guest may be hostile. Nothing waits for it, one question is out at a time, and the next
comes after a pause, whatever the guest does. What was told stays known while libvirt, or an agent that is there, does not answer.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

import structlog
from podvisor.domain.v1 import guest_pb2 as pb
from podvisor_common.aio.backoff import Backoff
from podvisor_common.guest_interfaces import GuestInterface

from podvisor_launcher.domain.agent_channel import is_connected
from podvisor_launcher.domain.elements import Domain
from podvisor_launcher.domain.xml import parse_xml
from podvisor_launcher.lifecycle import guest_facts
from podvisor_launcher.virt.agent import Command
from podvisor_launcher.virt.connection import LibvirtConnection
from podvisor_launcher.virt.errors import (
    AgentError,
    AgentFailed,
    DomainMissing,
    LibvirtFailed,
    LibvirtUnreachable,
)

_log = structlog.stdlib.get_logger(__name__)

# Between two questions: from the first, once something has happened, to the second.
_PAUSE_S = 5.0
_PERIOD_S = 30.0
# Another operating system is one that was booted, whose agent has come anew; but its kernel's name may be told late.
_OS_PERIOD_S = 120.0
_OS_DEADLINE_S = 20.0
_OS_COMMANDS = (Command("guest-info"), Command("guest-get-osinfo"))


@dataclass(frozen=True, slots=True)
class Agent:
    """The agent as far as it is known. No interfaces also where it has not `answered` since it came."""

    connected: bool = False
    answered: bool = False
    interfaces: tuple[GuestInterface, ...] = ()
    os: pb.GuestOs | None = None
    version: str = ""


@dataclass(frozen=True, slots=True)
class AgentWork:
    """What this launcher has had an agent do."""

    filesystems_frozen: bool = False
    # Whether the guest has its access credentials, and why not, as a sentence; None where there are none, or nobody has tried.
    credentials: tuple[bool, str] | None = None


NO_AGENT = Agent()
NO_WORK = AgentWork()


class GuestAgent:
    """Of one machine. `domain` tells its name in libvirt, or None as long as it has none; `on_change` is called when `known` is
    another. That is None before anybody has looked."""

    def __init__(self, domain: Callable[[], str | None], on_change: Callable[[], None]) -> None:
        self.known: Agent | None = None
        self.work = NO_WORK
        self._domain = domain
        self._on_change = on_change
        self._is_due = asyncio.Event()
        self._is_known = asyncio.Event()
        self._os_due_s = 0.0  # of the loop's clock
        self._listeners: list[Callable[[], None]] = []

    @property
    def domain(self) -> str | None:
        """The machine's name in libvirt, or None as long as it has none."""
        return self._domain()

    @property
    def told(self) -> tuple[Agent | None, AgentWork]:
        """What is to be reported."""
        return self.known, self.work

    async def is_looked_for(self) -> None:
        """Waits until somebody has looked for an agent, which is as soon as libvirt answers."""
        if self.known is None:
            await self._is_known.wait()

    def subscribe(self, listener: Callable[[], None]) -> None:
        """`listener` is called whenever an agent has come or gone, or has let the file systems go on; it must only take note."""
        self._listeners.append(listener)

    def has_done(self, **fields: object) -> None:
        """Something of `work` is different now."""
        work = replace(self.work, **fields)  # type: ignore[arg-type]
        if work == self.work:
            return
        has_thawed = self.work.filesystems_frozen and not work.filesystems_frozen
        self.work = work
        self._on_change()
        if has_thawed:
            self._tell_listeners()

    def is_due_again(self) -> None:
        """The agent has come or gone, or the guest's devices have: there may be news, now or in a moment."""
        self._is_due.set()

    async def run(self, libvirt: LibvirtConnection) -> None:
        """Ask as often as there may be an answer; until cancelled."""
        pauses = Backoff(initial_s=_PAUSE_S, max_s=_PERIOD_S, jitter=0.0)
        left_s: float | None = None
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._is_due.wait()
            if self._is_due.is_set():
                pauses.reset()
            connected = await self._look(libvirt)
            await asyncio.sleep(_PAUSE_S)
            left_s = pauses.next_s() - _PAUSE_S if connected else None

    async def _look(self, libvirt: LibvirtConnection) -> bool:
        """Whether there is an agent to be asked again."""
        domain, is_due = self._domain(), self._is_due.is_set()
        self._is_due.clear()
        if domain is None:
            return False
        if is_due:
            await self._see_channel(libvirt, domain)
        if self.known is None or not self.known.connected:
            return False
        try:
            interfaces = await libvirt.guest_interfaces(domain)
        except (LibvirtUnreachable, LibvirtFailed) as error:
            _log.debug("the guest's agent does not answer", error=str(error))
        else:
            self._learn(replace(self.known, answered=True, interfaces=interfaces))
        await self._ask_for_os(libvirt, domain)
        return True

    async def _ask_for_os(self, libvirt: LibvirtConnection, domain: str) -> None:
        now_s = asyncio.get_running_loop().time()
        if self.known is None or not self.known.connected or now_s < self._os_due_s:
            return
        self._os_due_s = now_s + _OS_PERIOD_S
        try:
            about, os = await libvirt.agent.ask(
                domain, _OS_COMMANDS, deadline_s=_OS_DEADLINE_S, waits=False
            )
        except (AgentError, DomainMissing, LibvirtUnreachable, LibvirtFailed) as error:
            _log.debug("the guest's agent does not tell its system", error=str(error))
            return
        known = self.known
        if not isinstance(about, AgentFailed):
            known = replace(known, version=guest_facts.agent_of(about)[0])
        if not isinstance(os, AgentFailed):
            known = replace(known, os=guest_facts.os_of(os))
        self._learn(known)

    async def _see_channel(self, libvirt: LibvirtConnection, domain: str) -> None:
        try:
            live = parse_xml(Domain, await libvirt.domain_xml(domain))
        except DomainMissing:
            self._learn(NO_AGENT)
        except (LibvirtUnreachable, LibvirtFailed):
            self._is_due.set()
        else:
            known = self.known or NO_AGENT
            self._learn(replace(known, connected=True) if is_connected(live) else NO_AGENT)

    def _learn(self, agent: Agent) -> None:
        has_turned = agent.connected != (self.known or NO_AGENT).connected
        if agent != self.known:
            self.known = agent
            self._is_known.set()
            self._on_change()
        if has_turned:
            _log.info("the guest's agent has come or gone", connected=agent.connected)
            self._os_due_s = 0.0
            self._tell_listeners()

    def _tell_listeners(self) -> None:
        for listener in self._listeners:
            listener()
