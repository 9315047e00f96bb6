"""Files that are whole or absent, and looks into trees that somebody else filled."""

import os
import stat
from pathlib import Path

from podvisor_launcher.storage.errors import Unusable

_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a device",
    stat.S_IFCHR: "a device",
}


class UnsafePath(Unusable):
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


def open_plain_file(directory: Path, name: str, flags: int) -> int:
    """Open the file `name` in `directory`, which is trusted while what it holds is not. No link is followed, and nothing is
    opened but a plain file: others may block, or act on it. Raises UnsafePath and, when it is missing, FileNotFoundError.
    """
    if name in ("", ".", "..") or "/" in name or not name.isprintable():
        raise UnsafePath("the name of its image is not the name of a file")
    holder = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=holder)
    finally:
        os.close(holder)
    try:
        _check_plain(name, found)
        return _reopened(name, found, flags)
    finally:
        os.close(found)


def plain_file_below(root: Path, relative: str) -> Path:
    """The path of `relative` below the untrusted tree `root`, whose every step was seen to be no symbolic link.

    Raises UnsafePath when a step is missing or a link, or the end is no readable plain file, and FileNotFoundError when there
    is no `root`. The tree must not change afterwards: it is a read-only mount.
    """
    *parents, name = _steps(relative)
    directory = directory_below(root, parents)
    try:
        last = _open_step(name, directory, 0)
        try:
            _check_plain(relative, last)
            os.close(_reopened(relative, last, os.O_RDONLY))
        finally:
            os.close(last)
    finally:
        os.close(directory)
    return root.joinpath(*parents, name)


def directory_below(root: Path, steps: list[str]) -> int:
    """Open the directory at `steps` below the untrusted tree `root`, to look at only; the caller closes it.

    Raises UnsafePath when a step is missing or no directory, and FileNotFoundError when there is no `root`.
    """
    directory = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    for step in steps:
        try:
            inner = _open_step(step, directory, os.O_DIRECTORY)
        finally:
            os.close(directory)
        directory = inner
    return directory


def _steps(relative: str) -> list[str]:
    steps = [step for step in relative.split("/") if step not in ("", ".")]
    if not steps or ".." in steps:
        raise UnsafePath(f'"{relative}" is not a path inside the image')
    return steps


def _open_step(step: str, directory: int, flags: int) -> int:
    try:
        found = os.open(step, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC | flags, dir_fd=directory)
    except OSError as error:
        raise UnsafePath(f'"{step}": {error.strerror}') from error
    if stat.S_ISLNK(os.fstat(found).st_mode):
        os.close(found)
        raise UnsafePath(f'"{step}" is a symbolic link')
    return found


def _check_plain(name: str, descriptor: int) -> None:
    kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
    if kind != stat.S_IFREG:
        raise UnsafePath(f'"{name}" is {_KINDS.get(kind, "something else")}, not a plain file')


def _reopened(name: str, descriptor: int, flags: int) -> int:
    """Open the very file that was looked at, whatever its name leads to by now."""
    try:
        return os.open(f"/proc/self/fd/{descriptor}", flags | os.O_CLOEXEC)
    except PermissionError as error:
        found = os.fstat(descriptor)
        can = "written" if flags & os.O_ACCMODE else "read"
        raise UnsafePath(
            f'"{name}" cannot be {can} by user {os.geteuid()}: it belongs to user {found.st_uid} and group {found.st_gid}, '
            f"with mode {stat.S_IMODE(found.st_mode):04o}"
        ) from error
    except OSError as error:
        raise UnsafePath(f'"{name}": {error.strerror}') from error
