"""The launchers of this node: one connection for each launcher pod that may still run a guest.

Invariant: derived from the pods of the node alone; nothing is remembered across a restart.
"""

import asyncio
import re
from collections.abc import Callable, Iterable

from podvisor_common.aio.tasks import spawn
from podvisor_common.api import core
from podvisor_common.api.v1 import names
from podvisor_common.inotify import Inotify

from podvisor_handler.launchers.connection import LauncherConnection
from podvisor_handler.launchers.state import LauncherPod
from podvisor_handler.launchers.watch import SocketWatch
from podvisor_handler.linux.untrusted import untrusted_directory

# What the API server accepts as the name of a VirtualMachineInstance.
_OBJECT_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([-a-z0-9.]*[a-z0-9])?")

Subscriber = Callable[[LauncherConnection, bool], None]
"""Called with a connection whose state changed, and whether its pod has left."""


class LauncherRegistry:
    """Follows the launchers of the pods it is told about. `limited` is told the kernel's limit that makes it look for changes
    once a second instead of being told of them."""

    def __init__(
        self, pods_directory: str, limited: Callable[[str], None] = lambda _: None
    ) -> None:
        self.pods_directory = pods_directory
        self._connections: dict[str, LauncherConnection] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._subscribers: list[Subscriber] = []
        self._directory_subscribers: list[Callable[[], None]] = []
        self._inotify = Inotify(limited)
        self._group: asyncio.TaskGroup | None = None

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Calls `subscriber` on every change from now on; the result ends that."""
        self._subscribers.append(subscriber)
        return lambda: self._subscribers.remove(subscriber)

    def subscribe_directory(self, subscriber: Callable[[], None]) -> None:
        """Calls `subscriber` whenever the directory of a pod comes or goes."""
        self._directory_subscribers.append(subscriber)

    def of_pod(self, pod_uid: str) -> LauncherConnection | None:
        """The connection to the launcher of a pod."""
        return self._connections.get(pod_uid)

    def all(self) -> Iterable[LauncherConnection]:
        """All connections, in the order in which their pods came."""
        return tuple(self._connections.values())

    def pod_changed(self, old: core.Pod | None, new: core.Pod | None) -> None:
        """Takes note of a launcher pod of this node. Must run on the loop."""
        if old is not None and (new is None or new.metadata.uid != old.metadata.uid):
            self._forget(old.metadata.uid)
        if new is None:
            return
        known = self._connections.get(new.metadata.uid)
        if known is not None and new.is_terminal:
            self._stop(new.metadata.uid)
        elif known is not None:
            known.poke()
        elif not new.is_terminal and (pod := launcher_pod(new)) is not None:
            self._add(pod)

    async def run(self) -> None:
        """Keeps the connections, until it is cancelled."""
        with self._inotify:
            with untrusted_directory(self.pods_directory, "") as directory:
                self._inotify.watch_directory(directory, self._directory_changed)
            async with asyncio.TaskGroup() as group:
                self._group = group
                for connection in self._connections.values():
                    self._start(connection)
                await asyncio.Event().wait()

    def _directory_changed(self) -> None:
        for subscriber in self._directory_subscribers:
            subscriber()

    def _add(self, pod: LauncherPod) -> None:
        watch = SocketWatch(self._inotify, self.pods_directory, pod.uid)
        connection = LauncherConnection(pod, self.pods_directory, watch, self._announce)
        self._connections[pod.uid] = connection
        if self._group is not None:
            self._start(connection)
        self._announce(connection)

    def _start(self, connection: LauncherConnection) -> None:
        assert self._group is not None
        uid = connection.pod.uid
        self._tasks[uid] = spawn(self._group, connection.run(), name=f"launcher-{uid}")

    def _forget(self, pod_uid: str) -> None:
        self._stop(pod_uid)
        connection = self._connections.pop(pod_uid, None)
        if connection is not None:
            self._tell(connection, gone=True)

    def _stop(self, pod_uid: str) -> None:
        """Nothing in the pod will answer again; its last report stays."""
        task = self._tasks.pop(pod_uid, None)
        if task is not None:
            task.cancel()

    def _announce(self, connection: LauncherConnection) -> None:
        if self._connections.get(connection.pod.uid) is connection:
            self._tell(connection, gone=False)

    def _tell(self, connection: LauncherConnection, *, gone: bool) -> None:
        for subscriber in tuple(self._subscribers):
            subscriber(connection, gone)


def launcher_pod(pod: core.Pod) -> LauncherPod | None:
    """Whose launcher a pod carries; None when it does not say so completely.

    Anybody may have written it, and the names in it become names of files and lines of a log.
    """
    metadata = pod.metadata
    vmi_name = metadata.annotation(names.DOMAIN_ANNOTATION) or ""
    vmi_uid = metadata.label(names.CREATED_BY_LABEL)
    if metadata.label(names.APP_LABEL) != names.LAUNCHER_APP or not vmi_uid:
        return None
    if not _OBJECT_NAME.fullmatch(vmi_name):
        return None
    return LauncherPod(
        namespace=metadata.namespace,
        vmi_name=vmi_name,
        vmi_uid=vmi_uid,
        name=metadata.name,
        uid=metadata.uid,
    )
