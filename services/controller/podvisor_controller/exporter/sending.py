"""Sending what a generator makes: each piece is made in a thread of the download's own, and only when the one before is on its way.

Invariant: the event loop never reads a disk or compresses; a client that reads slowly holds one piece in memory and one thread, and
one that does not read at all is dropped. There are at most MOST_DOWNLOADS at a time.
"""

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import structlog
from aiohttp import web

from podvisor_controller.exporter.answers import NoAnswer, Storage, Worker
from podvisor_controller.exporter.pieces import Pieces
from podvisor_controller.exporter.tree import NotServed

MOST_DOWNLOADS = 32
# What a client is asked to wait when there are so many.
RETRY_AFTER_S = 10
# How long a client may take for one piece, and a volume to be read.
STALL_S = 300.0

_log = structlog.get_logger(__name__)


class Downloads:
    """Those under way."""

    def __init__(self, *, most: int = MOST_DOWNLOADS, stall_s: float = STALL_S) -> None:
        self._most = most
        self._stall_s = stall_s
        self._running = 0

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place among them. Raises HTTPServiceUnavailable when there is none."""
        if self._running >= self._most:
            raise web.HTTPServiceUnavailable(headers={"Retry-After": str(RETRY_AFTER_S)})
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1

    async def send(
        self,
        request: web.Request,
        response: web.StreamResponse,
        pieces: Pieces,
        descriptor: int,
        storage: Storage,
    ) -> web.StreamResponse:
        """Answer `request` with `response` and these bytes, read from `descriptor` on `storage`; it and they are closed.

        What cannot be read, or is not taken, ends the connection in the middle: so the client knows that it has not got everything.
        """
        thread = Worker("download")
        make = partial(next, pieces, b"")
        try:
            await response.prepare(request)
            while piece := await storage.wait_for(thread.submit(make), self._stall_s):
                async with asyncio.timeout(self._stall_s):
                    await response.write(piece)
        except (OSError, NotServed, NoAnswer, TimeoutError) as error:
            _log.warning("download broken off", kind=type(error).__name__, error=_words_of(error))
            if request.transport is not None:
                request.transport.abort()
        finally:
            # Behind the piece that may still be in the making: neither may be closed while it runs.
            thread.end(partial(_close, pieces, descriptor))
        return response


def _close(pieces: Pieces, descriptor: int) -> None:
    pieces.close()
    os.close(descriptor)


def _words_of(error: Exception) -> str:
    """What went wrong, without the names of files: those are the volume's content."""
    return error.strerror or "" if isinstance(error, OSError) else ""
