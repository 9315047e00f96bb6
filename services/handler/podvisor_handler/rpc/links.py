"""Links by which people find the sockets of launchers: <namespace>_<name>.sock.

Invariant: the directory belongs to root alone, and the links lead to paths on the node. The handler
itself never follows them.
"""

import contextlib
import os
from pathlib import Path

from podvisor_handler.launchers.connection import LauncherConnection
from podvisor_handler.launchers.endpoint import SOCKET_NAME, SOCKETS_DIRECTORY
from podvisor_handler.launchers.registry import LauncherRegistry
from podvisor_handler.launchers.state import LauncherPod

_NAME_LIMIT = 250
NODE_PODS_DIRECTORY = "/var/lib/kubelet/pods"


class LauncherLinks:
    """Keeps the links in step with the registry."""

    def __init__(self, directory: Path, registry: LauncherRegistry) -> None:
        self._directory = directory
        self._registry = registry

    def start(self) -> None:
        """Makes the directory right and keeps it so. Call when the registry knows its pods."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        wanted = {link_name(c.pod): link_target(c.pod) for c in self._registry.all()}
        for entry in self._directory.iterdir():
            if entry.is_symlink() and wanted.get(entry.name) != os.readlink(entry):
                entry.unlink()
        for connection in self._registry.all():
            self._link(connection.pod)
        self._registry.subscribe(self._follow)

    def _follow(self, connection: LauncherConnection, gone: bool) -> None:
        if not gone:
            self._link(connection.pod)
            return
        path = self._directory / link_name(connection.pod)
        # A successor of the same name may have its link there already.
        with contextlib.suppress(FileNotFoundError):
            if os.readlink(path) == link_target(connection.pod):
                path.unlink()

    def _link(self, pod: LauncherPod) -> None:
        path, target = self._directory / link_name(pod), link_target(pod)
        if len(path.name) > _NAME_LIMIT:
            return
        if path.is_symlink() and os.readlink(path) == target:
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
