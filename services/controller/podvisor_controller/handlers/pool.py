"""Connections to handlers: opened when somebody asks for a node, shared, and closed when nobody has for a while.

    async with handlers.on("node1") as handler:
        await call(handler.GetDomain, request, timeout_s=5)

Invariants: there are never more connections than the limit; one that is in use is never closed, whatever changes meanwhile; a server
that does not prove to be the handler of the node gets not one request.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from podvisor.handler.v1 import handler_pb2_grpc
from podvisor_common.errors import Retryable, Terminal
from podvisor_common.rpc.client import call
from podvisor_common.rpc.errors import RpcError, Unavailable, from_status
from podvisor_common.rpc.tcp import Credentials, tls_channel
from podvisor_common.tls.identities import BadNodeName, handler_of

LIMIT = 256
IDLE_S = 300.0
CONNECT_WITHIN_S = 5.0

_log = structlog.stdlib.get_logger(__name__)


class NodeUnknown(Terminal):
    """There is no such node."""

    reason = "NodeUnknown"


class HandlerUnreachable(Retryable):
    """The handler of a node does not answer now, or somebody else does in its place. Says nothing about the guests there."""

    reason = "HandlerUnreachable"


class TooManyConnections(Retryable):
    """Connections to so many handlers are in use that there is no room for another one."""

    reason = "TooManyConnections"


@dataclass(slots=True, eq=False)
class _Connection:
    """One channel, and what it was opened with."""

    node: str
    address: str
    credentials: Credentials
    channel: grpc.aio.Channel
    users: int = 0
    idle_since_s: float = 0.0
    stub: "handler_pb2_grpc.HandlerServiceAsyncStub" = field(init=False)

    def __post_init__(self) -> None:
        self.stub = handler_pb2_grpc.HandlerServiceStub(self.channel)

    def is_fit(self, address: str, credentials: Credentials) -> bool:
        """Whether a connection that is opened now would be the same."""
        return self.address == address and self.credentials is credentials


class Handlers:
    """The pool. `address_of` tells where to try for a node's handler, `is_node` whether there is such a node at all."""

    def __init__(
        self,
        *,
        address_of: Callable[[str], str | None],
        is_node: Callable[[str], bool],
        credentials: Callable[[], Credentials],
        limit: int = LIMIT,
        idle_s: float = IDLE_S,
    ) -> None:
        self._address_of = address_of
        self._is_node = is_node
        self._credentials = credentials
        self._limit = limit
        self._idle_s = idle_s
        # Those that are used least recently come first.
        self._connections: dict[str, _Connection] = {}
        # No more of these is given out.
        self._retired: list[_Connection] = []
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Close what nobody uses any more, until cancelled; then close everything."""
        try:
            while True:
                self._changed.clear()
                await self._close_unused()
                try:
                    async with asyncio.timeout(self._idle_s / 2):
                        await self._changed.wait()
                except TimeoutError:
                    continue
        finally:
            left = [*self._connections.values(), *self._retired]
            self._connections.clear()
            self._retired.clear()
            for connection in left:
                await connection.channel.close()

    @asynccontextmanager
    async def on(self, node: str) -> "AsyncIterator[handler_pb2_grpc.HandlerServiceAsyncStub]":
        """The handler of a node, connected, for as long as the block lasts.

        Raises NodeUnknown, HandlerUnreachable, TooManyConnections and NoCredentials; HandlerUnreachable also where the connection is
        lost in the block. What the handler itself answers passes as it is.
        """
        connection = self._connection(node)
        connection.users += 1
        try:
            await self._connect(connection)
            yield connection.stub
        except (RpcError, grpc.aio.AioRpcError) as error:
            if (said := _said_of_transport(error)) is None:
                raise
            raise HandlerUnreachable(
                f"the handler of node {node} is not reached: {said}"
            ) from error
        finally:
            connection.users -= 1
            connection.idle_since_s = asyncio.get_running_loop().time()
            if connection.users == 0 and connection in self._retired:
                self._changed.set()

    def _connection(self, node: str) -> _Connection:
        credentials, address = self._credentials(), self._address_of(node)
        if address is None:
            if not self._is_node(node):
                raise NodeUnknown(f"there is no node {node}")
            raise HandlerUnreachable(f"no handler runs on node {node}")
        known = self._connections.pop(node, None)
        if known is not None and not known.is_fit(address, credentials):
            self._retire(known)
            known = None
        if known is None:
            self._make_room()
            known = _open(node, address, credentials)
        self._connections[node] = known
        return known

    async def _connect(self, connection: _Connection) -> None:
        try:
            await _ensure_connected(connection)
        except HandlerUnreachable:
            # It would go on failing for a while without another attempt: whoever asks next is to have one.
            if self._connections.get(connection.node) is connection:
                self._retire(self._connections.pop(connection.node))
            raise

    def _retire(self, connection: _Connection) -> None:
        self._retired.append(connection)
        self._changed.set()

    def _make_room(self) -> None:
        in_use = sum(connection.users > 0 for connection in self._retired)
        if len(self._connections) + in_use < self._limit:
            return
        unused = next((one for one in self._connections.values() if one.users == 0), None)
        if unused is None:
            raise TooManyConnections(f"{self._limit} connections to handlers are in use")
        self._retire(self._connections.pop(unused.node))

    async def _close_unused(self) -> None:
        long_ago_s = asyncio.get_running_loop().time() - self._idle_s
        for connection in list(self._connections.values()):
            if connection.users == 0 and connection.idle_since_s <= long_ago_s:
                self._retired.append(self._connections.pop(connection.node))
        unused = [connection for connection in self._retired if connection.users == 0]
        self._retired = [connection for connection in self._retired if connection.users > 0]
        for connection in unused:
            await connection.channel.close()
            _log.debug("connection to a handler closed", node=connection.node)


def _open(node: str, address: str, credentials: Credentials) -> _Connection:
    try:
        name = handler_of(node)
    except BadNodeName as error:
        raise NodeUnknown(str(error)) from error
    channel = tls_channel(
        address,
        server_name=name,
        authorities=credentials.authorities or b"",
        pair=credentials.pair,
    )
    return _Connection(node, address, credentials, channel)


async def _ensure_connected(connection: _Connection) -> None:
    """Where it is not connected, one small question shows whether it can be and, if not, why."""
    if connection.channel.get_state() is grpc.ChannelConnectivity.READY:
        return
    health = health_pb2_grpc.HealthStub(connection.channel)
    try:
        await call(health.Check, health_pb2.HealthCheckRequest(), timeout_s=CONNECT_WITHIN_S)
    except RpcError as error:
        raise HandlerUnreachable(
            f"the handler of node {connection.node} at {connection.address} does not answer: {error.message}"
        ) from error


def _said_of_transport(error: RpcError | grpc.aio.AioRpcError) -> str | None:
    """What the transport says of a lost connection; None for what is the handler's own answer, which has a reason."""
    known = error if isinstance(error, RpcError) else from_status(error)
    is_lost = isinstance(known, Unavailable) and known.reason == Unavailable.reason
    return known.message if is_lost else None
