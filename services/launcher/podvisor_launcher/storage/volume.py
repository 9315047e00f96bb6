"""Volumes whose images a guest writes to."""

import os

from podvisor.domain.v1 import domain_pb2 as pb

from podvisor_launcher.domain.disks import ResolvedDisk


def grow_volume(disk: pb.DiskSpec, resolved: ResolvedDisk) -> int:
    """Grow what is behind the disk of a running guest to what its volume promises, and return the size in bytes that the guest
    shall see by now. A device has grown by itself. Raises OSError."""
    flags = os.O_RDONLY if resolved.image.is_block else os.O_RDWR
    descriptor = os.open(resolved.image.path, flags | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        size = os.lseek(descriptor, 0, os.SEEK_END)
        if not resolved.image.is_block and size < disk.volume.capacity_bytes:
            size = disk.volume.capacity_bytes
            os.ftruncate(descriptor, size)
        return size
    finally:
        os.close(descriptor)
