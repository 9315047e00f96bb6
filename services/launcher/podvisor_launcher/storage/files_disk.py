"""ConfigMaps, Secrets and their like as ISO images: every file of a mounted volume, under its own name.

The content may be confidential. It goes into a file of this user alone and nowhere else.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from podvisor.domain.v1 import domain_pb2 as pb

from podvisor_launcher.domain.build import Image, ResolvedDisk
from podvisor_launcher.storage.errors import MissingFiles, Unusable, about_volume
from podvisor_launcher.storage.files import write_whole
from podvisor_launcher.storage.iso9660 import make_image
from podvisor_launcher.storage.resolve import resolve

# A Secret or ConfigMap has at most 1 MiB, so this is no limit for what belongs here; the image is made in memory.
_MAX_BYTES = 16 << 20
_MAX_FILES = 4096
# The kubelet keeps the volume's content behind this link, so that all of it changes at once.
_CURRENT = "..data"


def prepare_files_disk(disk: pb.DiskSpec, directory: Path) -> ResolvedDisk:
    """The ISO image behind `disk`, freshly made in `directory`. Raises MissingFiles and InvalidDisk, which name the disk."""
    source = disk.files
    path = directory / f"{disk.name}.iso"
    with about_volume(disk.name):
        files = read_files(Path(source.directory))
    if not files and not source.optional:
        raise MissingFiles(
            f'Volume "{disk.name}": the ConfigMap or Secret that it is made of does not exist or is empty. '
            "The machine starts when it is there."
        )
    names = {name.lower() for name in files}
    if files and source.required and names.isdisjoint(source.required):
        wanted = " or ".join(f'"{name}"' for name in source.required)
        raise MissingFiles(f'Volume "{disk.name}": none of its keys is {wanted}.')
    with about_volume(disk.name):
        write_whole(path, make_image(source.label, files))
        return resolve(disk, Image(str(path), "raw"), read_only=True)


def read_files(directory: Path) -> dict[str, bytes]:
    """The files below `directory` by path, in order; none when it is missing. What begins with two dots is the kubelet's.

    Links are followed inside of it only. Raises Unusable and OSError.
    """
    root = directory.resolve()
    current = (root / _CURRENT).resolve()
    base = current if current.is_dir() and current.is_relative_to(root) else root
    if not base.is_dir():
        return {}
    files: dict[str, bytes] = {}
    left = _MAX_BYTES
    for path in _paths(base, base, root):
        content = _read(base / path, left)
        left -= len(content)
        files[path] = content
        if left < 0 or len(files) > _MAX_FILES:
            raise Unusable(
                f"its files are more than {_MAX_FILES}, or larger than {_MAX_BYTES >> 20} MiB, which is too much for an image"
            )
    return files


def _paths(directory: Path, base: Path, root: Path) -> Iterator[str]:
    for entry in sorted(directory.iterdir()):
        end = entry.resolve()
        if entry.name.startswith("..") or not end.is_relative_to(root):
            continue
        if end.is_file():
            yield str(entry.relative_to(base))
        elif end.is_dir() and not entry.is_symlink():
            yield from _paths(entry, base, root)


def _read(path: Path, limit_bytes: int) -> bytes:
    """The file, or a byte more than the limit."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
        return file.read(limit_bytes + 1)
