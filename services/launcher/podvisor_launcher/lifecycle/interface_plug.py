"""Network devices that come, go, and lose their carrier while the guest runs.

Invariant: nothing of it is remembered beyond this process: what the guest has, libvirt knows, and what it shall have, the
specification says.
"""

from collections.abc import Iterable

import structlog
from podvisor.domain.v1 import domain_pb2 as pb

from podvisor_launcher.domain.build import domain_name
from podvisor_launcher.domain.disks import ALIAS_PREFIX
from podvisor_launcher.domain.elements import Domain
from podvisor_launcher.domain.errors import UnbuildableSpec
from podvisor_launcher.domain.interfaces import build_plugged, interface_named, with_link
from podvisor_launcher.domain.xml import format_xml, parse_xml
from podvisor_launcher.lifecycle.hardware import Hardware
from podvisor_launcher.lifecycle.hotplug_plan import Requests, asked_again
from podvisor_launcher.lifecycle.interface_plan import (
    AttachedInterface,
    InterfaceChange,
    Interfaces,
    InterfaceStep,
    Wish,
    interfaces_said,
    next_interface_change,
)
from podvisor_launcher.virt.connection import LibvirtConnection
from podvisor_launcher.virt.errors import DomainMissing, LibvirtFailed

_log = structlog.stdlib.get_logger(__name__)


class InterfacePlug:
    """Of one machine. Times are milliseconds of CLOCK_BOOTTIME."""

    def __init__(self, libvirt: LibvirtConnection) -> None:
        self._libvirt = libvirt
        self._requests: dict[str, Requests] = {}
        self._attempts: dict[str, Requests] = {}
        self._problems: dict[str, str] = {}

    def pending(self, spec: pb.DomainSpec, hardware: Hardware) -> InterfaceChange | None:
        """What is next for a guest that runs."""
        self._forget(spec, hardware)
        return next_interface_change(self._interfaces(spec, hardware))

    def said(self, spec: pb.DomainSpec, hardware: Hardware) -> tuple[AttachedInterface, ...]:
        """What is to be said of the devices."""
        return interfaces_said(self._interfaces(spec, hardware))

    async def carry_out(self, spec: pb.DomainSpec, change: InterfaceChange, now_ms: int) -> None:
        """Do it to the machine that was made of `spec`. What goes wrong is told of the device, and tried again. Raises
        LibvirtUnreachable."""
        name, domain = change.interface, domain_name(spec)
        try:
            if change.step is InterfaceStep.PLUG:
                wanted = next(each for each in spec.interfaces if each.name == name)
                device = build_plugged(wanted, transitional=spec.virtio_transitional)
                await self._libvirt.attach(domain, format_xml(device))
            elif change.step is InterfaceStep.UNPLUG:
                self._requests[name] = asked_again(self._requests.get(name), now_ms)
                await self._libvirt.ask_to_let_go(domain, ALIAS_PREFIX + name)
            else:
                await self._set_link(domain, name, is_up=change.step is InterfaceStep.LINK_UP)
        except (UnbuildableSpec, LibvirtFailed, DomainMissing) as error:
            self._fail(name, str(error), now_ms)
            return
        self._forget_attempts((name,))
        _log.info("an interface was changed", interface=name, change=change.step.value)

    async def _set_link(self, domain: str, name: str, *, is_up: bool) -> None:
        live = parse_xml(Domain, await self._libvirt.domain_xml(domain))
        device = interface_named(live, name)
        if device is not None:
            await self._libvirt.update(domain, format_xml(with_link(device, is_up=is_up)))

    def _interfaces(self, spec: pb.DomainSpec, hardware: Hardware) -> Interfaces:
        return Interfaces(
            wanted={
                each.name: Wish(link_up=not each.link_down, is_pluggable=each.is_pluggable)
                for each in spec.interfaces
            },
            present={each.name: each.link_up for each in hardware.interfaces},
            requests=self._requests,
            attempts=self._attempts,
            problems=self._problems,
        )

    def _forget(self, spec: pb.DomainSpec, hardware: Hardware) -> None:
        """What is over."""
        wanted = {each.name for each in spec.interfaces}
        present = {each.name for each in hardware.interfaces}
        for name in [name for name in self._requests if name not in present]:
            del self._requests[name]
            self._problems.pop(name, None)
            _log.info("the guest has let go of an interface", interface=name)
        self._forget_attempts([name for name in self._attempts if name not in wanted | present])

    def _forget_attempts(self, names: Iterable[str]) -> None:
        for name in names:
            self._attempts.pop(name, None)
            self._problems.pop(name, None)

    def _fail(self, name: str, words: str, now_ms: int) -> None:
        self._attempts[name] = asked_again(self._attempts.get(name), now_ms)
        words = words.removeprefix(f'interface "{name}": ').rstrip(".")
        message = f'Interface "{name}": {words}.'
        if self._problems.get(name) != message:
            _log.warning("an interface was not changed", interface=name, message=message)
        self._problems[name] = message
