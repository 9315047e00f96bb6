"""The life of an exporter: it serves until it is told to stop, or until its deadline.

Invariant: when the time is over it ends well, with downloads that go on broken off, so that whoever made the pod knows why it has ended.
"""

import asyncio
import ssl
from datetime import timedelta

import structlog
from podvisor_common.api.meta import now
from podvisor_common.http.server import serve_http

from podvisor_controller.exporter.app import exporter_app
from podvisor_controller.exporter.quiet import quieten
from podvisor_controller.exporter.settings import CERTIFICATE, KEY, Settings

# Downloads that go on when the time is over are broken off.
GRACE_S = 1.0

_log = structlog.get_logger(__name__)


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Serve until `stop` is set or the deadline is reached."""
    quieten()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    directory = settings.identity_directory
    context.load_cert_chain(f"{directory}/{CERTIFICATE}", f"{directory}/{KEY}")
    left = max(settings.deadline - now(), timedelta(0))
    app = exporter_app(settings)
    async with serve_http(app, port=settings.port, tls=context, grace_s=GRACE_S):
        _log.info("serving", volumes=len(settings.volumes), left_s=int(left.total_seconds()))
        try:
            async with asyncio.timeout(left.total_seconds()):
                await stop.wait()
        except TimeoutError:
            _log.info("deadline reached")
