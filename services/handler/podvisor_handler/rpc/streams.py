"""The byte streams of HandlerService: serial console, screen, ports."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from typing import Any, TypeAlias, TypeVar

import grpc
from podvisor.domain.v1 import domain_pb2
from podvisor.handler.v1 import handler_pb2 as pb
from podvisor.handler.v1 import handler_pb2_grpc
from podvisor_common.kube.client import KubeClient
from podvisor_common.rpc.errors import FailedPrecondition, InvalidArgument, ResourceExhausted

from podvisor_handler.launchers.connection import LauncherConnection
from podvisor_handler.launchers.state import Connection
from podvisor_handler.rpc.machines import Machines
from podvisor_handler.streams.ports import address_of, dial_tcp, relay_udp
from podvisor_handler.streams.relay import relay
from podvisor_handler.streams.sessions import SessionDisplaced, Sessions
from podvisor_handler.streams.sockets import (
    CONSOLE_SOCKET,
    VNC_SOCKET,
    untrusted_connect_device,
)

_OPENING_TIMEOUT_S = 5.0
STREAMS_OF_A_MACHINE = 64
_MAX_PORT = 65535

_Context: TypeAlias = "grpc.aio.ServicerContext[object, object]"
_Request = TypeVar("_Request", pb.OpenConsoleRequest, pb.OpenVncRequest, pb.ForwardPortRequest)


class StreamServicer(handler_pb2_grpc.HandlerServiceServicer):
    """The methods are documented in handler.proto."""

    def __init__(self, machines: Machines, client: KubeClient) -> None:
        self._machines = machines
        self._client = client
        self._sessions = Sessions()
        self._open: Counter[str] = Counter()  # streams of each machine, by the UID of its pod

    async def OpenConsole(
        self, request_iterator: AsyncIterator[pb.OpenConsoleRequest], context: _Context
    ) -> AsyncIterator[pb.OpenConsoleResponse]:
        opening = (await _first(request_iterator)).opening
        machine = self._machines.find(opening.reference)
        incoming = _data(request_iterator)
        async with aclosing(
            self._device(machine, CONSOLE_SOCKET, incoming, preserve=False)
        ) as pieces:
            async for piece in pieces:
                yield pb.OpenConsoleResponse(data=piece)

    async def OpenVnc(
        self, request_iterator: AsyncIterator[pb.OpenVncRequest], context: _Context
    ) -> AsyncIterator[pb.OpenVncResponse]:
        opening = (await _first(request_iterator)).opening
        machine = self._machines.find(opening.reference)
        incoming, preserve = _data(request_iterator), opening.preserve_session
        async with aclosing(
            self._device(machine, VNC_SOCKET, incoming, preserve=preserve)
        ) as pieces:
            async for piece in pieces:
                yield pb.OpenVncResponse(data=piece)

    async def ForwardPort(
        self, request_iterator: AsyncIterator[pb.ForwardPortRequest], context: _Context
    ) -> AsyncIterator[pb.ForwardPortResponse]:
        opening = (await _first(request_iterator)).opening
        if not 1 <= opening.port <= _MAX_PORT:
            raise InvalidArgument(f"{opening.port} is no port")
        machine = self._machines.find(opening.reference)
        incoming = _data(request_iterator)
        is_udp = opening.protocol == pb.PORT_PROTOCOL_UDP
        ways = relay_udp if is_udp else _relay_tcp
        with self._room(machine):
            _check_runs(machine)
            address = await address_of(self._client, machine.pod)
            async with aclosing(ways(incoming, address, opening.port)) as pieces:
                async for piece in pieces:
                    if not piece:
                        # With its pod its address may have gone to somebody else meanwhile.
                        _check_runs(machine)
                    yield pb.ForwardPortResponse(data=piece)

    async def _device(
        self,
        machine: LauncherConnection,
        socket: str,
        incoming: AsyncIterator[bytes],
        *,
        preserve: bool,
    ) -> AsyncGenerator[bytes, None]:
        uid = machine.pod.uid
        with self._room(machine):
            async with self._sessions.enter((uid, socket), preserve=preserve) as session:
                directory = self._machines.pods_directory
                reader, writer = await untrusted_connect_device(directory, uid, socket)
                session.hang_up = writer.transport.abort
                if session.is_displaced:
                    writer.transport.abort()
                yield b""
                async with aclosing(relay(incoming, reader, writer, half_close=False)) as pieces:
                    async for piece in pieces:
                        yield piece
                if session.is_displaced:
                    raise SessionDisplaced("Somebody else has connected.")

    @contextmanager
    def _room(self, machine: LauncherConnection) -> Iterator[None]:
        """A place among the machine's streams, of which it cannot have so many that others have none. Raises ResourceExhausted."""
        uid = machine.pod.uid
        if self._open[uid] >= STREAMS_OF_A_MACHINE:
            raise ResourceExhausted(
                f"the machine has {STREAMS_OF_A_MACHINE} streams open, which is as many as it can have",
                reason="TooManyStreams",
            )
        self._open[uid] += 1
        try:
            yield
        finally:
            self._open[uid] -= 1
            if not self._open[uid]:
                del self._open[uid]


def _check_runs(machine: LauncherConnection) -> None:
    """Raises FailedPrecondition for a guest that is paused or does not run, as its launcher says, which is there."""
    state = machine.report.state if machine.report is not None else None
    if state == domain_pb2.DOMAIN_STATE_PAUSED:
        raise FailedPrecondition("The guest is paused.", reason="AlreadyPaused")
    is_there = machine.state is Connection.CONNECTED
    if not is_there or state != domain_pb2.DOMAIN_STATE_RUNNING:
        raise FailedPrecondition("The guest does not run.", reason="NotRunning")


async def _relay_tcp(
    incoming: AsyncIterator[bytes], address: str, port: int
) -> AsyncGenerator[bytes, None]:
    reader, writer = await dial_tcp(address, port)
    yield b""
    async with aclosing(relay(incoming, reader, writer, half_close=True)) as pieces:
        async for piece in pieces:
            yield piece


async def _first(requests: AsyncIterator[_Request]) -> _Request:
    """The opening. Raises InvalidArgument."""
    try:
        async with asyncio.timeout(_OPENING_TIMEOUT_S):
            request = await anext(requests, None)
    except TimeoutError:
        request = None
    if request is None or request.WhichOneof("part") != "opening":
        raise InvalidArgument("a stream begins with its opening", reason="NoOpening")
    return request


async def _data(requests: AsyncIterator[Any]) -> AsyncGenerator[bytes, None]:
    async for request in requests:
        yield request.data
