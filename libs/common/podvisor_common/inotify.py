"""inotify on the running event loop.

Invariant: a subscriber learns that something under its directory may have changed, not what: it
looks again itself, so that a lost or merged notification (queue overflow) costs nothing. Where the
kernel's limit is reached it is told so once a second, until there is a watch to be had.
"""

import asyncio
import contextlib
import ctypes
import errno
import os
import struct
from collections.abc import Callable
from typing import Self

import structlog

_LIBC = ctypes.CDLL(None, use_errno=True)
_EVENT = struct.Struct("iIII")
_READ_BYTES = 64 * 1024
_LOOK_INTERVAL_S = 1.0
_LIMITS = {
    errno.EMFILE: "user.max_inotify_instances",
    errno.ENFILE: "fs.file-max",
    errno.ENOSPC: "user.max_inotify_watches",
    errno.ENOMEM: "memory",
}

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


_log = structlog.get_logger(__name__)


class InotifyLimit(OSError):
    """The kernel gives no instance or no watch more. The text names the limit."""


class Inotify:
    """One inotify instance; many directories, each with any number of subscribers.

    `limited` is told the name of a limit when it is found to be reached.
    """

    def __init__(self, limited: Callable[[str], None] = lambda _: None) -> None:
        self._limited = limited
        self._descriptor = -1
        self._callbacks: dict[int, list[Callable[[], None]]] = {}
        self._without: dict[DirectoryWatch, int] = {}  # with descriptors of their directories
        self._next_look: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        with contextlib.suppress(InotifyLimit):
            self._open()
        return self

    def __exit__(self, *_: object) -> None:
        if self._next_look is not None:
            self._next_look.cancel()
        for descriptor in self._without.values():
            os.close(descriptor)
        self._without.clear()
        if self._descriptor >= 0:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1
        self._callbacks.clear()

    def watch_directory(self, descriptor: int, changed: Callable[[], None]) -> "DirectoryWatch":
        """Calls `changed` on the loop whenever an entry of the directory comes, goes or is renamed.

        `descriptor` is open on the directory (O_PATH is enough) and may be closed afterwards.
        Raises OSError.
        """
        watch = DirectoryWatch(self, changed)
        try:
            self._add(watch, descriptor)
        except InotifyLimit as error:
            if not self._without:
                _log.warning("no inotify watch to be had, looking once a second", limit=str(error))
                self._limited(str(error))
            self._without[watch] = os.dup(descriptor)
            self._look_later()
        return watch

    def forget(self, watch: "DirectoryWatch") -> None:
        """Ends one subscription; the kernel's watch goes with the last one. Safe to repeat."""
        if (descriptor := self._without.pop(watch, None)) is not None:
            os.close(descriptor)
        callbacks = self._callbacks.get(watch.number, [])
        if watch.changed in callbacks:
            callbacks.remove(watch.changed)
            if not callbacks:
                del self._callbacks[watch.number]
                _LIBC.inotify_rm_watch(self._descriptor, watch.number)

    def _open(self) -> None:
        self._descriptor = _checked(_LIBC.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))
        asyncio.get_running_loop().add_reader(self._descriptor, self._read)

    def _add(self, watch: "DirectoryWatch", descriptor: int) -> None:
        if self._descriptor < 0:
            self._open()
        path = os.fsencode(f"/proc/self/fd/{descriptor}")
        number = _checked(_LIBC.inotify_add_watch(self._descriptor, path, _DIRECTORY_CHANGED))
        watch.number = number
        self._callbacks.setdefault(number, []).append(watch.changed)

    def _look_later(self) -> None:
        if self._next_look is None:
            loop = asyncio.get_running_loop()
            self._next_look = loop.call_later(_LOOK_INTERVAL_S, self._look)

    def _look(self) -> None:
        """Something may have happened in every directory that has no watch; now there may be one to be had."""
        self._next_look = None
        without = dict(self._without)
        for watch, descriptor in without.items():
            with contextlib.suppress(OSError):
                self._add(watch, descriptor)
                del self._without[watch]
                os.close(descriptor)
        for watch in without:
            watch.changed()
        if self._without:
            self._look_later()
        else:
            _log.info("all directories are watched by inotify again")

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

    def __init__(self, inotify: Inotify, changed: Callable[[], None]) -> None:
        self._inotify = inotify
        self.changed = changed
        self.number = -1  # the kernel's

    def close(self) -> None:
        """Ends the subscription. Safe to repeat."""
        self._inotify.forget(self)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        if number in _LIMITS:
            raise InotifyLimit(_LIMITS[number])
        raise OSError(number, os.strerror(number))
    return result
