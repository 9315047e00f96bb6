"""All that comes to a running guest, goes or changes, and of it what is next."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from podvisor.domain.v1 import domain_pb2 as pb

from podvisor_launcher.domain.build import domain_name
from podvisor_launcher.lifecycle.hardware import UNSEEN, Hardware
from podvisor_launcher.lifecycle.hotplug import HotPlug
from podvisor_launcher.lifecycle.hotplug_plan import Attached, DiskChange
from podvisor_launcher.lifecycle.interface_plan import AttachedInterface, InterfaceChange
from podvisor_launcher.lifecycle.interface_plug import InterfacePlug
from podvisor_launcher.virt.connection import LibvirtConnection

DeviceChange: TypeAlias = DiskChange | InterfaceChange


@dataclass(frozen=True, slots=True)
class Attachments:
    """What is to be said of disks, media and interfaces."""

    disks: tuple[Attached, ...] = ()
    interfaces: tuple[AttachedInterface, ...] = ()


NO_ATTACHMENTS = Attachments()


class DeviceChanges:
    """Of one machine. `on_change` is called when a volume is ready, or turns out not to be one."""

    def __init__(self, libvirt: LibvirtConnection, on_change: Callable[[], None]) -> None:
        self.disks = HotPlug(libvirt, on_change)
        self._interfaces = InterfacePlug(libvirt)

    def pending(self, spec: pb.DomainSpec | None, hardware: Hardware) -> DeviceChange | None:
        """What is next for a guest that runs."""
        if spec is None:
            return None
        steps = (self.disks.pending(spec, hardware), self._interfaces.pending(spec, hardware))
        return min((each for each in steps if each), key=lambda step: step.due_ms, default=None)

    def attachments(self, spec: pb.DomainSpec | None, hardware: Hardware) -> Attachments:
        """What is to be said of the devices; nothing before somebody has looked."""
        if spec is None or hardware is UNSEEN:
            return NO_ATTACHMENTS
        return Attachments(
            self.disks.attachments(spec, hardware), self._interfaces.said(spec, hardware)
        )

    async def carry_out(
        self, spec: pb.DomainSpec | None, change: DeviceChange, now_ms: int
    ) -> None:
        """Do it to the machine that was made of `spec`; `now_ms` is CLOCK_BOOTTIME in milliseconds. What goes wrong is told of
        the device, and tried again. Raises LibvirtUnreachable."""
        assert spec is not None  # or nothing would be pending
        if isinstance(change, InterfaceChange):
            await self._interfaces.carry_out(spec, change, now_ms)
        else:
            await self.disks.carry_out(domain_name(spec), change, now_ms)
