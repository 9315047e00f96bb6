"""Volumes that grow under a running guest.

Invariant: nothing but the specification is remembered of it, so a restarted launcher brings every volume once more to what its
specification says, and finds that done.
"""

import structlog
from podvisor.domain.v1 import domain_pb2 as pb

from podvisor_launcher.lifecycle.disk import MachineDisk
from podvisor_launcher.lifecycle.hardware import Hardware
from podvisor_launcher.lifecycle.situation import PendingGrowth
from podvisor_launcher.storage.errors import DiskUnavailable
from podvisor_launcher.storage.resolve import is_written
from podvisor_launcher.virt.connection import LibvirtConnection
from podvisor_launcher.virt.errors import DomainMissing, LibvirtFailed

_log = structlog.stdlib.get_logger(__name__)

_RETRY_MS = 1_000  # doubled up to the limit
_RETRY_MAX_MS = 60_000


class Growth:
    """Knows what each disk was brought to, and when to try again. Times are milliseconds of CLOCK_BOOTTIME."""

    def __init__(self, libvirt: LibvirtConnection, files: MachineDisk) -> None:
        self._libvirt = libvirt
        self._files = files
        self._done: dict[str, int] = {}  # capacity of the volume, by name of the disk
        self._failures = 0
        self._retry_ms = 0

    def prepared(self, spec: pb.DomainSpec) -> None:
        """The images were made for this specification."""
        self._done = {disk.name: disk.volume.capacity_bytes for disk in spec.disks}

    def pending(self, spec: pb.DomainSpec | None, hardware: Hardware) -> PendingGrowth | None:
        """The first disk of the guest whose volume has become larger."""
        for disk in spec.disks if spec is not None else ():
            seen = hardware.disk(disk.name)
            if seen is None or seen.resolved is None or seen.is_handed_over:
                continue
            if not is_written(disk):
                continue
            if disk.volume.capacity_bytes > self._done.get(disk.name, 0):
                return PendingGrowth(disk.name, self._retry_ms)
        return None

    async def grow(
        self, domain: str, spec: pb.DomainSpec, hardware: Hardware, name: str, now_ms: int
    ) -> bool:
        """Grow the disk of that name, and have the guest see it. Whether that was done; what went wrong is tried again later.
        Raises LibvirtUnreachable."""
        disk = next(disk for disk in spec.disks if disk.name == name)
        seen = hardware.disk(name)
        assert seen is not None
        assert seen.resolved is not None
        try:
            size_bytes = await self._files.grow(disk, seen.resolved)
            known_bytes = await self._libvirt.disk_capacity(domain, seen.target)
            # QEMU may have noticed that a file has grown, and its guest has not: it is told of the same size too.
            if size_bytes >= known_bytes:
                await self._libvirt.resize_disk(domain, seen.target, size_bytes)
        except (DiskUnavailable, OSError, LibvirtFailed, DomainMissing) as error:
            words = error.strerror if isinstance(error, OSError) else str(error)
            _log.warning("a volume has grown and its disk has not", volume=name, error=words)
            self._retry_ms = now_ms + min(_RETRY_MS << min(self._failures, 10), _RETRY_MAX_MS)
            self._failures += 1
            return False
        self._done[name] = disk.volume.capacity_bytes
        self._failures = self._retry_ms = 0
        if size_bytes > known_bytes:
            _log.info("a disk has grown", volume=name, size_bytes=size_bytes)
        return True
