"""Waits for the socket of a pod to appear or to be replaced, without polling.

Invariant: a watch lies on the deepest directory of the socket's path that exists, and it lies there
before anybody looks for the socket, so no appearance is missed.
"""

import asyncio

from podvisor_common.inotify import DirectoryWatch, Inotify

from podvisor_handler.launchers.endpoint import SOCKETS_DIRECTORY
from podvisor_handler.linux.untrusted import UntrustedPathMissing, untrusted_directory


class SocketWatch:
    """Tells when it is worth looking for a pod's socket again."""

    def __init__(self, inotify: Inotify, pods_directory: str, pod_uid: str) -> None:
        self._inotify = inotify
        self._root = pods_directory
        self._path = f"{pod_uid}/{SOCKETS_DIRECTORY}".split("/")
        self._changed = asyncio.Event()
        self._watch: DirectoryWatch | None = None
        self._depth = -1

    def arm(self) -> None:
        """Forgets what has happened so far. Call before looking for the socket."""
        self._changed.clear()
        while self._place() < len(self._path) and self._exists(self._depth + 1):
            pass

    def poke(self) -> None:
        """Something outside the directory suggests to look again."""
        self._changed.set()

    async def wait(self) -> None:
        """Returns when something happened since arm()."""
        await self._changed.wait()

    def close(self) -> None:
        """Ends the watch. Safe to repeat."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def _place(self) -> int:
        for depth in range(len(self._path), -1, -1):
            try:
                with untrusted_directory(self._root, "/".join(self._path[:depth])) as directory:
                    watch = self._inotify.watch_directory(directory, self._changed.set)
            except UntrustedPathMissing:
                continue
            self.close()
            self._watch, self._depth = watch, depth
            return depth
        raise UntrustedPathMissing(f"{self._root} does not exist")

    def _exists(self, depth: int) -> bool:
        try:
            with untrusted_directory(self._root, "/".join(self._path[:depth])):
                return True
        except UntrustedPathMissing:
            return False
