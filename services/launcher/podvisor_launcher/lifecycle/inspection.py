"""What hardware the guest has, looked at when that may have changed, and whether it is all there is to know.

Invariant: what is said to be settled is complete: no call that gives the guest a device is under way, be it one of a launcher that was killed.
"""

from collections.abc import Mapping

import structlog

from podvisor_launcher.domain.elements import Domain
from podvisor_launcher.domain.hotplug import fd_sets_of
from podvisor_launcher.domain.xml import parse_xml
from podvisor_launcher.lifecycle.hardware import UNSEEN, hardware_of, known_sizes, with_sizes
from podvisor_launcher.virt.connection import LibvirtConnection
from podvisor_launcher.virt.errors import LibvirtFailed, LibvirtUnreachable

_log = structlog.stdlib.get_logger(__name__)


class Inspection:
    """Of one machine. `hardware` is UNSEEN until its guest runs."""

    def __init__(self, libvirt: LibvirtConnection) -> None:
        self._libvirt = libvirt
        self.hardware = UNSEEN
        self._is_due = True
        self._settled_at = 0  # calls begun, and over, when the hardware was looked at; else -1
        self._cleared = 0  # connections that there had been when unused files were looked for

    def is_due_again(self) -> None:
        """Something about the devices may have changed."""
        self._is_due = True

    @property
    def is_seen(self) -> bool:
        """Whether the guest's hardware was ever looked at."""
        return self.hardware is not UNSEEN

    @property
    def is_settled(self) -> bool:
        """No call that attaches a device has begun since the hardware was looked at, and none was under way then."""
        is_fresh = not self._is_due and self.is_seen
        return is_fresh and self._settled_at == self._libvirt.device_calls_begun

    async def look(self, domain: str) -> None:
        """Look at the hardware of the guest, unless that is settled. Raises DomainMissing, LibvirtUnreachable, LibvirtFailed."""
        if self.is_settled:
            return
        self._is_due = False
        begun, over = self._libvirt.device_calls_begun, self._libvirt.device_calls_over
        try:
            description = await self._libvirt.domain_xml(domain)
            found = hardware_of(description)
            self.hardware = with_sizes(found, await self._sizes(domain))
            self._settled_at = begun if begun == over else -1
        except BaseException:
            self._is_due = True
            raise
        if self.is_settled and self._cleared != self._libvirt.connections:
            self._cleared = self._libvirt.connections
            await self._clear_up(domain, description)

    async def _clear_up(self, domain: str, description: str) -> None:
        """Whoever was killed between giving QEMU a file and giving its guest the disk has left the file open."""
        used = fd_sets_of(parse_xml(Domain, description))
        try:
            removed = await self._libvirt.remove_unused_sets(domain, used)
        except (LibvirtUnreachable, LibvirtFailed) as error:
            _log.warning("nobody knows which files QEMU has open for no disk", error=str(error))
            return
        if removed:
            _log.info("files that QEMU had open for no disk were closed", sets=removed)

    async def _sizes(self, domain: str) -> Mapping[str, int]:
        """As far as QEMU tells. One that does not answer, since it waits for a file system, holds up nothing that its guest's
        owner asks for."""
        try:
            return await self._libvirt.disk_sizes(domain)
        except (LibvirtUnreachable, LibvirtFailed) as error:
            _log.warning("the sizes of the disks cannot be told", error=str(error))
            return known_sizes(self.hardware)
