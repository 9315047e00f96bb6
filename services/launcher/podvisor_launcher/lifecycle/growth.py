"""Volumes that grow under a running guest.

Invariants: nothing but the specification is remembered of it, so a restarted launcher brings every volume once more to what its
specification says, and finds that done. Each disk is on its own: one that cannot grow, or whose file system does not answer,
holds up no other, and not the machine's loop.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import structlog
from podvisor.domain.v1 import domain_pb2 as pb

from podvisor_launcher.domain.disks import ResolvedDisk
from podvisor_launcher.lifecycle.clock import boottime_ms
from podvisor_launcher.lifecycle.hardware import Disk, Hardware
from podvisor_launcher.lifecycle.situation import PendingGrowth
from podvisor_launcher.storage.bulkheads import Bulkheads
from podvisor_launcher.storage.errors import DiskUnavailable
from podvisor_launcher.storage.resolve import is_written
from podvisor_launcher.storage.volume import grow_volume
from podvisor_launcher.virt.connection import LibvirtConnection
from podvisor_launcher.virt.errors import DomainMissing, LibvirtFailed

_log = structlog.stdlib.get_logger(__name__)

_RETRY_MS = 1_000  # doubled up to the limit
_RETRY_MAX_MS = 60_000
_TIMEOUT_S = 10.0


@dataclass(slots=True)
class _Progress:
    """How far a disk is. Sizes are bytes."""

    done: int = 0  # the capacity of its volume that it was brought to
    grown_for: int = 0  # the capacity of its volume that what is behind it was grown for
    grown_to: int = 0  # the size that its guest shall see then
    work: asyncio.Task[None] | None = None  # grows what is behind it
    failures: int = 0
    retry_ms: int = 0


class Growth:
    """Knows what each disk was brought to, and when to try again. `on_change` is called when there is more to do. Times are
    milliseconds of CLOCK_BOOTTIME."""

    def __init__(
        self, libvirt: LibvirtConnection, bulkheads: Bulkheads, on_change: Callable[[], None]
    ) -> None:
        self._libvirt = libvirt
        self._bulkheads = bulkheads
        self._on_change = on_change
        self._disks: dict[str, _Progress] = {}

    def prepared(self, spec: pb.DomainSpec) -> None:
        """The images were made for this specification."""
        self._disks = {disk.name: _Progress(disk.volume.capacity_bytes) for disk in spec.disks}

    def pending(self, spec: pb.DomainSpec | None, hardware: Hardware) -> PendingGrowth | None:
        """The disk of the guest whose volume has become larger, and whose turn is first."""
        due = []
        for disk in spec.disks if spec is not None else ():
            seen, progress = hardware.disk(disk.name), self._disks.get(disk.name, _Progress())
            if seen is None or not _can_grow(disk, seen) or progress.work is not None:
                continue
            if disk.volume.capacity_bytes > progress.done:
                due.append(PendingGrowth(disk.name, progress.retry_ms))
        return min(due, key=lambda each: each.retry_ms, default=None)

    async def grow(
        self, domain: str, spec: pb.DomainSpec, hardware: Hardware, name: str, now_ms: int
    ) -> bool:
        """Take the next step of the disk of that name: begin to grow what is behind it, or have the guest see it. Whether the
        latter was done; what went wrong is tried again later. Raises LibvirtUnreachable."""
        disk = next(disk for disk in spec.disks if disk.name == name)
        seen = hardware.disk(name)
        assert seen is not None
        assert seen.resolved is not None
        progress = self._disks.setdefault(name, _Progress())
        if _is_device_elsewhere(seen):
            # It has grown by itself, and nobody here can ask it for its size. If it has not, QEMU refuses.
            progress.grown_to = disk.volume.capacity_bytes
        elif progress.grown_for != disk.volume.capacity_bytes:
            work = self._grow_behind(disk, seen.resolved, progress)
            progress.work = asyncio.create_task(work, name=f"growth {name}")
            return False
        try:
            known_bytes = (await self._libvirt.disk_sizes(domain)).get(seen.target, 0)
            # QEMU may have noticed that a file has grown, and its guest has not: it is told of the same size too.
            if progress.grown_to >= known_bytes:
                await self._libvirt.resize_disk(domain, seen.target, progress.grown_to)
        except (LibvirtFailed, DomainMissing) as error:
            _failed(name, str(error), progress, now_ms)
            return False
        if progress.grown_to > known_bytes:
            _log.info("a disk has grown", volume=name, size_bytes=progress.grown_to)
        self._disks[name] = _Progress(disk.volume.capacity_bytes)
        return True

    async def _grow_behind(
        self, disk: pb.DiskSpec, resolved: ResolvedDisk, progress: _Progress
    ) -> None:
        work = partial(grow_volume, disk, resolved)
        try:
            size_bytes = await self._bulkheads.run_in_thread(disk.name, work, _TIMEOUT_S)
        except DiskUnavailable as error:
            _failed(disk.name, str(error), progress, boottime_ms())
        else:
            progress.grown_to, progress.grown_for = size_bytes, disk.volume.capacity_bytes
        finally:
            progress.work = None
            self._on_change()


def _can_grow(disk: pb.DiskSpec, seen: Disk) -> bool:
    return seen.resolved is not None and is_written(disk)


def _is_device_elsewhere(seen: Disk) -> bool:
    return seen.is_handed_over and seen.resolved is not None and seen.resolved.image.is_block


def _failed(name: str, words: str, progress: _Progress, now_ms: int) -> None:
    """All of it is tried again: whatever was found may have changed by then."""
    _log.warning("a volume has grown and its disk has not", volume=name, error=words)
    progress.grown_for = 0
    progress.retry_ms = now_ms + min(_RETRY_MS << min(progress.failures, 10), _RETRY_MAX_MS)
    progress.failures += 1
