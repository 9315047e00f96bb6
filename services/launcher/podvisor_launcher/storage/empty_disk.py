"""Disks that are empty at first: images that take only the space of what is written, and live as long as the pod."""

from pathlib import Path

from podvisor.domain.v1 import domain_pb2 as pb

from podvisor_launcher.domain.build import Image, ResolvedDisk
from podvisor_launcher.storage.errors import Unusable, about_volume
from podvisor_launcher.storage.image_safety import QCOW2
from podvisor_launcher.storage.qemu_img import create_empty
from podvisor_launcher.storage.resolve import is_only_read, resolve

_SECTOR_BYTES = 512


async def prepare_empty_disk(disk: pb.DiskSpec, overlays: Path) -> ResolvedDisk:
    """A fresh image in the directory `overlays`. Raises InvalidDisk, which names the disk. Must not be called for a guest that
    runs."""
    capacity = disk.empty.capacity_bytes
    with about_volume(disk.name):
        if not capacity:
            raise Unusable("an empty disk needs a capacity")
        path = overlays / f"{disk.name}.qcow2"
        await create_empty(path, capacity + -capacity % _SECTOR_BYTES)
        return resolve(disk, Image(str(path), QCOW2), read_only=is_only_read(disk))
