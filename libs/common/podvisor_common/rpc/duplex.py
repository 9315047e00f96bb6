"""A call in which both sides stream, for its client: write() and read() at the same time, errors as types.

Invariant: one write and one read at a time, each of which waits as long as the other side makes it; nothing is queued beside what gRPC
itself holds for one call.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar

import grpc

from podvisor_common.rpc.errors import DeadlineExceeded, Unavailable, from_status

Request = TypeVar("Request")
Reply = TypeVar("Reply")


class Duplex(Generic[Request, Reply]):
    """An open call."""

    def __init__(self, call: "grpc.aio.StreamStreamCall[Request, Reply]") -> None:
        self._call = call

    async def write(self, request: Request) -> None:
        """Send one message. Raises RpcError, the peer's own or Unavailable when the call is over."""
        try:
            await self._call.write(request)
        except grpc.aio.AioRpcError as error:
            raise from_status(error) from error
        except asyncio.InvalidStateError as error:
            raise Unavailable("the call is over") from error

    async def done_writing(self) -> None:
        """Say that no more messages come."""
        await self._call.done_writing()

    async def read(self) -> Reply | None:
        """The next message; None at the end. Raises RpcError."""
        try:
            reply: Any = await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise from_status(error) from error
        return None if reply is grpc.aio.EOF else reply


@asynccontextmanager
async def duplex(
    method: "grpc.aio.StreamStreamMultiCallable[Request, Reply]",
    opening: Request,
    *,
    first_reply_timeout_s: float,
) -> AsyncIterator[Duplex[Request, Reply]]:
    """The call, once `opening` was answered by a first message, which is dropped. Leaving the block cancels what is not over.

    Raises RpcError.
    """
    call = method()
    opened = Duplex(call)
    try:
        try:
            async with asyncio.timeout(first_reply_timeout_s):
                await opened.write(opening)
                first = await opened.read()
        except TimeoutError:
            raise DeadlineExceeded(f"no first reply within {first_reply_timeout_s:g} s") from None
        if first is None:
            raise Unavailable("the call ended before it began")
        yield opened
    finally:
        call.cancel()
