"""Copies bytes between a gRPC stream and a connection to a guest, both ways at once.

Invariant: nothing is read that cannot be passed on: what waits on either way is bounded by the buffers of one connection, however slow
its reader. When either end goes, so does the other.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress

PIECE_BYTES = 32 * 1024
BUFFER_BYTES = 64 * 1024
# What a guest still has to say to somebody who has said everything.
LINGER_S = 10.0


async def relay(
    incoming: AsyncIterator[bytes],
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    *,
    half_close: bool,
) -> AsyncGenerator[bytes, None]:
    """What the guest sends, while `incoming` is written to it. With `half_close` the end of that is only the end of what the guest gets;
    without, it is the end. The connection is closed with the last byte; its failure is an end like any other."""
    writer.transport.set_write_buffer_limits(BUFFER_BYTES)
    feeding = asyncio.create_task(_feed(incoming, writer, half_close), name="stream feed")
    try:
        async with aclosing(_pieces(reader)) as pieces:
            async for piece in pieces:
                yield piece
    finally:
        feeding.cancel()
        await asyncio.wait({feeding})
        # What the guest has not taken by now it never will, and to wait for it would keep the connection.
        if writer.transport.get_write_buffer_size():
            writer.transport.abort()
        else:
            writer.close()


async def _pieces(reader: asyncio.StreamReader) -> AsyncGenerator[bytes, None]:
    with suppress(OSError):
        while piece := await reader.read(PIECE_BYTES):
            yield piece


async def _feed(
    incoming: AsyncIterator[bytes], writer: asyncio.StreamWriter, half_close: bool
) -> None:
    with suppress(OSError):
        async for piece in incoming:
            writer.write(piece)
            await writer.drain()
        if not half_close:
            writer.close()
            return
        writer.write_eof()
        await asyncio.sleep(LINGER_S)
        writer.transport.abort()
