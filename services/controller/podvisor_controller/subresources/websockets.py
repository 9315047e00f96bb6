"""Websockets of clients, and the byte streams of guests that they are for.

Raw bytes in binary messages, subprotocol `plain.kubevirt.io` where the client offers it; the end of a stream is a close frame. Invariants:
nothing is read on either way that the other side does not take, so a slow reader costs no memory; a client that is silent is pinged, so
that no proxy takes the connection for idle; when either end goes, so does the other, and what was sent before that still arrives.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import structlog
from aiohttp import WSCloseCode, WSMsgType, web
from podvisor_common.rpc.errors import RpcError

PROTOCOLS = ("plain.kubevirt.io",)
PING_EVERY_S = 10.0
# A client that is stopped, as by ^Z, answers no ping; one that is gone never will.
UNHEARD_S = 600.0
# What the guest still gets after its client has said the last.
LINGER_S = 10.0
MESSAGE_LIMIT_BYTES = 4 << 20
PIECE_BYTES = 64 * 1024

_log = structlog.stdlib.get_logger(__name__)


class Guest:
    """The guest's end: `read` returns None at its end, `write` and `end` (no more comes) wait for as long as it makes them."""

    def __init__(
        self,
        read: Callable[[], Awaitable[bytes | None]],
        write: Callable[[bytes], Awaitable[None]],
        end: Callable[[], Awaitable[None]],
    ) -> None:
        self.read = read
        self.write = write
        self.end = end


def check_upgrade(request: web.Request) -> None:
    """Raises HTTPBadRequest for a request that cannot become a websocket."""
    if not web.WebSocketResponse(protocols=PROTOCOLS).can_prepare(request):
        raise web.HTTPBadRequest(
            reason="this is a websocket: the request asks for no upgrade to one"
        )


async def bridge(request: web.Request, guest: Guest) -> web.StreamResponse:
    """Upgrade the request and carry bytes both ways until one end goes."""
    socket = web.WebSocketResponse(
        protocols=PROTOCOLS,
        compress=False,
        autoping=False,
        max_msg_size=MESSAGE_LIMIT_BYTES,
    )
    try:
        await socket.prepare(request)
    except OSError:
        return socket  # the client has gone
    client = _Client(socket)
    giving = asyncio.create_task(_give(client, guest), name="stream to the client")
    taking = asyncio.create_task(_take(client, guest), name="stream to the guest")
    pinging = asyncio.create_task(client.ping(), name="stream pings")
    try:
        await asyncio.wait({giving, taking, pinging}, return_when=asyncio.FIRST_COMPLETED)
        if not giving.done() and not client.is_given_up:
            # What the client has sent has to reach the guest; what that says to it, nobody hears.
            await asyncio.wait({taking}, timeout=LINGER_S)
            await asyncio.wait({giving}, timeout=LINGER_S)
    finally:
        for task in (giving, taking, pinging):
            task.cancel()
        await asyncio.wait({giving, taking, pinging})
    code, text = _outcome(giving)
    if client.is_given_up:
        code, text = WSCloseCode.GOING_AWAY, b"pings were not answered"
    with suppress(OSError):
        await socket.close(code=code, message=text)
    return socket


def _outcome(giving: "asyncio.Task[None]") -> tuple[int, bytes]:
    """With what the websocket is closed."""
    error = None if giving.cancelled() else giving.exception()
    if error is None or isinstance(error, OSError):
        return WSCloseCode.OK, b""
    if isinstance(error, RpcError):
        return WSCloseCode.GOING_AWAY, error.message.encode()[:120]
    _log.error("a stream failed", exc_info=error)
    return WSCloseCode.INTERNAL_ERROR, b""


class _Client:
    """The client's end."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket
        self._unheard_since_s: float | None = None  # None while nobody listens to it
        self.is_given_up = False

    async def messages(self) -> AsyncIterator[bytes]:
        """What it sends, to its end."""
        while True:
            self._unheard_since_s = asyncio.get_running_loop().time()
            message = await self._socket.receive()
            self._unheard_since_s = None
            if message.type is WSMsgType.BINARY:
                yield message.data
            elif message.type is WSMsgType.TEXT:
                yield message.data.encode()
            elif message.type is WSMsgType.PING:
                await self._socket.pong(message.data)
            elif message.type is not WSMsgType.PONG:
                return

    async def send(self, data: bytes) -> None:
        """Send it once there is room. Raises OSError when the client is gone."""
        await self._socket.send_bytes(data)

    async def ping(self) -> None:
        """Ping it, until it has not been heard for so long that it is given up, or the connection is lost."""
        with suppress(OSError):
            while not self.is_given_up:
                await asyncio.sleep(PING_EVERY_S)
                await self._socket.ping()
                self.is_given_up = self._unheard_for_s() >= UNHEARD_S

    def _unheard_for_s(self) -> float:
        since_s = self._unheard_since_s
        return asyncio.get_running_loop().time() - since_s if since_s is not None else 0.0


async def _give(client: _Client, guest: Guest) -> None:
    is_there = True
    while (data := await guest.read()) is not None:
        try:
            if is_there:
                await client.send(data)
        except OSError:
            is_there = False  # what it sent before is still on its way to the guest


async def _take(client: _Client, guest: Guest) -> None:
    with suppress(RpcError):  # the other way tells why
        async for data in client.messages():
            # One that is empty is a datagram, too.
            for start in range(0, len(data) or 1, PIECE_BYTES):
                await guest.write(data[start : start + PIECE_BYTES])
        await guest.end()
