"""Path walks through trees that a guest's pod can write to.

Invariant: no walk ever follows a symlink or leaves the directory it started from, whatever the
owner of the tree does meanwhile, because each component is opened relative to the one before
with O_NOFOLLOW. This is the only module that opens such paths; what it returns are descriptors,
which callers use instead of names.
"""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import PurePosixPath

from podvisor_common.errors import Retryable, Terminal

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class UntrustedPathRefused(Terminal):
    """The tree holds something else than what belongs there, for example a symlink."""


class UntrustedPathMissing(Retryable):
    """The path is not there (yet)."""


@contextlib.contextmanager
def untrusted_directory(root: int | str, relative: str) -> Iterator[int]:
    """A descriptor (O_PATH) of the directory `relative` below `root`; closed on exit.

    `root` itself is trusted: a descriptor, which stays open, or an absolute path.
    Raises UntrustedPathMissing or UntrustedPathRefused.
    """
    parts = _parts(relative)
    current = os.dup(root) if isinstance(root, int) else _open(None, root, os.O_PATH | os.O_CLOEXEC)
    try:
        for part in parts:
            child = _open(current, part, _DIRECTORY)
            os.close(current)
            current = child
        yield current
    finally:
        os.close(current)


def untrusted_open_socket(root: int | str, relative: str) -> int:
    """A descriptor (O_PATH) of the socket inode `relative` below `root`. The caller closes it.

    Raises UntrustedPathMissing, or UntrustedPathRefused when it is not a socket.
    """
    path = PurePosixPath(relative)
    with untrusted_directory(root, str(path.parent)) as parent:
        descriptor = _open(parent, path.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UntrustedPathRefused(f"{relative} is not a socket")
    return descriptor


def untrusted_read(root: int | str, relative: str, *, limit_bytes: int) -> bytes:
    """The content of the regular file `relative` below `root`, at most `limit_bytes` of it.

    Raises UntrustedPathMissing, or UntrustedPathRefused when it is not a regular file.
    """
    path = PurePosixPath(relative)
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    with untrusted_directory(root, str(path.parent)) as parent:
        descriptor = _open(parent, path.name, flags)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise UntrustedPathRefused(f"{relative} is not a regular file")
        return os.read(descriptor, limit_bytes)
    finally:
        os.close(descriptor)


def untrusted_character_device(
    root: int | str, relative: str, *, device: int, mode: int, create: bool
) -> int:
    """A descriptor (O_PATH) of the character device `relative` below `root`, which has exactly
    `mode` afterwards. The caller closes it.

    With `create` a missing one is made, otherwise it raises UntrustedPathMissing.
    Raises UntrustedPathRefused when something else has the name.
    """
    path = PurePosixPath(relative)
    with untrusted_directory(root, str(path.parent)) as parent:
        if create:
            with contextlib.suppress(FileExistsError):
                os.mknod(path.name, stat.S_IFCHR | mode, device, dir_fd=parent)
        node = _open(parent, path.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    found = os.fstat(node)
    if not stat.S_ISCHR(found.st_mode) or found.st_rdev != device:
        os.close(node)
        raise UntrustedPathRefused(f"{relative} is not the expected device")
    if stat.S_IMODE(found.st_mode) != mode:
        os.chmod(f"/proc/self/fd/{node}", mode)
    return node


def untrusted_make_directory(root: int | str, relative: str, *, mode: int) -> None:
    """Makes the directory `relative` below `root` exist; its parent must be there."""
    path = PurePosixPath(relative)
    with untrusted_directory(root, str(path.parent)) as parent:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path.name, mode, dir_fd=parent)
        os.close(_open(parent, path.name, _DIRECTORY))


def _parts(relative: str) -> tuple[str, ...]:
    path = PurePosixPath(relative)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"not a path below its root: {relative}")
    return path.parts


def _open(parent: int | None, name: str, flags: int) -> int:
    try:
        return os.open(name, flags, dir_fd=parent)
    except FileNotFoundError as error:
        raise UntrustedPathMissing(f"{name} does not exist") from error
    except OSError as error:
        raise UntrustedPathRefused(f"{name} cannot be opened: {error.strerror}") from error
