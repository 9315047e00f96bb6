"""Links by which people find the sockets of launchers: <namespace>_<name>.sock.

Invariant: the directory belongs to root alone, and the links lead to paths on the node. The handler
itself never follows them.
"""

import os
from pathlib import Path

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
        wanted = {link_name(connection.pod) for connection in self._registry.all()}
        for name in wanted | {entry.name for entry in self._directory.iterdir()}:
            self._settle(name)
        self._registry.subscribe(lambda connection, _: self._settle(link_name(connection.pod)))

    def _settle(self, name: str) -> None:
        """The pod that came last has the link of its name; a link without a pod goes."""
        pods = [c.pod for c in self._registry.all() if link_name(c.pod) == name]
        path = self._directory / name
        if pods:
            _link(path, link_target(pods[-1]))
        else:
            path.unlink(missing_ok=True)


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
