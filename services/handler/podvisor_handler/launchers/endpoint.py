"""Finds and authenticates the sockets of pods: those of launchers, and of what holds volumes for them.

Invariant: who listens is established by the kernel (peer credentials, control group), never by what
a message says, and the inode that was checked is the inode that is dialled.
"""

import os
import socket
import struct
from dataclasses import dataclass
from typing import Self

from podvisor_common.errors import Retryable

from podvisor_handler.linux.process import ForeignProcess, PinnedProcess, ProcessEnded
from podvisor_handler.linux.untrusted import untrusted_open_socket

SOCKETS_DIRECTORY = "volumes/kubernetes.io~empty-dir/sockets"
SOCKET_NAME = "launcher.sock"
VOLUMES_SOCKET_NAME = "volumes.sock"  # beside it; takes open files
HOLDER_SOCKET_NAME = "holder.sock"  # of a pod that holds a volume
_CREDENTIALS = struct.Struct("3i")


class LauncherUnreachable(Retryable):
    """Nobody answers on the socket. Says nothing about the guest: never a cause for Failed."""

    reason = "LauncherUnreachable"


@dataclass(frozen=True, slots=True)
class Endpoint:
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


def untrusted_open_endpoint(
    pods_directory: str, pod_uid: str, socket_name: str = SOCKET_NAME
) -> Endpoint:
    """The authenticated socket of a pod, by default of the launcher in it.

    Raises UntrustedPathMissing, UntrustedPathRefused, LauncherUnreachable, ProcessEnded or
    ForeignProcess.
    """
    relative = f"{pod_uid}/{SOCKETS_DIRECTORY}/{socket_name}"
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
    return Endpoint(descriptor, process, container)


def untrusted_inode(pods_directory: str, pod_uid: str) -> tuple[int, int]:
    """Identity of the socket that a pod shows now. Raises as untrusted_open_socket."""
    relative = f"{pod_uid}/{SOCKETS_DIRECTORY}/{SOCKET_NAME}"
    descriptor = untrusted_open_socket(pods_directory, relative)
    try:
        return inode_of(descriptor)
    finally:
        os.close(descriptor)


def untrusted_connect(
    pods_directory: str,
    pod_uid: str,
    socket_name: str,
    process: PinnedProcess,
    *,
    timeout_s: float,
) -> socket.socket:
    """A connection for messages (SOCK_SEQPACKET) to a socket of a pod on which `process` listens. Each step of it takes no longer
    than `timeout_s`. The caller closes it.

    Raises UntrustedPathMissing, UntrustedPathRefused, LauncherUnreachable, ProcessEnded or ForeignProcess.
    """
    relative = f"{pod_uid}/{SOCKETS_DIRECTORY}/{socket_name}"
    descriptor = untrusted_open_socket(pods_directory, relative)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.settimeout(timeout_s)
        if _dial(connection, f"/proc/self/fd/{descriptor}") != process.pid:
            raise ForeignProcess(f"{socket_name} is another process's than {process.pid}")
        process.check_alive()
    except BaseException:
        connection.close()
        raise
    finally:
        os.close(descriptor)
    return connection


def inode_of(descriptor: int) -> tuple[int, int]:
    """Device and inode number behind a descriptor."""
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino


def _listener(path: str) -> PinnedProcess:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        pid = _dial(probe, path)
    if pid <= 0:
        raise ProcessEnded("the listener is not in a process namespace that the handler sees")
    return PinnedProcess.open(pid)


def _dial(connection: socket.socket, path: str) -> int:
    """Connects. Who listens, as the kernel says; 0 where it is nobody that the handler sees."""
    try:
        connection.connect(path)
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    except OSError as error:
        raise LauncherUnreachable(f"cannot connect: {error.strerror or error}") from error
    pid: int
    pid, _, _ = _CREDENTIALS.unpack(raw)
    return pid
