"""Images as they are looked at before a guest gets them: first by us, then, where that is needed, by a bounded qemu-img."""

import os
from pathlib import Path

from podvisor_launcher.storage.image_safety import (
    HEAD_BYTES,
    QCOW2,
    TAIL_BYTES,
    ImageFacts,
    UnsafeImage,
    examine,
)
from podvisor_launcher.storage.qemu_img import ImageInfo, image_info


def look_into(descriptor: int, known_format: str = "") -> ImageFacts:
    """What the open image is. Reads 64.5 KiB of it, however large it is. Raises Unusable and OSError."""
    size = os.fstat(descriptor).st_size
    head = os.pread(descriptor, HEAD_BYTES, 0)
    tail = os.pread(descriptor, TAIL_BYTES, max(size - TAIL_BYTES, 0))
    return examine(head, tail, size, known_format)


async def confirm(path: Path, facts: ImageFacts, *, descriptor: int | None = None) -> None:
    """Let qemu-img see the image at `path` in the same way as look_into(), and let it have `descriptor`. Raises Unusable.

    There is nothing to see in a raw one.
    """
    if facts.format == QCOW2:
        check_info(await image_info(path, QCOW2, descriptor=descriptor), facts)


def check_info(info: ImageInfo, facts: ImageFacts) -> None:
    """Raise UnsafeImage unless the image is complete in itself, and what it was seen to be."""
    if info.backing_file is not None:
        raise UnsafeImage("the image names a backing file, which is not allowed")
    if info.data_file is not None:
        raise UnsafeImage("the image names an external data file, which is not allowed")
    if info.encrypted:
        raise UnsafeImage("the image is encrypted, which is not supported")
    if (info.format, info.virtual_size_bytes) != (facts.format, facts.virtual_size_bytes):
        raise UnsafeImage("the image has changed while it was looked at")
