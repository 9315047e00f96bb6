"""Connections to the sockets that a guest's QEMU serves in its pod.

Invariant: the socket is the one in the pod's own directory, whatever the pod makes of that directory. Who listens is not asked: what the
pod puts there, it puts there for those who may see its guest, and libvirt binds one of them for QEMU and may be gone.
"""

import asyncio
import os

from podvisor_common.errors import Terminal

from podvisor_handler.launchers.endpoint import SOCKETS_DIRECTORY, LauncherUnreachable
from podvisor_handler.linux.untrusted import (
    UntrustedPathMissing,
    UntrustedPathRefused,
    untrusted_open_socket,
)
from podvisor_handler.streams.relay import BUFFER_BYTES

CONSOLE_SOCKET = "serial0.sock"
VNC_SOCKET = "vnc.sock"
_CONNECT_TIMEOUT_S = 5.0

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class NoSuchDevice(Terminal):
    """The guest has no such device, or not yet."""

    reason = "NoSuchDevice"


async def untrusted_connect_device(pods_directory: str, pod_uid: str, name: str) -> Streams:
    """A connection to the socket of that name. Raises NoSuchDevice, and LauncherUnreachable where nobody serves it."""
    try:
        inode = untrusted_open_socket(pods_directory, f"{pod_uid}/{SOCKETS_DIRECTORY}/{name}")
    except (UntrustedPathMissing, UntrustedPathRefused) as error:
        raise NoSuchDevice("The guest does not have it, or has not started.") from error
    try:
        async with asyncio.timeout(_CONNECT_TIMEOUT_S):
            return await asyncio.open_unix_connection(
                f"/proc/self/fd/{inode}", limit=BUFFER_BYTES // 2
            )
    except (OSError, TimeoutError) as error:
        raise LauncherUnreachable("nobody serves it at the moment") from error
    finally:
        os.close(inode)
