"""Images that live as long as the pod: overlays over what must not be written to, and disks that are empty at first."""

from pathlib import Path

from podvisor.domain.v1 import domain_pb2 as pb

from podvisor_launcher.domain.build import Image, ResolvedDisk
from podvisor_launcher.storage.errors import Unusable, about_volume
from podvisor_launcher.storage.files import write_whole
from podvisor_launcher.storage.image_safety import QCOW2, SECTOR_BYTES, ImageFacts
from podvisor_launcher.storage.qcow2 import MAX_VIRTUAL_BYTES
from podvisor_launcher.storage.qcow2_new import new_image
from podvisor_launcher.storage.resolve import is_only_read, resolve


def overlaid(disk: pb.DiskSpec, image: Image, facts: ImageFacts, overlays: Path) -> ResolvedDisk:
    """A fresh overlay over `image` in the directory `overlays`; there is none or a complete one. Raises Unusable and OSError."""
    path = overlays / f"{disk.name}.qcow2"
    try:
        content = new_image(
            facts.virtual_size_bytes, backing=image.path, backing_format=facts.format
        )
    except ValueError as error:
        raise Unusable("the path of its image is too long") from error
    write_whole(path, content)
    return resolve(disk, Image(str(path), QCOW2), backing=image)


def prepare_empty_disk(disk: pb.DiskSpec, overlays: Path) -> ResolvedDisk:
    """A fresh image in the directory `overlays`. Raises InvalidDisk, which names the disk. Must not be called for a guest that
    runs."""
    capacity = disk.empty.capacity_bytes
    with about_volume(disk.name):
        if not 0 < capacity <= MAX_VIRTUAL_BYTES:
            raise Unusable(
                f"an empty disk needs a capacity, of at most {MAX_VIRTUAL_BYTES >> 40} TiB"
            )
        path = overlays / f"{disk.name}.qcow2"
        write_whole(path, new_image(capacity + -capacity % SECTOR_BYTES))
        return resolve(disk, Image(str(path), QCOW2), read_only=is_only_read(disk))
