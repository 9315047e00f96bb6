"""Work that changes what its thread is: a thread that does one thing and ends.

A thread that has entered a namespace is never used again, so nothing has to be put back.
"""

import contextlib
import ctypes
import os
from collections.abc import Iterator

from podvisor_common.aio.threads import in_own_thread

__all__ = ["files_as", "in_own_thread"]

_LIBC = ctypes.CDLL(None)


@contextlib.contextmanager
def files_as(user: int) -> Iterator[None]:
    """Within it, this thread may do with files what `user` may, and the group of that number; other threads are as before. A thread that is started within it stays
    so."""
    _LIBC.setfsgid(user)
    _LIBC.setfsuid(user)
    try:
        if _LIBC.setfsuid(-1) != user:
            raise PermissionError(f"this process may not open files as user {user}")
        yield
    finally:
        _LIBC.setfsuid(os.geteuid())
        _LIBC.setfsgid(os.getegid())
