"""Disks inside container images: found, looked at with suspicion, and covered by a copy-on-write overlay.

Invariant: the image below is never opened for writing, and no file is opened because an image names it.
"""

import asyncio
import os
from pathlib import Path

from podvisor.domain.v1 import domain_pb2 as pb

from podvisor_launcher.domain.build import Image, ResolvedDisk
from podvisor_launcher.storage.errors import Unusable, about_volume
from podvisor_launcher.storage.files import UnsafePath, directory_below, plain_file_below
from podvisor_launcher.storage.image import confirm, look_into
from podvisor_launcher.storage.image_safety import ImageFacts
from podvisor_launcher.storage.overlay import overlaid
from podvisor_launcher.storage.resolve import is_only_read, resolve


async def prepare_container_disk(disk: pb.DiskSpec, overlays: Path) -> ResolvedDisk:
    """The files behind `disk`, with a fresh overlay in the directory `overlays` unless it is only read.

    Raises InvalidDisk, which names the disk. Must not be called for a guest that runs.
    """
    with about_volume(disk.name):
        path, facts = await asyncio.to_thread(_find_and_look, disk.container_disk)
        await confirm(path, facts)
        image = Image(str(path), facts.format)
        if is_only_read(disk):
            return resolve(disk, image, read_only=True)
        return await asyncio.to_thread(overlaid, disk, image, facts, overlays)


def _find_and_look(source: pb.ContainerDiskSource) -> tuple[Path, ImageFacts]:
    root = Path(source.image_root)
    try:
        path = find_disk(root, source.path)
    except FileNotFoundError as error:  # or it is a link to the root of a process that is gone
        raise Unusable("its container image is not there yet") from error
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return path, look_into(descriptor)
    finally:
        os.close(descriptor)


def find_disk(image_root: Path, path: str) -> Path:
    """The disk at `path` inside the image, or the only file in its directory /disk. `image_root` may be a link; what is below
    it is followed nowhere. Raises UnsafePath and, when there is no `image_root`, FileNotFoundError."""
    if path:
        return plain_file_below(image_root, path)
    names = _names_in_disk(image_root)
    if len(names) != 1:
        count = "no file" if not names else f"{len(names)} files"
        raise UnsafePath(f"the image has {count} in /disk, and exactly one is needed")
    if not names[
        0
    ].isprintable():  # it goes into XML and into reports, which cannot hold every byte
        raise UnsafePath("the name of the file in /disk has characters that cannot be shown")
    return plain_file_below(image_root, f"disk/{names[0]}")


def _names_in_disk(image_root: Path) -> list[str]:
    try:
        directory = directory_below(image_root, ["disk"])
    except UnsafePath as error:
        raise UnsafePath("the image has no directory /disk") from error
    try:
        readable = os.open(f"/proc/self/fd/{directory}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(directory)
    try:
        with os.scandir(readable) as entries:
            return [entry.name for entry in entries if _counts(entry)]
    finally:
        os.close(readable)


def _counts(entry: "os.DirEntry[str]") -> bool:
    return not entry.name.startswith(".") and not entry.is_dir(follow_symlinks=False)
