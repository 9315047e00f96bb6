"""IdentityService: certificates for handlers, from every replica.

Invariants: a certificate is for the node to which the API server says that the caller's token is bound, whatever the caller says; it is
for servers only, so that no handler can pass for a controller; the handler's key stays with the handler.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

import grpc
import structlog
from podvisor.identity.v1 import identity_pb2, identity_pb2_grpc
from podvisor_common.api import meta
from podvisor_common.kube.client import KubeClient
from podvisor_common.rpc.errors import (
    InvalidArgument,
    PermissionDenied,
    RpcError,
    Unauthenticated,
    Unavailable,
)
from podvisor_common.rpc.server import RpcService
from podvisor_common.rpc.tcp import Credentials, serve_tcp
from podvisor_common.tls.authority import BadCertificate, CertificateAuthority, expires_at
from podvisor_common.tls.identities import BadNodeName, handler_of

from podvisor_controller.handlers.tokens import review
from podvisor_controller.webhooks.certificates import Certificates
from podvisor_controller.webhooks.rotation import Authorities

SERVICE = "podvisor.identity.v1.IdentityService"
REQUEST_LIMIT_BYTES = 8 * 1024
TOKEN_LIMIT_BYTES = 16 * 1024
# Whoever reaches the port can have the API server asked about a token, but not about many at once.
REVIEWS_AT_ONCE = 8
CALLS_AT_ONCE = 128
# Whoever reaches the port can be refused as often as it likes.
TOLD_EVERY_S = 30.0
_SCHEME = "bearer "

_Context = grpc.aio.ServicerContext[
    identity_pb2.IssueCertificateRequest, identity_pb2.IssueCertificateResponse
]
_log = structlog.stdlib.get_logger(__name__)


class IdentityServicer(identity_pb2_grpc.IdentityServiceServicer):
    """Serves IdentityService. `authorities` tells who signs; None while nobody has been told whom to trust."""

    def __init__(
        self,
        client: KubeClient,
        namespace: str,
        authorities: Callable[[], Authorities | None],
        *,
        life: timedelta,
        wall_clock: Callable[[], datetime] = meta.now,
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._authorities = authorities
        self._life = life
        self._wall_clock = wall_clock
        self._told_s = -math.inf
        self._reviews = asyncio.Semaphore(REVIEWS_AT_ONCE)

    async def IssueCertificate(
        self, request: identity_pb2.IssueCertificateRequest, context: _Context
    ) -> identity_pb2.IssueCertificateResponse:
        """A certificate for the caller's key, with the name of the handler of its node."""
        token = token_of(context.invocation_metadata())
        if len(request.certificate_request) > REQUEST_LIMIT_BYTES:
            raise InvalidArgument("the certificate request is too long", reason="BadRequest")
        async with self._reviews:
            try:
                node = await review(self._client, token, self._namespace)
            except (PermissionDenied, Unauthenticated) as error:
                self._tell_of_refusal(context.peer(), error)
                raise
        certificate = self._sign(node, request.certificate_request)
        _log.info(
            "certificate issued to a handler",
            node=node,
            expires=meta.format_time(expires_at(certificate)),
        )
        return identity_pb2.IssueCertificateResponse(certificate=certificate)

    def _tell_of_refusal(self, peer: str, error: RpcError) -> None:
        now_s = asyncio.get_running_loop().time()
        if now_s >= self._told_s + TOLD_EVERY_S:
            self._told_s = now_s
            _log.warning(
                "no certificate for a caller", peer=peer, reason=error.reason, error=error.message
            )

    def _sign(self, node: str, request: bytes) -> bytes:
        authorities = self._authorities()
        if authorities is None:
            raise Unavailable("there is no certificate authority yet", reason="NoAuthority")
        try:
            name = handler_of(node)
            return CertificateAuthority(authorities.signing).sign_for_server(
                request, name, [name], now=self._wall_clock(), valid_for=self._life
            )
        except (BadCertificate, BadNodeName) as error:
            raise InvalidArgument(str(error), reason=error.reason) from error


def token_of(metadata: object) -> str:
    """The bearer token in the metadata of a call. Raises Unauthenticated when there is none, or several, or it is too long."""
    pairs = metadata if isinstance(metadata, tuple) else ()
    shown = [value for key, value in pairs if key == "authorization" and isinstance(value, str)]
    if len(shown) != 1 or not shown[0].lower().startswith(_SCHEME):
        raise Unauthenticated("the call carries no bearer token", reason="NoToken")
    token = shown[0][len(_SCHEME) :].strip()
    if not 0 < len(token) <= TOKEN_LIMIT_BYTES:
        raise Unauthenticated("the bearer token is empty or too long", reason="NoToken")
    return token


@asynccontextmanager
async def serve_identity(
    client: KubeClient,
    certificates: Certificates,
    namespace: str,
    *,
    port: int,
    life: timedelta,
) -> AsyncIterator[int]:
    """Serve IdentityService on `port` until the block is left; yields the port. It shows the certificate of the webhooks."""
    servicer = IdentityServicer(client, namespace, lambda: certificates.published, life=life)
    service = RpcService(SERVICE, servicer, identity_pb2_grpc.add_IdentityServiceServicer_to_server)
    async with serve_tcp(
        port,
        [service],
        credentials=lambda: Credentials(certificates.pair),
        only_for=None,
        max_concurrent_calls=CALLS_AT_ONCE,
    ) as bound:
        yield bound
