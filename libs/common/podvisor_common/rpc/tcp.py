"""gRPC over TCP and TLS: servers whose certificate and trust can change while they serve, channels to them.

Invariants: connections that are open keep what they were opened with, and new ones see what is in force; a private key is in memory
only. Handshakes that fail never reach us: gRPC writes its own line about each to the standard error. Must not know any service.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc

from podvisor_common.rpc import client, server
from podvisor_common.rpc.callers import OnlyCallers
from podvisor_common.rpc.interceptor import ErrorInterceptor
from podvisor_common.rpc.server import RpcService
from podvisor_common.tls.authority import KeyPair

GRACE_S = 2.0
# A caller whose node is lost says no goodbye, and what it holds open would stay.
_KEEPALIVE = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
)


@dataclass(frozen=True, slots=True)
class Credentials:
    """What one side of a connection shows, and what it trusts the other side by: PEM, one or more authorities."""

    pair: KeyPair
    authorities: bytes | None = None


@asynccontextmanager
async def serve_tcp(
    port: int,
    services: Sequence[RpcService],
    *,
    credentials: Callable[[], Credentials],
    only_for: str | None,
    host: str = "[::]",
    max_concurrent_calls: int = 256,
) -> AsyncIterator[int]:
    """Serve `services` on a TCP port until the block is left; yields the port, which is another one where `port` is 0.

    `credentials` is asked at each new connection, in a thread of gRPC's: it must be quick and do no more than look. With `only_for`,
    a caller must show a certificate of those authorities that is valid for client use and has that name; without, none is asked for.
    Raises OSError where the port cannot be had.
    """
    interceptors: list[grpc.aio.ServerInterceptor] = [ErrorInterceptor()]
    if only_for is not None:
        interceptors.append(OnlyCallers(only_for))
    running = grpc.aio.server(
        interceptors=interceptors,
        # Two servers on one port would each get some of the calls.
        options=[*server.OPTIONS, *_KEEPALIVE, ("grpc.so_reuseport", 0)],
        maximum_concurrent_rpcs=max_concurrent_calls,
    )
    health = await server.add_services(running, services)
    bound = _bind(running, f"{host}:{port}", credentials, asks_for_certificate=only_for is not None)
    await running.start()
    try:
        yield bound
    finally:
        await health.enter_graceful_shutdown()
        await running.stop(GRACE_S)


def tls_channel(
    address: str, *, server_name: str, authorities: bytes, pair: KeyPair | None = None
) -> grpc.aio.Channel:
    """A channel to `address` (`host:port`) that accepts no certificate but one of these authorities with the DNS name
    `server_name`, and shows `pair`. Connects on first use; the caller closes it.
    """
    certificates = (pair.key, pair.certificate) if pair is not None else (None, None)
    return grpc.aio.secure_channel(
        address,
        grpc.ssl_channel_credentials(authorities, *certificates),
        options=[
            *client.OPTIONS,
            ("grpc.ssl_target_name_override", server_name),
            # What DNS says beside addresses is nobody's business here.
            ("grpc.service_config_disable_resolution", 1),
        ],
    )


def _bind(
    running: grpc.aio.Server,
    address: str,
    credentials: Callable[[], Credentials],
    *,
    asks_for_certificate: bool,
) -> int:
    def current() -> grpc.ServerCertificateConfiguration:
        now = credentials()
        chain = [(now.pair.key, now.pair.certificate)]
        return grpc.ssl_server_certificate_configuration(chain, root_certificates=now.authorities)

    offered = grpc.dynamic_ssl_server_credentials(
        current(), current, require_client_authentication=asks_for_certificate
    )
    try:
        return running.add_secure_port(address, offered)
    except RuntimeError as error:
        raise OSError(f"cannot listen on {address}") from error
