"""Files that are whole or absent, and looks into trees that somebody else filled."""

import os
import stat
from pathlib import Path


class UnsafePath(Exception):
    """The path does not lead to a plain file inside the tree. The text says where it ends."""


def write_whole(path: Path, content: bytes) -> None:
    """Replace `path` by `content`, readable for this user alone. Readers find the old content or the new, and so does a
    successor of this process."""
    temporary = _written_beside(path, content, durable=False)
    temporary.rename(path)


def write_durably(path: Path, content: bytes) -> None:
    """As write_whole(), and on stable storage when it returns."""
    temporary = _written_beside(path, content, durable=True)
    temporary.rename(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _written_beside(path: Path, content: bytes, *, durable: bool) -> Path:
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(
        temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
    )
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        if durable:
            file.flush()
            os.fsync(descriptor)
    return temporary


def plain_file_below(root: Path, relative: str) -> Path:
    """The path of `relative` below the untrusted tree `root`, whose every step was seen to be no symbolic link.

    Raises UnsafePath when a step is missing or a link, or the end is no readable plain file. The tree must not change
    afterwards: it is a read-only mount.
    """
    steps = [step for step in relative.split("/") if step not in ("", ".")]
    if not steps or ".." in steps:
        raise UnsafePath(f'"{relative}" is not a path inside the image')
    directory = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for step in steps[:-1]:
            inner = _open_step(step, directory, os.O_DIRECTORY)
            os.close(directory)
            directory = inner
        last = _open_step(steps[-1], directory, 0)
    finally:
        os.close(directory)
    try:
        if not stat.S_ISREG(os.fstat(last).st_mode):
            raise UnsafePath(f'"{relative}" is not a plain file')
    finally:
        os.close(last)
    path = root.joinpath(*steps)
    if not os.access(path, os.R_OK):
        raise UnsafePath(f'"{relative}" is not readable for user {os.getuid()}')
    return path


def _open_step(step: str, directory: int, flags: int) -> int:
    try:
        found = os.open(step, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC | flags, dir_fd=directory)
    except OSError as error:
        raise UnsafePath(f'"{step}": {error.strerror}') from error
    if stat.S_ISLNK(os.fstat(found).st_mode):
        os.close(found)
        raise UnsafePath(f'"{step}" is a symbolic link')
    return found
