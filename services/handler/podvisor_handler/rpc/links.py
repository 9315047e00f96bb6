"""Links by which people find the sockets of launchers: <namespace>_<name>.sock.

Invariant: the directory belongs to root alone, and the links lead to paths on the node. The handler
itself never follows them, and does without those that it cannot make.
"""

import asyncio
import os
from pathlib import Path

import structlog

from podvisor_handler.launchers.endpoint import SOCKET_NAME, SOCKETS_DIRECTORY
from podvisor_handler.launchers.registry import LauncherRegistry
from podvisor_handler.launchers.state import LauncherPod

_NAME_LIMIT = 250
_RETRY_S = 5.0
_AT_ONCE = 25
NODE_PODS_DIRECTORY = "/var/lib/kubelet/pods"

_log = structlog.get_logger(__name__)


class LauncherLinks:
    """Keeps the links in step with the registry."""

    def __init__(self, directory: Path, registry: LauncherRegistry) -> None:
        self._directory = directory
        self._registry = registry
        # Names whose link could not be made right.
        self._due: set[str] = set()

    async def run(self) -> None:
        """Makes the directory right and keeps it so. Start it when the registry knows its pods."""
        unsubscribe = self._registry.subscribe(
            lambda connection, _: self._settle(link_name(connection.pod))
        )
        try:
            await self._begin()
            while True:
                await asyncio.sleep(_RETRY_S)
                for name in tuple(self._due):
                    self._settle(name)
        finally:
            unsubscribe()

    async def _begin(self) -> None:
        while True:
            try:
                self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                await self._settle_all()
            except OSError as error:
                _log.warning("no directory for links to launchers", error=str(error))
                await asyncio.sleep(_RETRY_S)
            else:
                return

    async def _settle_all(self) -> None:
        """Those of machines that are long gone may be many: they hold up nobody, and are never all in memory."""
        wanted = {link_name(connection.pod) for connection in self._registry.all()}
        for name in wanted:
            self._settle(name)
        with os.scandir(self._directory) as entries:
            for count, entry in enumerate(entries, 1):
                if entry.name not in wanted:
                    self._settle(entry.name)
                if count % _AT_ONCE == 0:
                    await asyncio.sleep(0)

    def _settle(self, name: str) -> None:
        """The pod that came last has the link of its name; a link without a pod goes."""
        pods = [c.pod for c in self._registry.all() if link_name(c.pod) == name]
        path = self._directory / name
        try:
            if pods:
                _link(path, link_target(pods[-1]))
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            if not self._due:
                _log.warning("a launcher is not linked, tried again", link=name, error=str(error))
            self._due.add(name)
        else:
            self._due.discard(name)


def _link(path: Path, target: str) -> None:
    if len(path.name) > _NAME_LIMIT or (path.is_symlink() and os.readlink(path) == target):
        return
    temporary = path.with_name(f".{path.name}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.rename(path)


def link_name(pod: LauncherPod) -> str:
    """The name of a machine's link."""
    return f"{pod.namespace}_{pod.vmi_name}.sock"


def link_target(pod: LauncherPod) -> str:
    """Where the launcher's socket is on the node."""
    return f"{NODE_PODS_DIRECTORY}/{pod.uid}/{SOCKETS_DIRECTORY}/{SOCKET_NAME}"
