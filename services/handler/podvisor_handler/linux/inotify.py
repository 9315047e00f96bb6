"""inotify on the running event loop.

Invariant: a subscriber learns that something under its directory changed, not what: it looks
again itself, so that a lost or merged notification (queue overflow) costs nothing.
"""

import asyncio
import ctypes
import os
import struct
from collections.abc import Callable
from typing import Self

_LIBC = ctypes.CDLL(None, use_errno=True)
_EVENT = struct.Struct("iIII")
_READ_BYTES = 64 * 1024

_IN_MOVED_FROM = 0x40
_IN_MOVED_TO = 0x80
_IN_CREATE = 0x100
_IN_DELETE = 0x200
_IN_DELETE_SELF = 0x400
_IN_Q_OVERFLOW = 0x4000
_IN_IGNORED = 0x8000
_IN_ONLYDIR = 0x0100_0000

_DIRECTORY_CHANGED = (
    _IN_CREATE | _IN_MOVED_TO | _IN_MOVED_FROM | _IN_DELETE | _IN_DELETE_SELF | _IN_ONLYDIR
)


class Inotify:
    """One inotify instance; many directories, each with any number of subscribers."""

    def __init__(self) -> None:
        self._descriptor = -1
        self._callbacks: dict[int, list[Callable[[], None]]] = {}

    def __enter__(self) -> Self:
        self._descriptor = _checked(_LIBC.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))
        asyncio.get_running_loop().add_reader(self._descriptor, self._read)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)
        self._descriptor = -1
        self._callbacks.clear()

    def watch_directory(self, descriptor: int, changed: Callable[[], None]) -> "DirectoryWatch":
        """Calls `changed` on the loop whenever an entry of the directory comes, goes or is renamed.

        `descriptor` is open on the directory (O_PATH is enough) and may be closed afterwards.
        Raises OSError.
        """
        path = os.fsencode(f"/proc/self/fd/{descriptor}")
        watch = _checked(_LIBC.inotify_add_watch(self._descriptor, path, _DIRECTORY_CHANGED))
        self._callbacks.setdefault(watch, []).append(changed)
        return DirectoryWatch(self, watch, changed)

    def forget(self, watch: int, changed: Callable[[], None]) -> None:
        """Ends one subscription; the kernel's watch goes with the last one."""
        callbacks = self._callbacks.get(watch, [])
        if changed in callbacks:
            callbacks.remove(changed)
            if not callbacks:
                del self._callbacks[watch]
                _LIBC.inotify_rm_watch(self._descriptor, watch)

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, _READ_BYTES)
        except BlockingIOError:
            return
        touched: set[int] = set()
        offset = 0
        while offset < len(data):
            watch, mask, _, name_bytes = _EVENT.unpack_from(data, offset)
            offset += _EVENT.size + name_bytes
            if mask & _IN_Q_OVERFLOW:
                touched.update(self._callbacks)
            touched.add(watch)
            if mask & _IN_IGNORED:
                self._notify(watch)
                self._callbacks.pop(watch, None)
        for watch in touched:
            self._notify(watch)

    def _notify(self, watch: int) -> None:
        for changed in tuple(self._callbacks.get(watch, ())):
            changed()


class DirectoryWatch:
    """One subscription."""

    def __init__(self, inotify: Inotify, watch: int, changed: Callable[[], None]) -> None:
        self._inotify = inotify
        self._watch = watch
        self._changed = changed

    def close(self) -> None:
        """Ends the subscription. Safe to repeat."""
        self._inotify.forget(self._watch, self._changed)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
