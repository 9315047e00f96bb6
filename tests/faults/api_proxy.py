"""An API server that misbehaves: a proxy in front of the real one, which spoils what a test tells it to.

Invariant: what is not spoiled is passed on as it is, in the name of whoever asked. A connection that has fallen silent stays
silent when the fault is over, as one does whose other end has lost it.
"""

import asyncio
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
from aiohttp import web
from podvisor_common.kube import transport
from podvisor_common.kube.lines import LineSplitter
from yarl import URL

from tests.support.cluster import Json


@dataclass(frozen=True, slots=True)
class Answer:
    """Everything is refused with this status, watches that run included."""

    status: int
    retry_after_s: int | None = None
    reason: str = "Refused"


@dataclass(frozen=True, slots=True)
class Slow:
    """Every answer begins so much later."""

    by_s: float


@dataclass(frozen=True, slots=True)
class Reset:
    """Connections are reset, those that are there at once, others when they ask for something."""


@dataclass(frozen=True, slots=True)
class LostAnswer:
    """What is asked for is done, and the connection is reset before anybody learns of it."""


@dataclass(frozen=True, slots=True)
class Silence:
    """Connections stay open, and nothing comes from them any more; new ones are taken and not answered."""


@dataclass(frozen=True, slots=True)
class Cut:
    """The connection breaks after these bytes."""

    after: bytes


Fault = Answer | Slow | Reset | LostAnswer | Silence
# What becomes of a watch's line: these bytes instead, then perhaps the end of the stream in one of these ways.
Spoiled = tuple[bytes, Cut | Silence | None]


def whole(line: bytes) -> Spoiled:
    """A line that arrives as it was sent."""
    return line + b"\n", None


@dataclass(frozen=True, slots=True)
class Call:
    """One request as it arrived, in seconds of time.monotonic(), and the fault that was at work."""

    at_s: float
    agent: str
    token: int  # tells processes with the same agent apart
    method: str
    path: str
    is_watch: bool
    fault: Fault | None


@dataclass(slots=True)
class Spoilers:
    """What is done to single requests and to the lines of watches, where no fault is at work for all."""

    # The fault for one request, which is kept waiting until it is known.
    of_request: Callable[[web.Request], Awaitable[Fault | None]]
    # A new one for each watch; gets its lines without their newlines.
    of_stream: Callable[[web.Request], Callable[[bytes], Spoiled]] = lambda _: whole


class ApiProxy:
    """Serves at `url` or, with `tls`, under the API server's name, until the context that serving() gives ends."""

    def __init__(self, session: aiohttp.ClientSession, upstream: str) -> None:
        self.calls: list[Call] = []
        self.spoilers: Spoilers | None = None
        self.port = 0
        self._session = session
        self._upstream = upstream
        self._fault: Fault | None = None
        self._silenced: set[asyncio.Task[object]] = set()
        self._streams: set[asyncio.Task[object]] = set()
        self._server: web.Server | None = None
        self._grown = asyncio.Condition()

    @property
    def url(self) -> str:
        """Where a proxy without TLS is found on this machine."""
        return f"http://127.0.0.1:{self.port}"

    @asynccontextmanager
    async def faulty(self, fault: Fault) -> AsyncIterator[None]:
        """The fault is at work for the body."""
        self._fault = fault
        if isinstance(fault, Silence):
            self._silenced |= self._streams
        elif not isinstance(fault, Slow):
            self.hang_up()
        try:
            yield
        finally:
            self._fault = None

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for a condition on the calls; how long is the caller's to bound."""
        async with self._grown:
            await self._grown.wait_for(holds)

    def hang_up(self) -> None:
        """Reset every connection that there is."""
        assert self._server is not None
        for connection in self._server.connections:
            _reset(connection.transport)

    @asynccontextmanager
    async def serving(self, host: str, tls: ssl.SSLContext | None) -> AsyncIterator[None]:
        """Serve for the body."""
        app = web.Application(client_max_size=16 << 20)
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True
        )
        await runner.setup()
        try:
            site = web.TCPSite(runner, host, 0, ssl_context=tls)
            await site.start()
            self._server = runner.server
            self.port = runner.addresses[0][1]
            yield
        finally:
            await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        is_watch = request.query.get("watch") == "1"
        fault = self._fault
        if fault is None and self.spoilers is not None:
            fault = await self.spoilers.of_request(request)
        async with self._grown:
            self.calls.append(
                Call(
                    time.monotonic(),
                    request.headers.get("User-Agent", ""),
                    hash(request.headers.get("Authorization")),
                    request.method,
                    request.path,
                    is_watch,
                    fault,
                )
            )
            self._grown.notify_all()
        match fault:
            case Answer():
                return _refusal(fault)
            case Reset():
                _reset(request.transport)
                return web.Response()
            case Silence():
                await asyncio.Event().wait()
            case Slow(by_s):
                await asyncio.sleep(by_s)
        response = await (self._stream(request) if is_watch else self._answer(request, body))
        if isinstance(fault, LostAnswer):
            _reset(request.transport)
        return response

    def _ask(
        self, request: web.Request, body: bytes = b""
    ) -> "aiohttp.client._RequestContextManager":
        headers = {
            name: value
            for name, value in request.headers.items()
            if name in ("Authorization", "Accept", "Accept-Encoding", "Content-Type", "User-Agent")
        }
        return self._session.request(
            request.method,
            URL(self._upstream + request.raw_path, encoded=True),
            headers=headers,
            data=body or None,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=None),
        )

    async def _answer(self, request: web.Request, body: bytes) -> web.StreamResponse:
        async with self._ask(request, body) as upstream:
            return web.Response(
                status=upstream.status,
                body=await upstream.read(),
                headers=_passed_on(upstream),
            )

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        task = asyncio.current_task()
        assert task is not None
        self._streams.add(task)
        try:
            async with self._ask(request) as upstream:
                response = web.StreamResponse(status=upstream.status, headers=_passed_on(upstream))
                await response.prepare(request)
                spoil = self.spoilers.of_stream(request) if self.spoilers else whole
                splitter = LineSplitter()
                while chunk := await upstream.content.readany():
                    for line in splitter.feed(chunk):
                        if not await self._pass_on(request, response, *spoil(line)):
                            return response
                return response
        finally:
            self._streams.discard(task)
            self._silenced.discard(task)

    async def _pass_on(
        self,
        request: web.Request,
        response: web.StreamResponse,
        data: bytes,
        end: Cut | Silence | None,
    ) -> bool:
        """Whether the stream goes on."""
        if asyncio.current_task() in self._silenced:
            end, data = Silence(), b""
        if data:
            await response.write(data)
        if isinstance(end, Silence):
            await asyncio.Event().wait()
        if isinstance(end, Cut):
            await response.write(end.after)
            _reset(request.transport)
        return end is None


@asynccontextmanager
async def api_proxy(
    *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> AsyncIterator[ApiProxy]:
    """A proxy of the cluster of KUBECONFIG. With `tls` clients show it their own tokens; without, all are the person there."""
    configuration = await transport.configuration_from_environment()
    if tls is not None:
        configuration.cert_file = configuration.key_file = None
    async with transport.open_session(configuration) as session:
        proxy = ApiProxy(session, configuration.host)
        async with proxy.serving(host, tls):
            yield proxy


def status_of(code: int, reason: str, retry_after_s: int | None = None) -> Json:
    """A metav1.Status that refuses."""
    status: Json = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "code": code,
        "reason": reason,
        "message": "refused by the test",
    }
    return status | ({"details": {"retryAfterSeconds": retry_after_s}} if retry_after_s else {})


def _refusal(answer: Answer) -> web.Response:
    headers = {} if answer.retry_after_s is None else {"Retry-After": str(answer.retry_after_s)}
    body = status_of(answer.status, answer.reason, answer.retry_after_s)
    return web.json_response(body, status=answer.status, headers=headers)


def _passed_on(upstream: aiohttp.ClientResponse) -> dict[str, str]:
    names = ("Content-Type", "Retry-After", "Warning")
    return {name: upstream.headers[name] for name in names if name in upstream.headers}


def _reset(connection: asyncio.BaseTransport | None) -> None:
    """Close a connection with RST: the other side loses what it has not read yet."""
    if connection is None or connection.is_closing():
        return
    connection.get_extra_info("socket").setsockopt(
        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
    )
    assert isinstance(connection, asyncio.Transport)
    connection.abort()
