"""A handler's port on loopback, and those who come to it with certificates of all kinds."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from podvisor_common.rpc.client import call
from podvisor_common.rpc.tcp import Credentials, serve_tcp, tls_channel
from podvisor_common.tls.authority import CertificateAuthority, KeyPair
from podvisor_common.tls.identities import CONTROLLER, handler_of

DAY = timedelta(days=1)
NOW = datetime.now(UTC)
NODE = "n1"


def authority() -> CertificateAuthority:
    return CertificateAuthority.create("podvisor", now=NOW, valid_for=2 * DAY)


def server_pair(signer: CertificateAuthority, node: str = NODE) -> KeyPair:
    return signer.issue(node, [handler_of(node)], now=NOW, valid_for=DAY, for_clients=False)


def client_pair(
    signer: CertificateAuthority, name: str = CONTROLLER, *, now: datetime = NOW
) -> KeyPair:
    return signer.issue_for_client(name, [name], now=now, valid_for=DAY)


class Port:
    """A handler's port; `credentials` may be changed while it is open."""

    def __init__(self, signer: CertificateAuthority) -> None:
        self.credentials = Credentials(server_pair(signer), signer.certificate)
        self.number = 0

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Port"]:
        async with serve_tcp(
            0, [], credentials=lambda: self.credentials, only_for=CONTROLLER, host="127.0.0.1"
        ) as self.number:
            yield self

    def channel(
        self, authorities: bytes, pair: KeyPair | None, *, node: str = NODE
    ) -> grpc.aio.Channel:
        return tls_channel(
            f"127.0.0.1:{self.number}",
            server_name=handler_of(node),
            authorities=authorities,
            pair=pair,
        )


async def ask(channel: grpc.aio.Channel) -> None:
    """One call. Raises what call() raises."""
    stub = health_pb2_grpc.HealthStub(channel)
    await call(stub.Check, health_pb2.HealthCheckRequest(), timeout_s=5)
