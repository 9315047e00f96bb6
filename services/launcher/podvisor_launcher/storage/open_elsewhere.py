"""Files that QEMU has open and nobody here: found among the open files of this user's processes.

A volume that was handed over has no name here, and its descriptor is closed once QEMU has it. What it was is kept in libvirt's
description of the disk, so that the next launcher finds it too.

Invariant: no file is touched but the one that is looked for; another might be on a server that does not answer.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

_IDENTITY = re.compile(r":(?P<device>[0-9a-f]+):(?P<inode>[0-9a-f]+)$")
_INODE = re.compile(r"^ino:\t(\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Identity:
    """Which file it is, on this node."""

    device: int
    inode: int

    def __str__(self) -> str:
        return f":{self.device:x}:{self.inode:x}"


def identity_of(descriptor: int) -> Identity:
    """The identity of an open file. Raises OSError."""
    found = os.fstat(descriptor)
    return Identity(found.st_dev, found.st_ino)


def identity_in(words: str) -> Identity | None:
    """The identity that `words` end with, if they do."""
    found = _IDENTITY.search(words)
    return Identity(int(found["device"], 16), int(found["inode"], 16)) if found else None


def open_again(identity: Identity, flags: int) -> int:
    """Open that file, which a process of this user has open. Raises FileNotFoundError where none has, and OSError.

    Waits for the file system.
    """
    for entry in Path("/proc").glob("[0-9]*/fdinfo/[0-9]*"):
        if not _may_be(entry, identity.inode):
            continue
        descriptor = os.open(entry.parents[1] / "fd" / entry.name, flags | os.O_CLOEXEC)
        if identity_of(descriptor) == identity:
            return descriptor
        os.close(descriptor)
    raise FileNotFoundError("nobody has it open")


def _may_be(entry: Path, inode: int) -> bool:
    """By what the kernel tells of the open file, which asks no file system."""
    try:
        found = _INODE.search(entry.read_text())
    except OSError:
        return False  # it was closed, or is another user's
    return found is not None and int(found[1]) == inode
