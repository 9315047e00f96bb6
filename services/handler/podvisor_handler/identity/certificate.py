"""The certificate of this handler, from a controller, for a token that says on which node it is.

Invariants: the key is made here and leaves this process never; the token leaves it to nobody but a controller that shows a certificate
of podvisor's authority, and is in no log. Nothing waits for this but the port: without a controller the handler does all its other work.
"""

import asyncio
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog
from podvisor.identity.v1 import identity_pb2, identity_pb2_grpc
from podvisor_common.aio.backoff import Backoff
from podvisor_common.api.meta import format_time
from podvisor_common.errors import Retryable, Terminal
from podvisor_common.rpc.client import call
from podvisor_common.rpc.errors import RpcError
from podvisor_common.rpc.tcp import Credentials, tls_channel
from podvisor_common.tls.authority import (
    BadCertificate,
    CertificateRequest,
    expires_at,
    split_bundle,
)

from podvisor_handler.identity import renewal
from podvisor_handler.linux.inotify import DirectoryWatch, Inotify

ANSWER_WITHIN_S = 10.0
LONGEST_PAUSE_S = 60.0
TOKEN = "token"
AUTHORITIES = "ca.crt"
_FILE_LIMIT_BYTES = 256 * 1024

_log = structlog.get_logger(__name__)


class NotMounted(Retryable):
    """The kubelet has not given us yet what we need: token or authorities."""

    reason = "NotMounted"


class HandlerCertificate:
    """Keeps a certificate, and what is trusted, up to date.

    `directory` has the token and the authorities; `address` is where controllers issue, `server_name` the name in their certificates.
    """

    def __init__(self, directory: Path, address: str, server_name: str, *, node: str) -> None:
        self._directory = directory
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

    async def run(self) -> None:
        """Get one, and the next ones in time, until cancelled."""
        with Inotify() as inotify, self._watching(inotify):
            while True:
                self._changed.clear()
                pause_s = await self.bring_up_to_date()
                try:
                    async with asyncio.timeout(pause_s):
                        await self._changed.wait()
                except TimeoutError:
                    continue

    @contextmanager
    def _watching(self, inotify: Inotify) -> Iterator[None]:
        """Have every change of the directory noticed; where that cannot be had, it is only looked at again and again."""
        watch: DirectoryWatch | None = None
        try:
            descriptor = os.open(self._directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                watch = inotify.watch_directory(descriptor, self._changed.set)
            finally:
                os.close(descriptor)
        except OSError as error:
            _log.warning("changes of authorities go unnoticed for a while", error=str(error))
        try:
            yield
        finally:
            if watch is not None:
                watch.close()

    async def bring_up_to_date(self) -> float:
        """Do what is due; how long until something is again, in seconds. What fails is logged, and due again soon."""
        loop = asyncio.get_running_loop()
        try:
            authorities = self._authorities()
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

    def _authorities(self) -> bytes:
        found = self._read(AUTHORITIES)
        split_bundle(found)
        return found

    def _token(self) -> str:
        text = self._read(TOKEN).strip()
        if not text.isascii() or not text.decode().isprintable():
            raise NotMounted(f"{self._directory / TOKEN} holds no token")
        return text.decode()

    def _read(self, name: str) -> bytes:
        """A small file in memory, written by the kubelet."""
        path = self._directory / name
        try:
            with path.open("rb") as file:
                text = file.read(_FILE_LIMIT_BYTES)
        except OSError as error:
            raise NotMounted(f"{path}: {error.strerror}") from error
        if not text.strip():
            raise NotMounted(f"{path} is empty")
        return text
