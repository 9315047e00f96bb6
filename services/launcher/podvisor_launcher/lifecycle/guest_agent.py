"""What the guest's agent tells: whether there is one, and which network devices it knows.

Invariants: the agent is the guest's, and the guest may be hostile. Nothing waits for it, one question is out at a time, and the next
comes after a pause, whatever the guest does. What was told stays known while libvirt, or an agent that is there, does not answer.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

import structlog
from podvisor_common.aio.backoff import Backoff
from podvisor_common.guest_interfaces import GuestInterface

from podvisor_launcher.domain.agent_channel import is_connected
from podvisor_launcher.domain.elements import Domain
from podvisor_launcher.domain.xml import parse_xml
from podvisor_launcher.virt.connection import LibvirtConnection
from podvisor_launcher.virt.errors import DomainMissing, LibvirtFailed, LibvirtUnreachable

_log = structlog.stdlib.get_logger(__name__)

# Between two questions: from the first, once something has happened, to the second.
_PAUSE_S = 5.0
_PERIOD_S = 30.0


@dataclass(frozen=True, slots=True)
class Agent:
    """The agent as far as it is known. No interfaces also where it has not `answered` since it came."""

    connected: bool = False
    answered: bool = False
    interfaces: tuple[GuestInterface, ...] = ()


NO_AGENT = Agent()


class GuestAgent:
    """Of one machine. `domain` tells its name in libvirt, or None as long as it has none; `on_change` is called when `known` is
    another. That is None before anybody has looked."""

    def __init__(self, domain: Callable[[], str | None], on_change: Callable[[], None]) -> None:
        self.known: Agent | None = None
        self._domain = domain
        self._on_change = on_change
        self._is_due = asyncio.Event()

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
        return True

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
        if agent.connected != (self.known or NO_AGENT).connected:
            _log.info("the guest's agent has come or gone", connected=agent.connected)
        if agent != self.known:
            self.known = agent
            self._on_change()
