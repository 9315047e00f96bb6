"""HandlerService on TCP, for controllers and nobody else.

Invariant: the port is open only while there is a certificate to show; without one, everything else of the handler works.
"""

import asyncio

import structlog
from podvisor_common.aio.backoff import Backoff
from podvisor_common.rpc.server import RpcService
from podvisor_common.rpc.tcp import serve_tcp
from podvisor_common.tls.identities import CONTROLLER

from podvisor_handler.identity.certificate import HandlerCertificate

# Streams among them, of which each machine has a bounded number.
MAX_CALLS = 4096

_log = structlog.get_logger(__name__)


async def serve_controllers(
    port: int, service: RpcService, certificate: HandlerCertificate
) -> None:
    """Serve from the first certificate on, until cancelled. A port that cannot be had is tried again."""
    await certificate.first()
    backoff = Backoff(max_s=30.0)
    while True:
        try:
            async with serve_tcp(
                port,
                [service],
                credentials=certificate.current,
                only_for=CONTROLLER,
                max_concurrent_calls=MAX_CALLS,
            ) as bound:
                _log.info("serving controllers", port=bound)
                await asyncio.Event().wait()
        except OSError as error:
            _log.warning("controllers are not served", port=port, error=str(error))
            await asyncio.sleep(backoff.next_s())
