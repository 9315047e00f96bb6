"""Volumes that somebody else has opened: looked at, made, grown and marked as those of the pod itself.

Invariant: the launcher opens nothing that it could not open by a name; the descriptor is all that it has of a device.
"""

import fcntl
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from podvisor.domain.v1 import domain_pb2 as pb

from podvisor_launcher.storage.bulkheads import in_volume_thread
from podvisor_launcher.storage.errors import Unusable, about_volume
from podvisor_launcher.storage.image import confirm
from podvisor_launcher.storage.image_safety import QCOW2, RAW
from podvisor_launcher.storage.resolve import block_sizes_of, check_lun, is_only_read
from podvisor_launcher.storage.volume import grow_qcow2, look_at_open_image, remember_format_of


@dataclass(frozen=True, slots=True)
class OpenVolume:
    """An open file or block device that a guest may have."""

    descriptor: int
    format: str
    is_block: bool
    direct: bool  # I/O past the node's page cache can be had
    logical_block_bytes: int = 0
    physical_block_bytes: int = 0


async def prepare_handed_over(disk: pb.DiskSpec, descriptor: int) -> OpenVolume:
    """What is open behind `disk`, ready for a guest.

    The caller closes `descriptor`, and the one of the result if it is another. Must not be called for a disk that a guest has.
    Waits for the file system. Raises InvalidDisk, which names the disk.
    """
    with about_volume(disk.name):
        kept = await in_volume_thread(_suitable, disk, descriptor)
        try:
            return await _prepared(disk, kept)
        except BaseException:
            if kept != descriptor:
                os.close(kept)
            raise


def set_direct(descriptor: int, *, direct: bool) -> None:
    """QEMU uses an open file only in the mode in which it would have opened it. Raises OSError where direct I/O cannot be had."""
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    wanted = flags | os.O_DIRECT if direct else flags & ~os.O_DIRECT
    if wanted != flags:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, wanted)


async def _prepared(disk: pb.DiskSpec, descriptor: int) -> OpenVolume:
    is_block = not disk.volume.file
    format_ = RAW
    if is_block:
        if not await in_volume_thread(os.lseek, descriptor, 0, os.SEEK_END):
            raise Unusable("its device has a size of 0")
        await in_volume_thread(check_lun, disk, descriptor)
    else:
        format_ = await _look_at_file(disk, descriptor)
    sizes = (0, 0)
    if disk.match_volume_block_sizes:
        sizes = await in_volume_thread(block_sizes_of, descriptor)
    return OpenVolume(descriptor, format_, is_block, _takes_direct(descriptor), *sizes)


async def _look_at_file(disk: pb.DiskSpec, descriptor: int) -> str:
    facts, wanted_bytes = await in_volume_thread(look_at_open_image, disk, descriptor)
    path = Path(f"/proc/self/fd/{descriptor}")  # of whoever has it
    await confirm(path, facts, descriptor=descriptor)
    if not is_only_read(disk):
        if facts.format == QCOW2 and wanted_bytes > facts.virtual_size_bytes:
            await grow_qcow2(disk, path, wanted_bytes, descriptor=descriptor)
        await in_volume_thread(remember_format_of, disk, descriptor, facts.format)
    return facts.format


def _suitable(disk: pb.DiskSpec, descriptor: int) -> int:
    """The descriptor, or another of the same file that cannot be written to. Reads of any size can be made of it."""
    kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
    expected, words = (
        (stat.S_IFREG, "an image in a file") if disk.volume.file else (stat.S_IFBLK, "a device")
    )
    if kind != expected:
        raise Unusable(f"{words} is expected, and something else was handed over")
    if disk.volume.ephemeral:
        raise Unusable("a volume that is handed over cannot be ephemeral")
    mode = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE
    wanted = os.O_RDONLY if is_only_read(disk) else os.O_RDWR
    if mode == wanted:
        set_direct(descriptor, direct=False)
        return descriptor
    if mode == os.O_RDWR and kind == stat.S_IFREG:
        return os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)
    can = "reading" if mode == os.O_RDONLY else "writing"
    raise Unusable(f"it is open for {can}, which is not what the disk needs")


def _takes_direct(descriptor: int) -> bool:
    try:
        set_direct(descriptor, direct=True)
        set_direct(descriptor, direct=False)
    except OSError:
        return False
    return True
