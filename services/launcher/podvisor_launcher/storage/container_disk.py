"""Disks inside container images: found, looked at with suspicion, and covered by a copy-on-write overlay.

Invariant: the image below is never opened for writing, and no file is opened because an image names it.
"""

import os
from pathlib import Path

from podvisor.domain.v1 import domain_pb2 as pb

from podvisor_launcher.domain.build import Image, ResolvedDisk
from podvisor_launcher.storage.errors import InvalidDisk
from podvisor_launcher.storage.files import UnsafePath, plain_file_below
from podvisor_launcher.storage.qemu_img import (
    ImageInfo,
    QemuImgFailed,
    create_overlay,
    image_info,
)

_FORMATS = ("qcow2", "raw")
_SECTOR_BYTES = 512


async def prepare_container_disk(disk: pb.DiskSpec, overlays: Path) -> ResolvedDisk:
    """The files behind `disk`, with a fresh overlay in the directory `overlays` unless it is only read.

    Raises InvalidDisk, which names the disk. Must not be called for a guest that runs.
    """
    source = disk.container_disk
    try:
        path = find_disk(Path(source.image_root), source.path)
        info = await image_info(path)
        check_image(info)
        image = Image(str(path), info.format)
        if disk.read_only or disk.device == pb.DISK_DEVICE_CDROM:
            return ResolvedDisk(image, read_only=True)
        overlay = overlays / f"{disk.name}.qcow2"
        await create_overlay(overlay, path, info.format)
    except (UnsafePath, QemuImgFailed, OSError) as error:
        words = error.strerror if isinstance(error, OSError) else str(error)
        raise InvalidDisk(f'Volume "{disk.name}": {words}.') from error
    return ResolvedDisk(Image(str(overlay), "qcow2"), backing=image)


def find_disk(image_root: Path, path: str) -> Path:
    """The disk at `path` inside the image, or the only file in its directory /disk. Raises UnsafePath and OSError."""
    if path:
        return plain_file_below(image_root, path)
    try:
        with os.scandir(image_root / "disk") as entries:
            names = [entry.name for entry in entries if _counts(entry)]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UnsafePath("the image has no directory /disk") from error
    if len(names) != 1:
        count = "no file" if not names else f"{len(names)} files"
        raise UnsafePath(f"the image has {count} in /disk, and exactly one is needed")
    if not names[
        0
    ].isprintable():  # it goes into XML and into reports, which cannot hold every byte
        raise UnsafePath("the name of the file in /disk has characters that cannot be shown")
    return plain_file_below(image_root, f"disk/{names[0]}")


def _counts(entry: "os.DirEntry[str]") -> bool:
    return not entry.name.startswith(".") and not entry.is_dir(follow_symlinks=False)


def check_image(info: ImageInfo) -> None:
    """Raise UnsafePath unless the image is complete in itself and of a format that may be used."""
    if info.format not in _FORMATS:
        raise UnsafePath(f"format {info.format} is not supported, only {' and '.join(_FORMATS)}")
    if info.backing_file is not None:
        raise UnsafePath("the image names a backing file, which is not allowed")
    if info.data_file is not None:
        raise UnsafePath("the image names an external data file, which is not allowed")
    if info.encrypted:
        raise UnsafePath("the image is encrypted, which is not supported")
    if info.virtual_size_bytes < _SECTOR_BYTES:
        raise UnsafePath("the image is too small to be a disk")
