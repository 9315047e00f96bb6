"""The machine's files, off the event loop: what is asked for first is on disk first.

Invariants: a full disk is told of once and holds up only what must be on it before the next step. The one thread for it touches no
volume, which might never answer.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import structlog
from podvisor.domain.v1 import domain_pb2 as pb

from podvisor_launcher.domain.disks import Image
from podvisor_launcher.domain.hotplug import is_handed_over
from podvisor_launcher.lifecycle.files import MachineFiles
from podvisor_launcher.lifecycle.record import QemuEnd, Record
from podvisor_launcher.storage.bulkheads import Bulkheads, VolumeHangs
from podvisor_launcher.storage.room import has_room, volume_has_room

_log = structlog.stdlib.get_logger(__name__)
T = TypeVar("T")
_LOOK_TIMEOUT_S = 2.0


class MachineDisk:
    """Writes `files` in one thread; `directory` is where the machine's disks grow."""

    def __init__(self, files: MachineFiles, directory: Path, bulkheads: Bulkheads) -> None:
        self._files = files
        self._bulkheads = bulkheads
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
        try:
            return await self._do(partial(has_room, self._directory))
        except OSError as error:
            _log.error("nobody knows how much room there is", error=error.strerror)
            return True

    async def has_room_for(self, volume: str, image: Image) -> bool:
        """Whether the image behind the disk of that name can grow, as far as can be seen; nobody sees into what is behind a
        device, or was handed over. A file system that does not answer has none."""
        path = Path(image.path)
        if image.is_block or is_handed_over(image.path):
            return True
        if path.is_relative_to(self._directory):
            return await self.has_room()
        look = partial(volume_has_room, path)
        try:
            return await self._bulkheads.run_in_thread(volume, look, _LOOK_TIMEOUT_S)
        except VolumeHangs:
            return False
        except OSError as error:
            _log.error("nobody knows how much room there is", error=error.strerror)
            return True

    def _do(self, work: Callable[[], T]) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._thread, work)
