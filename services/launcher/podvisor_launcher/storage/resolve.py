"""What the building of a domain must know of the files behind a disk, found out by looking at them."""

import fcntl
import os
import stat
from struct import pack, unpack

from podvisor.domain.v1 import domain_pb2 as pb

from podvisor_launcher.domain.build import Image, ResolvedDisk
from podvisor_launcher.storage.errors import Unusable

_BLKSSZGET, _BLKPBSZGET = 0x1268, 0x127B
# <scsi/sg.h>. Its third version is the first that passes commands, and QEMU asks for the same.
_SG_GET_VERSION_NUM, _LEAST_SG_VERSION = 0x2282, 30000
# What guests can use for a logical sector. File systems of the network speak of a megabyte.
_SMALLEST_BLOCK_BYTES, _LARGEST_BLOCK_BYTES = 512, 4096


def is_only_read(disk: pb.DiskSpec) -> bool:
    """Whether the guest must not write to what is behind the disk, nor to anything over it."""
    return disk.read_only or disk.device == pb.DISK_DEVICE_CDROM


def is_written(disk: pb.DiskSpec) -> bool:
    """Whether the guest writes to the volume behind the disk itself."""
    return not is_only_read(disk) and not disk.volume.ephemeral


def resolve(
    disk: pb.DiskSpec, image: Image, *, backing: Image | None = None, read_only: bool = False
) -> ResolvedDisk:
    """The disk with `image` behind it, over `backing`. Raises OSError when that is not there any more."""
    logical, physical = (0, 0)
    if disk.match_volume_block_sizes:
        logical, physical = block_sizes(backing or image)
    return ResolvedDisk(
        image,
        backing=backing,
        read_only=read_only,
        direct=takes_direct(image, writing=not read_only)
        and (backing is None or takes_direct(backing, writing=False)),
        logical_block_bytes=logical,
        physical_block_bytes=physical,
    )


def takes_direct(image: Image, *, writing: bool) -> bool:
    """Whether the image can be opened past the node's page cache, as this user and in the way that QEMU does."""
    flags = (os.O_RDWR if writing else os.O_RDONLY) | os.O_DIRECT | os.O_CLOEXEC
    try:
        os.close(os.open(image.path, flags))
    except OSError:
        return False
    return True


def block_sizes(image: Image) -> tuple[int, int]:
    """Logical and physical size of the sectors behind the image: the device's own; a file system tells of one size only, its
    blocks'. Raises OSError."""
    descriptor = os.open(image.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return block_sizes_of(descriptor)
    finally:
        os.close(descriptor)


def block_sizes_of(descriptor: int) -> tuple[int, int]:
    """The same of an open image. Raises OSError."""
    if stat.S_ISBLK(os.fstat(descriptor).st_mode):
        return _number(descriptor, _BLKSSZGET), _number(descriptor, _BLKPBSZGET)
    size = os.fstatvfs(descriptor).f_bsize
    size = min(max(size, _SMALLEST_BLOCK_BYTES), _LARGEST_BLOCK_BYTES)
    return size, size


def check_lun(disk: pb.DiskSpec, descriptor: int) -> None:
    """Raise Unusable when `disk` is a LUN and the open device behind it takes no SCSI commands."""
    if disk.device != pb.DISK_DEVICE_LUN:
        return
    try:
        version = _number(descriptor, _SG_GET_VERSION_NUM)
    except OSError:
        version = 0  # the device does not know the question
    if version < _LEAST_SG_VERSION:
        raise Unusable("its device takes no SCSI commands, which a lun needs and a disk does not")


def _number(descriptor: int, request: int) -> int:
    (number,) = unpack("i", fcntl.ioctl(descriptor, request, pack("i", 0)))
    return int(number)
