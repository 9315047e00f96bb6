"""The certificate of this handler, from a controller, for a token that says on which node it is.

Invariants: the key is made here and leaves this process never; the token leaves it to nobody but a controller that shows a certificate
of podvisor's authority, and is in no log. Nothing waits for this but the port: without a controller the handler does all its other work.
"""

import asyncio
import random
from contextlib import suppress
from pathlib import Path

import structlog
from podvisor.identity.v1 import identity_pb2, identity_pb2_grpc
from podvisor_common.aio.backoff import Backoff
from podvisor_common.api import core
from podvisor_common.api.meta import format_time
from podvisor_common.errors import Retryable, Terminal
from podvisor_common.kube.resources import ObjectKey
from podvisor_common.rpc.client import call
from podvisor_common.rpc.errors import RpcError
from podvisor_common.rpc.tcp import Credentials, tls_channel
from podvisor_common.tls.authority import (
    BadCertificate,
    CertificateRequest,
    expires_at,
    split_bundle,
)
from podvisor_common.tls.identities import TRUST_CONFIG_MAP, TRUST_FIELD

from podvisor_handler.identity import renewal

ANSWER_WITHIN_S = 10.0
LONGEST_PAUSE_S = 60.0
_TOKEN_LIMIT_BYTES = 64 * 1024

_log = structlog.get_logger(__name__)


class NoToken(Retryable):
    """The kubelet has not given us a token, by which controllers would know us."""

    reason = "NoToken"


class HandlerCertificate:
    """Keeps a certificate, and what is trusted, up to date.

    The kubelet keeps the token in `token_file`; `address` is where controllers issue, `server_name` the name in their certificates.
    """

    def __init__(self, token_file: Path, address: str, server_name: str, *, node: str) -> None:
        self._token_file = token_file
        self._trusted = b""  # no controller has said yet whom to trust
        self._address = address
        self._server_name = server_name
        self._node = node
        self._credentials: Credentials | None = None
        self._obtained = asyncio.Event()
        self._changed = asyncio.Event()
        self._renew_at_s = 0.0
        self._backoff = Backoff(initial_s=1.0, max_s=LONGEST_PAUSE_S)

    async def first(self) -> None:
        """Wait until there is one."""
        await self._obtained.wait()

    def current(self) -> Credentials:
        """What to show and to trust now. Only after first()."""
        assert self._credentials is not None
        return self._credentials

    def learn(self, key: ObjectKey, old: core.ConfigMap | None, new: core.ConfigMap | None) -> None:
        """A callback of the informer of the ConfigMap in which the controllers say whom to trust."""
        if key.name != TRUST_CONFIG_MAP:
            return
        trusted = ((new.data if new is not None else None) or {}).get(TRUST_FIELD, "").encode()
        if trusted and trusted != self._trusted:
            self._trusted = trusted
            self._changed.set()

    async def run(self) -> None:
        """Get one, and the next ones in time, until cancelled."""
        while True:
            self._changed.clear()
            pause_s = await self.bring_up_to_date() if self._trusted else None
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._changed.wait()

    async def bring_up_to_date(self) -> float:
        """Do what is due; how long until something is again, in seconds. What fails is logged, and due again soon."""
        loop = asyncio.get_running_loop()
        try:
            authorities = self._trusted
            split_bundle(authorities)
            if self._is_due(authorities, loop.time()):
                await self._obtain(authorities)
            elif self._credentials is not None and self._credentials.authorities != authorities:
                self._credentials = Credentials(self._credentials.pair, authorities)
                _log.info("other authorities are trusted from now on")
        except (RpcError, Retryable, Terminal) as error:
            pause_s = self._backoff.next_s()
            _log.warning(
                "no new certificate for the handler's port",
                has_one=self._credentials is not None,
                reason=getattr(error, "reason", type(error).__name__),
                error=str(error),
                again_in_s=round(pause_s, 1),
            )
            return pause_s
        self._backoff.reset()
        return self._renew_at_s - loop.time()

    def _is_due(self, authorities: bytes, now_s: float) -> bool:
        known = self._credentials
        if known is None or now_s >= self._renew_at_s:
            return True
        if known.authorities == authorities:
            return False
        return not renewal.is_trusted(known.pair.certificate, authorities)

    async def _obtain(self, authorities: bytes) -> None:
        asked = CertificateRequest.create(self._node)
        token = self._token()
        channel = tls_channel(self._address, server_name=self._server_name, authorities=authorities)
        async with channel:
            answer = await call(
                identity_pb2_grpc.IdentityServiceStub(channel).IssueCertificate,
                identity_pb2.IssueCertificateRequest(certificate_request=asked.request),
                timeout_s=ANSWER_WITHIN_S,
                metadata=[("authorization", f"Bearer {token}")],
            )
        pair = asked.answered(answer.certificate)
        if not renewal.is_trusted(pair.certificate, authorities):
            raise BadCertificate("the certificate is of an authority that is not known here yet")
        pause_s = renewal.pause_s(pair.certificate, jitter=random.random())
        self._renew_at_s = asyncio.get_running_loop().time() + pause_s
        self._credentials = Credentials(pair, authorities)
        self._obtained.set()
        _log.info(
            "certificate for the handler's port obtained",
            expires=format_time(expires_at(pair.certificate)),
            renewed_in_s=round(pause_s),
        )

    def _token(self) -> str:
        """A small file in memory, written by the kubelet."""
        try:
            with self._token_file.open("rb") as file:
                text = file.read(_TOKEN_LIMIT_BYTES).strip()
        except OSError as error:
            raise NoToken(f"{self._token_file}: {error.strerror}") from error
        if not text or not text.isascii() or not text.decode().isprintable():
            raise NoToken(f"{self._token_file} holds no token")
        return text.decode()
