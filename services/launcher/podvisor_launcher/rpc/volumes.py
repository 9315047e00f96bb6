"""The socket on which volumes are handed over, as VolumeHandover in launcher.proto says: one message with one descriptor.

Invariants: one connection at a time, and none for long; nobody but root and this user is heard; a descriptor that is not passed
on is closed.
"""

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import structlog
from google.protobuf.message import DecodeError
from podvisor.launcher.v1 import launcher_pb2 as pb

_log = structlog.stdlib.get_logger(__name__)

# Disk, capacity, descriptor, which is the callee's from then on. Returns why it is not taken; empty if it is.
TakeVolume = Callable[[str, int, int], str]

_TIMEOUT_S = 5.0
_MESSAGE_LIMIT_BYTES = 4096
_DESCRIPTORS_LIMIT = 4  # one is right; of more, the kernel closes the rest
_BACKLOG = 4
_CREDENTIALS = struct.Struct("3i")


async def serve_volumes(path: Path, take: TakeVolume) -> None:
    """Listen at `path` until cancelled. A socket that is there is a dead predecessor's."""
    unpublished = path.with_name(f".{path.name}")
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as listener:
        unpublished.unlink(missing_ok=True)
        listener.bind(str(unpublished))
        listener.listen(_BACKLOG)
        unpublished.rename(path)
        while True:
            connection, _ = await loop.sock_accept(listener)
            with connection:
                try:
                    async with asyncio.timeout(_TIMEOUT_S):
                        await _meet(connection, take)
                except (OSError, TimeoutError) as error:
                    _log.info("nothing was handed over", error=str(error))


async def _meet(connection: socket.socket, take: TakeVolume) -> None:
    if not _is_heard(connection):
        return
    message, descriptors = await _received(connection)
    if not message and not descriptors:
        return  # somebody looked who is here
    receipt = _receipt(message, descriptors, take)
    await asyncio.get_running_loop().sock_sendall(connection, receipt.SerializeToString())


def _is_heard(connection: socket.socket) -> bool:
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _pid, uid, _gid = _CREDENTIALS.unpack(raw)
    return uid in (0, os.getuid())


async def _received(connection: socket.socket) -> tuple[bytes, list[int]]:
    loop = asyncio.get_running_loop()
    readable = loop.create_future()

    def ready() -> None:
        if not readable.done():
            readable.set_result(None)

    loop.add_reader(connection, ready)
    try:
        await readable
    finally:
        loop.remove_reader(connection)
    flags = socket.MSG_CMSG_CLOEXEC
    message, descriptors, _, _ = socket.recv_fds(
        connection, _MESSAGE_LIMIT_BYTES, _DESCRIPTORS_LIMIT, flags
    )
    return message, list(descriptors)


def _receipt(message: bytes, descriptors: list[int], take: TakeVolume) -> pb.VolumeReceipt:
    try:
        said = pb.VolumeHandover.FromString(message)
        if len(descriptors) != 1:
            return pb.VolumeReceipt(message="Exactly one open file makes a volume.")
        why_not = take(said.disk, said.capacity_bytes, descriptors.pop())
    except DecodeError:
        return pb.VolumeReceipt(message="The message cannot be read.")
    finally:
        for descriptor in descriptors:
            with suppress(OSError):
                os.close(descriptor)
    return pb.VolumeReceipt(taken=not why_not, message=why_not)
