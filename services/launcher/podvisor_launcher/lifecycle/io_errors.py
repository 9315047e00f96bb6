"""Which disk has stopped a guest, and whether it can go on."""

from collections.abc import Iterable

import structlog

from podvisor_launcher.lifecycle.disk import MachineDisk
from podvisor_launcher.lifecycle.hardware import Hardware
from podvisor_launcher.lifecycle.situation import DiskTrouble
from podvisor_launcher.virt.connection import LibvirtConnection
from podvisor_launcher.virt.errors import DomainMissing, LibvirtFailed, LibvirtUnreachable
from podvisor_launcher.virt.guest import DiskError

_log = structlog.stdlib.get_logger(__name__)


async def look_for_trouble(
    libvirt: LibvirtConnection, files: MachineDisk, domain: str, hardware: Hardware
) -> DiskTrouble:
    """What keeps the guest of `domain` from going on, which a disk's error has stopped. Where libvirt does not say, the room on
    the node is all there is to look at."""
    try:
        errors = await libvirt.disk_errors(domain)
    except (LibvirtUnreachable, LibvirtFailed, DomainMissing) as error:
        _log.info("libvirt does not say which disk failed", error=str(error))
        errors = {}
    troubles = []
    for disk in hardware.disks:
        if disk.target not in errors or disk.resolved is None:
            continue
        no_space = errors[disk.target] is DiskError.NO_SPACE
        has_room = not no_space or await files.has_room_for(disk.name, disk.resolved.image)
        troubles.append(DiskTrouble(disk.name, no_space=no_space, has_room=has_room))
    if troubles:
        return worst_of(troubles)
    has_room = await files.has_room()
    return DiskTrouble("", no_space=not has_room, has_room=has_room)


def worst_of(troubles: Iterable[DiskTrouble]) -> DiskTrouble:
    """What has to pass first; of equals the first."""
    return min(troubles, key=lambda trouble: (trouble.has_room, not trouble.no_space))
