"""Webhooks behind the real server, over TLS with a certificate of our own, and a client that trusts it."""

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import aiohttp
from podvisor_common.http.server import serve_http
from podvisor_common.tls.authority import CertificateAuthority
from podvisor_common.tls.contexts import server_context
from podvisor_controller.webhooks.review import AdmissionRequest, Verdict
from podvisor_controller.webhooks.server import Webhooks, webhook_app


@asynccontextmanager
async def asked_over_tls(
    webhooks: Webhooks, is_stopping: Callable[[], bool] = lambda: False
) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of the webhooks, which are served for the body."""
    now = datetime.now(UTC)
    authority = CertificateAuthority.create("ca", now=now, valid_for=timedelta(days=1))
    leaf = authority.issue("x", ["127.0.0.1"], now=now, valid_for=timedelta(hours=1))
    app = webhook_app(webhooks, is_stopping=is_stopping)
    trust = ssl.create_default_context(cadata=authority.certificate.decode())
    async with (
        serve_http(app, host="127.0.0.1", port=0, tls=server_context(leaf), grace_s=0.2) as port,
        aiohttp.ClientSession(
            f"https://127.0.0.1:{port}", connector=aiohttp.TCPConnector(ssl=trust)
        ) as session,
    ):
        yield session


async def nobody_evicts(request: AdmissionRequest) -> Verdict:
    """The reviewer of evictions where there are none."""
    raise AssertionError(request.name)
