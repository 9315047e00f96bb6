"""Finds and authenticates the socket of a launcher.

Invariant: who listens is established by the kernel (peer credentials, control group), never by what
a message says, and the inode that was checked is the inode that is dialled.
"""

import os
import socket
import struct
from dataclasses import dataclass
from typing import Self

from podvisor_common.errors import Retryable

from podvisor_handler.linux.process import PinnedProcess, ProcessEnded
from podvisor_handler.linux.untrusted import untrusted_open_socket

SOCKETS_DIRECTORY = "volumes/kubernetes.io~empty-dir/sockets"
SOCKET_NAME = "launcher.sock"
_CREDENTIALS = struct.Struct("3i")


class LauncherUnreachable(Retryable):
    """Nobody answers on the socket. Says nothing about the guest: never a cause for Failed."""

    reason = "LauncherUnreachable"


@dataclass(frozen=True, slots=True)
class LauncherEndpoint:
    """An authenticated socket: its inode, the process that listens on it, and the control group of that one's container."""

    descriptor: int
    process: PinnedProcess
    container: str

    @property
    def path(self) -> str:
        """A path that can only mean this inode while the endpoint is open."""
        return f"/proc/self/fd/{self.descriptor}"

    @property
    def inode(self) -> tuple[int, int]:
        """Identity of the socket."""
        return inode_of(self.descriptor)

    def close(self) -> None:
        """Lets go of the inode and the process."""
        os.close(self.descriptor)
        self.process.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def untrusted_open_endpoint(pods_directory: str, pod_uid: str) -> LauncherEndpoint:
    """The authenticated socket of the launcher of a pod.

    Raises UntrustedPathMissing, UntrustedPathRefused, LauncherUnreachable, ProcessEnded or
    ForeignProcess.
    """
    relative = f"{pod_uid}/{SOCKETS_DIRECTORY}/{SOCKET_NAME}"
    descriptor = untrusted_open_socket(pods_directory, relative)
    try:
        process = _listener(f"/proc/self/fd/{descriptor}")
    except BaseException:
        os.close(descriptor)
        raise
    try:
        container = process.container_in_pod(pod_uid)
    except BaseException:
        os.close(descriptor)
        process.close()
        raise
    return LauncherEndpoint(descriptor, process, container)


def untrusted_inode(pods_directory: str, pod_uid: str) -> tuple[int, int]:
    """Identity of the socket that a pod shows now. Raises as untrusted_open_socket."""
    relative = f"{pod_uid}/{SOCKETS_DIRECTORY}/{SOCKET_NAME}"
    descriptor = untrusted_open_socket(pods_directory, relative)
    try:
        return inode_of(descriptor)
    finally:
        os.close(descriptor)


def inode_of(descriptor: int) -> tuple[int, int]:
    """Device and inode number behind a descriptor."""
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino


def _listener(path: str) -> PinnedProcess:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(path)
            raw = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        except OSError as error:
            raise LauncherUnreachable(f"cannot connect: {error.strerror}") from error
    pid, _, _ = _CREDENTIALS.unpack(raw)
    if pid <= 0:
        raise ProcessEnded("the listener is not in a process namespace that the handler sees")
    return PinnedProcess.open(pid)
