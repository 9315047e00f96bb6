"""The socket on which native/probe.c brings the kubelet's probes of the guest: a SOCK_SEQPACKET message each way.

Invariants: nobody but root and this user is heard; few are heard at a time, and none for longer than it says itself.
"""

import asyncio
import os
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from podvisor_launcher.lifecycle.guest_probes import GuestProbes, Verdict

_log = structlog.stdlib.get_logger(__name__)

_QUESTION_TIMEOUT_S = 5.0
_TIMEOUT_MAX_S = 86_400
# As in native/probe.c.
_QUESTION_LIMIT_BYTES = 65_536
_ANSWER_LIMIT_BYTES = 2048
# Readiness and liveness, and one of each that was given up.
_AT_ONCE = 4
_ACCEPT_PAUSE_S = 1.0
_CREDENTIALS = struct.Struct("3i")


@dataclass(frozen=True, slots=True)
class Question:
    """A probe as it is asked for. No command for a ping."""

    timeout_s: int
    command: tuple[str, ...] = ()


class NoQuestion(Exception):
    """The message is none."""


async def serve_probes(path: Path, probes: GuestProbes) -> None:
    """Listen at `path` until cancelled. A socket that is there is a dead predecessor's."""
    unpublished = path.with_name(f".{path.name}")
    free = asyncio.Semaphore(_AT_ONCE)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as listener:
        unpublished.unlink(missing_ok=True)
        listener.bind(str(unpublished))
        listener.listen(_AT_ONCE)
        unpublished.rename(path)
        async with asyncio.TaskGroup() as group:
            while True:
                await free.acquire()
                connection = await _accepted(listener)
                group.create_task(_meet(connection, probes, free), name="probe")


async def _accepted(listener: socket.socket) -> socket.socket:
    """The next that comes; where there is no descriptor for it, a little later."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            connection, _ = await loop.sock_accept(listener)
        except OSError as error:
            _log.warning("no probe can be taken now", error=str(error))
            await asyncio.sleep(_ACCEPT_PAUSE_S)
        else:
            return connection


async def _meet(connection: socket.socket, probes: GuestProbes, free: asyncio.Semaphore) -> None:
    loop = asyncio.get_running_loop()
    try:
        with connection:
            if not _is_heard(connection):
                return
            async with asyncio.timeout(_QUESTION_TIMEOUT_S):
                message = await loop.sock_recv(connection, _QUESTION_LIMIT_BYTES)
            if not message:
                return  # somebody looked who is here
            verdict = await _verdict(message, probes)
            await loop.sock_sendall(connection, written(verdict))
    except (OSError, TimeoutError) as error:  # whoever asked has gone
        _log.debug("a probe was not answered", error=str(error))
    finally:
        free.release()


async def _verdict(message: bytes, probes: GuestProbes) -> Verdict:
    try:
        question = parsed(message)
    except NoQuestion:
        return Verdict(False, "the launcher does not understand the probe")
    if question.command:
        return await probes.execute(question.command, question.timeout_s)
    return await probes.ping(question.timeout_s)


def parsed(message: bytes) -> Question:
    """The probe that is asked for. Raises NoQuestion."""
    with suppress(ValueError):
        timeout, kind, *command = message.decode().removesuffix("\0").split("\0")
        timeout_s = int(timeout)
        is_whole = bool(command) if kind == "exec" else kind == "ping" and not command
        if is_whole and 1 <= timeout_s <= _TIMEOUT_MAX_S:
            return Question(timeout_s, tuple(command))
    raise NoQuestion


def written(verdict: Verdict) -> bytes:
    """The answer."""
    words = verdict.message.encode()[: _ANSWER_LIMIT_BYTES - 1]
    return (b"0" if verdict.success else b"1") + words


def _is_heard(connection: socket.socket) -> bool:
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _pid, uid, _gid = _CREDENTIALS.unpack(raw)
    return uid in (0, os.getuid())
