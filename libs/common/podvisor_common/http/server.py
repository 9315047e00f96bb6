"""Runs an aiohttp application on a TCP port until its block is left.

Invariant: leaving stops accepting first and lets running requests end within the grace time. Must
not know any route.
"""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web


@asynccontextmanager
async def serve_http(
    app: web.Application,
    *,
    host: str | None = None,
    port: int,
    tls: ssl.SSLContext | None = None,
    grace_s: float = 5.0,
) -> AsyncIterator[int]:
    """Serve `app`; yields the bound port (useful with port 0). `host` None listens on every
    address, IPv4 and IPv6.

    Raises OSError when the port is taken.
    """
    runner = web.AppRunner(
        app, access_log=None, handle_signals=False, shutdown_timeout=grace_s, keepalive_timeout=75.0
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, ssl_context=tls, reuse_address=True)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
