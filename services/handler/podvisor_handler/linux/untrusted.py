"""Path walks through trees that a guest's pod can write to.

Invariant: no walk ever follows a symlink or leaves the directory it started from, whatever the
owner of the tree does meanwhile, because each component is opened relative to the one before
with O_NOFOLLOW. This is the only module that opens such paths; what it returns are descriptors,
which callers use instead of names.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from podvisor_common.errors import Retryable, Terminal

_INODE = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_KINDS = {
    stat.S_IFREG: "a regular file",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


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
        descriptor = _open(parent, path.name, _INODE)
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
        node = _open(parent, path.name, _INODE)
    found = os.fstat(node)
    if not stat.S_ISCHR(found.st_mode) or found.st_rdev != device:
        os.close(node)
        raise UntrustedPathRefused(f"{relative} is not the expected device")
    if stat.S_IMODE(found.st_mode) != mode:
        os.chmod(f"/proc/self/fd/{node}", mode)
    return node


def untrusted_make_directory(
    root: int | str, relative: str, *, mode: int, owner: int | None = None
) -> None:
    """Makes the directory `relative` below `root` exist, as `owner`'s if one is given; its parent must be there."""
    path = PurePosixPath(relative)
    with untrusted_directory(root, str(path.parent)) as parent:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path.name, mode, dir_fd=parent)
        directory = _open(parent, path.name, _DIRECTORY)
    try:
        if owner is not None:
            os.chown(f"/proc/self/fd/{directory}", owner, owner)
    finally:
        os.close(directory)


@contextlib.contextmanager
def untrusted_mount(root: int | str, relative: str) -> Iterator[int]:
    """A descriptor (O_PATH) of the directory `relative` below `root`, on which something is mounted; closed on exit.

    Raises UntrustedPathMissing, or UntrustedPathRefused also when nothing is mounted on it.
    """
    path = PurePosixPath(relative)
    with (
        untrusted_directory(root, str(path.parent)) as parent,
        untrusted_directory(parent, path.name) as directory,
    ):
        if _mount_of(directory) == _mount_of(parent):
            raise UntrustedPathRefused(f"nothing is mounted on /{relative}")
        yield directory


def untrusted_give_file(directory: int, name: str, *, owner: int, create: bool) -> None:
    """Makes `owner` the owner of the regular file `name` in `directory`, who may read and write it. With `create`, a missing
    one is made, empty.

    Raises UntrustedPathMissing, OSError, and UntrustedPathRefused when something else has the name, or when the file has other
    names too, under which it may be somebody else's.
    """
    if len(_parts(name)) != 1:
        raise ValueError(f"not the name of a file: {name}")
    file = _open_or_make(directory, name, create=create)
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            raise UntrustedPathRefused(f"{name} is {_kind(found.st_mode)}, not a regular file")
        if found.st_uid == owner:
            return
        if found.st_nlink > 1:
            raise UntrustedPathRefused(f"{name} has more than one name (hard links)")
        # The owner comes last: a file that has the right one is complete.
        if found.st_mode & 0o600 != 0o600:
            os.chmod(f"/proc/self/fd/{file}", stat.S_IMODE(found.st_mode) | 0o600)
        os.chown(f"/proc/self/fd/{file}", owner, owner)
    finally:
        os.close(file)


def untrusted_give_block_device(root: int | str, relative: str, *, owner: int, mode: int) -> None:
    """Makes `owner` the owner of the block device `relative` below `root`, with exactly `mode`.

    Raises UntrustedPathMissing, OSError, or UntrustedPathRefused when something else has the name.
    """
    path = PurePosixPath(relative)
    with untrusted_directory(root, str(path.parent)) as parent:
        node = _open(parent, path.name, _INODE)
    try:
        found = os.fstat(node)
        if not stat.S_ISBLK(found.st_mode):
            raise UntrustedPathRefused(f"/{relative} is {_kind(found.st_mode)}, not a block device")
        if stat.S_IMODE(found.st_mode) != mode:
            os.chmod(f"/proc/self/fd/{node}", mode)
        if found.st_uid != owner:
            os.chown(f"/proc/self/fd/{node}", owner, owner)
    finally:
        os.close(node)


def untrusted_open_disk(directory: int, name: str, *, kind: int, read_only: bool) -> int:
    """The file `name` in `directory`, which is of the kind S_IFREG or S_IFBLK, open past the page cache where that can be had
    (O_DIRECT). The caller closes it.

    Raises UntrustedPathMissing, OSError, or UntrustedPathRefused when something else has the name.
    """
    if len(_parts(name)) != 1:
        raise ValueError(f"not the name of a file: {name}")
    inode = _open(directory, name, _INODE)
    try:
        found = stat.S_IFMT(os.fstat(inode).st_mode)
        if found != kind:
            raise UntrustedPathRefused(f"{name} is {_kind(found)}, not {_kind(kind)}")
        # By the inode that was looked at: merely to open something else, as a pipe or a device, can do harm.
        path = f"/proc/self/fd/{inode}"
        flags = (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC
        try:
            return os.open(path, flags | os.O_DIRECT)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
        return os.open(path, flags)
    finally:
        os.close(inode)


def _open_or_make(directory: int, name: str, *, create: bool) -> int:
    try:
        return os.open(name, _INODE, dir_fd=directory)
    except FileNotFoundError as error:
        if not create:
            raise UntrustedPathMissing(f"{name} does not exist") from error
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with contextlib.suppress(FileExistsError):
        made = os.open(name, flags, 0o600, dir_fd=directory)
        try:
            os.fchmod(made, 0o660)
        finally:
            os.close(made)
    return _open(directory, name, _INODE)


def _mount_of(descriptor: int) -> str:
    """The mount that the file behind a descriptor was reached by."""
    for line in Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines():
        if line.startswith("mnt_id:"):
            return line
    raise UntrustedPathRefused("the kernel does not tell mounts apart")


def _kind(mode: int) -> str:
    return _KINDS.get(stat.S_IFMT(mode), "something else")


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
