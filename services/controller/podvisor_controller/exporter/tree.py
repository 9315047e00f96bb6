"""Reading files that a guest, or anybody with a pod, has written: links, pipes and devices among them.

Invariant: nothing is followed out of a volume, and nothing but directories and regular files is ever opened for reading: each component
of a path is opened relative to the one before without following links, and what is read is the inode that was looked at.
"""

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence

DISK_IMAGE = "disk.img"

_INODE = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


class NotServed(Exception):
    """There is nothing of the name, or nothing that is handed out, as a link."""


@contextlib.contextmanager
def inode(root: str, parts: Sequence[bytes] = ()) -> Iterator[int]:
    """A descriptor (O_PATH) of what is at `parts` below the directory `root`, which is trusted; closed on exit.

    Raises NotServed where there is nothing, or a link on the way or at its end, and ValueError for a part that is no name.
    """
    current = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts:
            if part in (b"", b".", b"..") or b"/" in part or b"\0" in part:
                raise ValueError("not the name of a file")
            try:
                child = os.open(part, _INODE, dir_fd=current)
            except OSError as error:
                raise NotServed from error
            os.close(current)
            current = child
        if stat.S_ISLNK(os.fstat(current).st_mode):
            raise NotServed
        yield current
    finally:
        os.close(current)


def is_directory(descriptor: int) -> bool:
    """Whether that is what a descriptor is of."""
    return stat.S_ISDIR(os.fstat(descriptor).st_mode)


def is_file(descriptor: int) -> bool:
    """Whether a descriptor is of a regular file."""
    return stat.S_ISREG(os.fstat(descriptor).st_mode)


def reopened(descriptor: int) -> int:
    """The directory or regular file behind a descriptor of inode(), open for reading. The caller closes it.

    NotServed when it is anything else: merely to open a pipe or a device can do harm. OSError when it may not be read.
    """
    if not (is_file(descriptor) or is_directory(descriptor)):
        raise NotServed
    return os.open(f"/proc/self/fd/{descriptor}", _READ)


def holds_disk(root: str) -> bool:
    """Whether a volume's file system has a disk image where a machine would look for it."""
    try:
        with inode(root, [os.fsencode(DISK_IMAGE)]) as found:
            return is_file(found)
    except NotServed:
        return False


def open_disk(path: str, *, is_block: bool) -> int:
    """The disk image of a volume, or its device, open for reading. The caller closes it. Raises NotServed and OSError."""
    if is_block:
        return os.open(path, _READ)
    with inode(path, [os.fsencode(DISK_IMAGE)]) as found:
        if not is_file(found):
            raise NotServed
        return reopened(found)


def size_of(descriptor: int) -> int:
    """The bytes of an open file or device."""
    return os.lseek(descriptor, 0, os.SEEK_END)
