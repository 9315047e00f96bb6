"""Images in persistent volumes and on the node, and block volumes: found, looked at, made where there is none, and grown.

Invariants: no byte that a guest or anybody else wrote is changed, and no image becomes smaller. What a guest has written to
keeps the format it had then, whatever its first bytes say by now: an extended attribute remembers it.
"""

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path

import structlog
from podvisor.domain.v1 import domain_pb2 as pb

from podvisor_launcher.domain.build import Image, ResolvedDisk
from podvisor_launcher.storage import qemu_img
from podvisor_launcher.storage.bulkheads import in_volume_thread
from podvisor_launcher.storage.errors import Unusable, about_volume
from podvisor_launcher.storage.files import open_plain_file
from podvisor_launcher.storage.image import confirm, look_into
from podvisor_launcher.storage.image_safety import QCOW2, RAW, ImageFacts
from podvisor_launcher.storage.open_elsewhere import identity_in, open_again
from podvisor_launcher.storage.overlay import overlaid
from podvisor_launcher.storage.resolve import check_lun, is_only_read, is_written, resolve
from podvisor_launcher.storage.sizes import Room, size_to_grow, size_to_make

_log = structlog.stdlib.get_logger(__name__)

FORMAT_ATTRIBUTE = "user.podvisor.format"
_IMAGE_MODE = 0o660
_BLOCK_BYTES = 512  # of st_blocks
# The file system has no extended attributes, or none for this user; or there is none on the file.
_WITHOUT_ATTRIBUTES = {errno.ENOTSUP, errno.EPERM, errno.EACCES, errno.EROFS, errno.ENODATA}
_NO_DEVICE = {errno.ENXIO, errno.ENOMEDIUM, errno.ENODEV}


@dataclass(frozen=True, slots=True)
class _Found:
    image: Image
    facts: ImageFacts
    wanted_bytes: int  # how large the guest shall see it


async def prepare_volume(disk: pb.DiskSpec, overlays: Path) -> ResolvedDisk:
    """The image or device behind `disk`; below a fresh overlay in the directory `overlays` when the volume is ephemeral.

    Raises InvalidDisk, which names the disk. Must not be called for a guest that runs.
    """
    with about_volume(disk.name):
        if not disk.volume.file:
            found = await in_volume_thread(_look_at_device, disk)
        else:
            found = await in_volume_thread(_look_at_image, disk)
            await confirm(Path(found.image.path), found.facts)
        image, facts = found.image, found.facts
        if is_written(disk):
            if facts.format == QCOW2 and found.wanted_bytes > facts.virtual_size_bytes:
                await grow_qcow2(disk, Path(image.path), found.wanted_bytes)
            if not image.is_block:
                await in_volume_thread(_remember_format, disk, facts.format)
            return resolve(disk, image)
        if is_only_read(disk):
            return resolve(disk, image, read_only=True)
        return await in_volume_thread(overlaid, disk, image, facts, overlays)


async def grow_qcow2(
    disk: pb.DiskSpec, path: Path, size_bytes: int, *, descriptor: int | None = None
) -> None:
    """Make the qcow2 image behind the disk, which nobody uses, as large as `size_bytes` if that can be: of one with internal
    snapshots it cannot, and its guest starts with the size that it has."""
    try:
        await qemu_img.grow(path, size_bytes, descriptor=descriptor)
    except qemu_img.QemuImgFailed as error:
        _log.warning("a volume has grown and its disk has not", volume=disk.name, error=str(error))


def grow_volume(disk: pb.DiskSpec, resolved: ResolvedDisk) -> int:
    """Grow what is behind the disk of a running guest to what its volume promises, as far as there is room for it, and return
    the size in bytes that the guest shall see by now.

    A raw file has that size then; a device has grown by itself, and a qcow2 image is grown by the QEMU that uses it. A disk
    that is not written to stays as it is. Waits for the file system. Raises InvalidDisk.
    """
    with about_volume(disk.name):
        if resolved.image.is_block:
            return _look_at_device(disk).wanted_bytes
        descriptor = _open_used_image(disk, resolved.image)
        try:
            facts = look_into(descriptor, (resolved.backing or resolved.image).format)
            return _grown(disk, descriptor, facts)
        finally:
            os.close(descriptor)


def _look_at_device(disk: pb.DiskSpec) -> _Found:
    path = disk.volume.path
    try:
        if not stat.S_ISBLK(os.stat(path).st_mode):
            raise Unusable("a block volume is expected, and what is there is no block device")
        descriptor = os.open(path, (os.O_RDWR if is_written(disk) else os.O_RDONLY) | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise Unusable("its device is not there yet") from error
    except PermissionError as error:
        can = "written" if is_written(disk) else "read"
        raise Unusable(f"its device cannot be {can} by user {os.geteuid()} yet") from error
    except OSError as error:
        words = "its device is gone" if error.errno in _NO_DEVICE else f"device: {error.strerror}"
        raise Unusable(words) from error
    try:
        size = os.lseek(descriptor, 0, os.SEEK_END)
        check_lun(disk, descriptor)
    finally:
        os.close(descriptor)
    if not size:
        raise Unusable("its device has a size of 0")
    return _Found(Image(path, RAW, is_block=True), ImageFacts(RAW, size), size)


def _look_at_image(disk: pb.DiskSpec) -> _Found:
    source = disk.volume
    try:
        descriptor = _open_image(disk)
    except FileNotFoundError as error:
        if not Path(source.path).is_dir():
            raise Unusable("its file system is not mounted") from error
        if not (source.create and is_written(disk)):
            raise Unusable(f'it has no file "{source.file}", and none is made') from error
        descriptor = _new_image(source)
    try:
        facts, wanted = look_at_open_image(disk, descriptor)
    finally:
        os.close(descriptor)
    path = Path(source.path) / source.file
    return _Found(Image(str(path), facts.format), facts, wanted)


def look_at_open_image(disk: pb.DiskSpec, descriptor: int) -> tuple[ImageFacts, int]:
    """What the open image behind `disk` is, and how large its guest shall see it. One that is empty and may be made is made; a
    raw one has that size then. Raises Unusable and OSError."""
    source = disk.volume
    format_ = RAW if source.assume_raw else _remembered_format(descriptor)
    if source.create and is_written(disk) and not os.fstat(descriptor).st_size:
        format_ = RAW
        _lengthen(descriptor, size_to_make(source, _room(descriptor)))
    facts = look_into(descriptor, format_)
    wanted = _grown(disk, descriptor, facts)
    return (ImageFacts(RAW, wanted) if facts.format == RAW else facts), wanted


def _open_image(disk: pb.DiskSpec) -> int:
    flags = os.O_RDWR if is_written(disk) else os.O_RDONLY
    return open_plain_file(Path(disk.volume.path), disk.volume.file, flags)


def _open_used_image(disk: pb.DiskSpec, image: Image) -> int:
    if not disk.volume.handed_over:
        return _open_image(disk)
    identity = identity_in(image.fd_group)
    if identity is None:
        raise Unusable("an earlier launcher did not note which file it is")
    try:
        return open_again(identity, os.O_RDWR)
    except FileNotFoundError as error:
        raise Unusable("QEMU does not have it open") from error


def _new_image(source: pb.VolumeDiskSource) -> int:
    path = Path(source.path) / source.file
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _IMAGE_MODE)
    except PermissionError as error:
        raise Unusable(
            f'it has no file "{source.file}" yet, and user {os.geteuid()} cannot make one'
        ) from error


def _grown(disk: pb.DiskSpec, descriptor: int, facts: ImageFacts) -> int:
    """Grow a raw image that is written to. Returns what the guest shall see, of an image in another format, too."""
    size = facts.virtual_size_bytes
    if not is_written(disk) or disk.volume.capacity_bytes <= size:
        return size
    wanted = size_to_grow(disk.volume, size, _room(descriptor))
    if facts.format == RAW and wanted > size:
        _lengthen(descriptor, wanted)
        _log.info("an image has grown", disk=disk.name, from_bytes=size, to_bytes=wanted)
    return wanted


def _lengthen(descriptor: int, size_bytes: int) -> None:
    """Give the file at least that size, with nothing behind the new part but its last block: unlike a truncation it cannot
    cut off what somebody else has added meanwhile."""
    os.posix_fallocate(descriptor, size_bytes - 1, 1)


def _room(descriptor: int) -> Room:
    found = os.fstatvfs(descriptor)
    return Room(
        free=found.f_bavail * found.f_frsize, taken=os.fstat(descriptor).st_blocks * _BLOCK_BYTES
    )


def _remembered_format(descriptor: int) -> str:
    try:
        format_ = os.getxattr(descriptor, FORMAT_ATTRIBUTE).decode(errors="replace")
    except OSError as error:
        if error.errno in _WITHOUT_ATTRIBUTES:
            return ""
        raise
    return format_ if format_ in (RAW, QCOW2) else ""


def _remember_format(disk: pb.DiskSpec, format_: str) -> None:
    descriptor = _open_image(disk)
    try:
        remember_format_of(disk, descriptor, format_)
    finally:
        os.close(descriptor)


def remember_format_of(disk: pb.DiskSpec, descriptor: int, format_: str) -> None:
    """The open image keeps that format for ever: a guest is about to write to it. Raises OSError."""
    try:
        if _remembered_format(descriptor) != format_:
            os.setxattr(descriptor, FORMAT_ATTRIBUTE, format_.encode())
    except OSError as error:
        if error.errno not in _WITHOUT_ATTRIBUTES | {errno.ENOSPC, errno.EDQUOT}:
            raise
        _log.info("the format of an image cannot be remembered", disk=disk.name)
