"""As whom a thread opens files."""

import contextlib
import ctypes
import os
from collections.abc import Iterator

_LIBC = ctypes.CDLL(None, use_errno=True)
# The C library's setgroups() is for all threads of a process, the system call for the one that makes it.
_SETGROUPS = {"x86_64": 116, "aarch64": 159}


@contextlib.contextmanager
def files_as(user: int) -> Iterator[None]:
    """Within it, this thread may do with files what `user` may, and the group of that number, and no other group that this process is
    in; other threads are as before. A thread that is started within it stays so."""
    groups = os.getgroups()
    _set_groups([])
    _LIBC.setfsgid(user)
    _LIBC.setfsuid(user)
    try:
        if _LIBC.setfsuid(-1) != user:
            raise PermissionError(f"this process may not open files as user {user}")
        yield
    finally:
        _LIBC.setfsuid(os.geteuid())
        _LIBC.setfsgid(os.getegid())
        _set_groups(groups)


def _set_groups(groups: list[int]) -> None:
    """The supplementary groups of this thread."""
    array = (ctypes.c_uint32 * len(groups))(*groups)
    if _LIBC.syscall(_SETGROUPS[os.uname().machine], ctypes.c_size_t(len(groups)), array) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
