"""The machine's files, off the event loop: what is asked for first is on disk first.

Invariant: a full disk is told of once and holds up only what must be on it before the next step.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import structlog
from podvisor.domain.v1 import domain_pb2 as pb

from podvisor_launcher.domain.disks import Image, ResolvedDisk
from podvisor_launcher.domain.hotplug import is_handed_over
from podvisor_launcher.lifecycle.files import MachineFiles
from podvisor_launcher.lifecycle.record import QemuEnd, Record
from podvisor_launcher.storage.room import has_room, volume_has_room
from podvisor_launcher.storage.volume import grow_volume

_log = structlog.stdlib.get_logger(__name__)
T = TypeVar("T")


class MachineDisk:
    """Writes `files` in one thread; `directory` is where the machine's disks grow."""

    def __init__(self, files: MachineFiles, directory: Path) -> None:
        self._files = files
        self._directory = directory
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="state")
        self._complaint = ""

    async def save(self, record: Record, spec: pb.DomainSpec | None) -> None:
        """Make both durable, also when the client that asked for it hangs up. Raises OSError."""
        await asyncio.shield(self._do(partial(self._files.save, record, spec)))
        self._complaint = ""

    async def save_if_possible(self, record: Record, spec: pb.DomainSpec | None) -> bool:
        """For steps that a full disk must not hold up: whoever comes next finds the same by looking. Whether it was saved."""
        try:
            await self.save(record, spec)
        except OSError as error:
            words = error.strerror or str(error)
            if words != self._complaint:
                _log.error("the machine's state cannot be saved", error=words)
            self._complaint = words
            return False
        return True

    async def qemu_end(self) -> QemuEnd | None:
        """The supervisor's note of how QEMU ended, if one has and it can be read."""
        try:
            return await self._do(self._files.load_qemu_end)
        except (OSError, ValueError, KeyError) as error:
            _log.error("how QEMU ended cannot be read", error=type(error).__name__)
            return None

    async def forget_qemu_end(self) -> None:
        """Before another QEMU is started: the note shall be about that one. Raises OSError."""
        await self._do(self._files.forget_qemu_end)

    async def has_room(self) -> bool:
        """Whether the machine's files can grow, as far as can be seen."""
        return await self._is_there_room(partial(has_room, self._directory))

    async def has_room_for(self, image: Image) -> bool:
        """Whether the image of a disk can grow, as far as can be seen; nobody sees into what is behind a device, or
        was handed over."""
        path = Path(image.path)
        if image.is_block or is_handed_over(image.path):
            return True
        if path.is_relative_to(self._directory):
            return await self.has_room()
        return await self._is_there_room(partial(volume_has_room, path))

    async def grow(self, disk: pb.DiskSpec, resolved: ResolvedDisk) -> int:
        """Grow what is behind a disk; the size that its guest shall see. Raises DiskUnavailable and OSError."""
        return await self._do(partial(grow_volume, disk, resolved))

    async def _is_there_room(self, look: Callable[[], bool]) -> bool:
        try:
            return await self._do(look)
        except OSError as error:
            _log.error("nobody knows how much room there is", error=error.strerror)
            return True

    def _do(self, work: Callable[[], T]) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._thread, work)
