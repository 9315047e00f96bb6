"""Streams of guests through the API server: websockets, made from their description and not with any client of KubeVirt's.

Raw bytes in binary messages, subprotocol `plain.kubevirt.io`.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
from aiohttp import WSMsgType

from tests.support.cluster import API, Cluster

GROUP = "/apis/subresources.kubevirt.io"
PROTOCOL = "plain.kubevirt.io"


class StreamEndedError(AssertionError):
    """The stream ended while more was expected."""


@dataclass
class Stream:
    """An open websocket."""

    socket: "aiohttp.ClientWebSocketResponse[bool]"
    seen: bytes = b""  # that nobody has asked for yet

    async def send(self, data: bytes) -> None:
        """Send it in one message."""
        await self.socket.send_bytes(data)

    async def next(self) -> bytes:
        """What comes next; raises StreamEndedError."""
        if self.seen:
            data, self.seen = self.seen, b""
            return data
        message = await self.socket.receive()
        if message.type is not WSMsgType.BINARY:
            raise StreamEndedError(f"{message.type.name} {message.data} {message.extra}")
        return bytes(message.data)

    async def until(self, pattern: bytes, *, within_s: float = 30) -> bytes:
        """All up to and with the first match."""
        got = b""
        try:
            async with asyncio.timeout(within_s):
                while (found := re.search(pattern, got)) is None:
                    got += await self.next()
        except TimeoutError:
            raise AssertionError(f"no {pattern!r} within {within_s} s, but {got!r}") from None
        self.seen = got[found.end() :] + self.seen
        return got[: found.end()]

    async def close_code(self, *, within_s: float = 15) -> int | None:
        """Wait for its end, whatever comes before that, and tell the code of the close frame."""
        async with asyncio.timeout(within_s):
            while (message := await self.socket.receive()).type is WSMsgType.BINARY:
                pass
        return self.socket.close_code if message.type is not WSMsgType.CLOSE else message.data


@asynccontextmanager
async def stream(
    cluster: Cluster,
    target: str,
    *,
    protocols: Sequence[str] = (PROTOCOL,),
    version: str = "v1",
) -> AsyncIterator[Stream]:
    """The stream of a target, such as `virtualmachineinstances/NAME/console`. Raises WSServerHandshakeError."""
    server, trust = API.connection()
    url = f"{server}{GROUP}/{version}/namespaces/{cluster.namespace}/{target}"
    async with aiohttp.ClientSession() as session:
        socket = await session.ws_connect(
            url, ssl=trust, protocols=protocols, max_msg_size=0, compress=0
        )
        try:
            yield Stream(socket)
        finally:
            await socket.close()


async def refusal(cluster: Cluster, target: str) -> tuple[int, str]:
    """Code and text with which a stream is refused to a websocket."""
    upgrade = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    server, trust = API.connection()
    url = f"{server}{GROUP}/v1/namespaces/{cluster.namespace}/{target}"
    async with (
        aiohttp.ClientSession() as session,
        session.get(url, ssl=trust, headers=upgrade) as answer,
    ):
        return answer.status, await answer.text()


async def picture(cluster: Cluster, name: str) -> bytes:
    """The screenshot of an instance."""
    server, trust = API.connection()
    path = f"namespaces/{cluster.namespace}/virtualmachineinstances/{name}/vnc/screenshot"
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{server}{GROUP}/v1/{path}", ssl=trust) as answer,
    ):
        assert answer.status == 200, await answer.text()
        return await answer.read()
