"""What people ask of a guest that runs: to stand still, to go on, to begin anew, to show its screen.

Invariant: libvirt is asked what is so now, and an answer means that it is in force; a report may be older. Nothing here outlasts the
call: what shall survive the launcher is libvirt's to keep. The machine's loop learns of it by libvirt's events.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

import structlog
from podvisor.domain.v1 import domain_pb2 as pb
from podvisor_common.errors import Terminal

from podvisor_launcher.domain.build import domain_name
from podvisor_launcher.lifecycle.guest_agent import GuestAgent
from podvisor_launcher.virt import power
from podvisor_launcher.virt.connection import LibvirtConnection
from podvisor_launcher.virt.errors import AgentError
from podvisor_launcher.virt.guest import Active, Paused

_log = structlog.stdlib.get_logger(__name__)


class NotRunning(Terminal):
    """There is no guest to ask: it has not started, is about to end, or has ended."""

    reason = "NotRunning"


class AlreadyPaused(Terminal):
    """The guest stands still, by request or for an error of a disk."""

    reason = "AlreadyPaused"


class NotPaused(Terminal):
    """The guest does not stand still."""

    reason = "NotPaused"


class Power:
    """`running` gives the specification of a guest that was started and is not told to end, else None."""

    def __init__(
        self,
        libvirt: LibvirtConnection,
        agent: GuestAgent,
        running: Callable[[], pb.DomainSpec | None],
    ) -> None:
        self._libvirt = libvirt
        self._agent = agent
        self._running = running
        self._picture = asyncio.Lock()

    @property
    def is_to_run(self) -> bool:
        """The guest was started, and is not told to end."""
        return self._running() is not None

    async def is_paused(self) -> bool:
        """Whether the guest stands still, by request or for an error of a disk. Raises what LibvirtConnection.guest() does."""
        spec = self._running()
        guest = await self._libvirt.guest(domain_name(spec)) if spec is not None else None
        return isinstance(guest, Active) and guest.paused is not None

    async def pause(self) -> None:
        """Have the guest stand still. Raises NotRunning, AlreadyPaused, and what LibvirtConnection.guest() does."""
        await power.suspend(self._libvirt, await self._unpaused())
        _log.info("the guest was paused")

    async def resume(self) -> None:
        """Have a paused guest go on. Raises NotRunning, NotPaused, and what LibvirtConnection.guest() does."""
        name, paused = await self._active()
        if paused is None:
            raise NotPaused("The guest is not paused.")
        await self._libvirt.resume(name)
        _log.info("the guest goes on")

    async def reset(self) -> None:
        """Press the guest's reset button. Raises NotRunning, and what LibvirtConnection.guest() does."""
        name, _ = await self._active()
        await power.reset(self._libvirt, name)
        _log.info("the guest was reset")

    async def reboot(self) -> None:
        """Ask the guest to reboot, its agent if it has one, else by its power button, which is of no use to one without ACPI.
        Raises NotRunning, AlreadyPaused, AgentError for one without ACPI, and what LibvirtConnection.guest() does."""
        name, spec = await self._unpaused(), self._running()
        has_button = spec is not None and not spec.features.without_acpi
        known = self._agent.known
        by_agent = not has_button or (known is not None and known.connected)
        if by_agent:
            try:
                await self._libvirt.agent.reboot(name)
            except AgentError as error:
                if not has_button:
                    raise
                _log.info("the guest's agent does not reboot it", error=str(error))
                by_agent = False
        if not by_agent:
            await power.reboot_by_button(self._libvirt, name)
        _log.info("the guest was asked to reboot", by_agent=by_agent)

    async def screenshot(self) -> AsyncGenerator[bytes, None]:
        """A picture of the guest's screen as PNG, in pieces. Raises NotRunning, and what LibvirtConnection.guest() does."""
        # One at a time: there are few threads to libvirt, and the machine needs them.
        async with self._picture:
            name, _ = await self._active()
            async with aclosing(power.screenshot(self._libvirt, name)) as pieces:
                async for piece in pieces:
                    yield piece

    async def _unpaused(self) -> str:
        name, paused = await self._active()
        if paused is not None:
            raise AlreadyPaused("The guest is paused.")
        return name

    async def _active(self) -> tuple[str, Paused | None]:
        spec = self._running()
        guest = await self._libvirt.guest(domain_name(spec)) if spec is not None else None
        if spec is None or not isinstance(guest, Active):
            raise NotRunning("The guest does not run.")
        if guest.paused in (Paused.STARTING, Paused.ENDING):
            raise NotRunning("The guest is about to start or to end.")
        return domain_name(spec), guest.paused
