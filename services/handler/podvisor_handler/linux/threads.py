"""Work that changes what its thread is: a thread that does one thing and ends.

A thread that has entered a namespace is never used again, so nothing has to be put back.
"""

import asyncio
import contextlib
import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

_T = TypeVar("_T")
_LIBC = ctypes.CDLL(None, use_errno=True)
# The C library's setgroups() is for all threads of a process, the system call for the one that makes it.
_SETGROUPS = {"x86_64": 116, "aarch64": 159}


async def in_own_thread(work: Callable[[], _T], *, name: str) -> _T:
    """The result of `work()`, run in a new thread that ends with it.

    Cancelling the caller does not stop `work`, which must bound itself.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[_T] = loop.create_future()

    def settle(result: _T | None, error: BaseException | None) -> None:
        if outcome.done():
            return
        if error is not None:
            outcome.set_exception(error)
        else:
            outcome.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        try:
            result = work()
        except BaseException as error:
            report(None, error)
        else:
            report(result, None)

    def report(result: _T | None, error: BaseException | None) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return await outcome


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
