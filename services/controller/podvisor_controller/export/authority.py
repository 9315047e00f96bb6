"""podvisor's own certificate authority, as far as exports need it: what clients are to trust, and certificates for pods.

Invariant: reads the Secret and never writes it: making and replacing authorities is the webhooks' affair. A certificate that is made
here is a server's and nothing more, for its key leaves the installation's namespace.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

import msgspec
from podvisor_common.api import meta
from podvisor_common.api.core import Secret
from podvisor_common.errors import Retryable
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.errors import ApiNotFound
from podvisor_common.kube.resources import SECRETS, ObjectKey
from podvisor_common.tls.authority import CertificateAuthority, KeyPair, expires_at

from podvisor_controller.webhooks.certificates import SECRET_NAME
from podvisor_controller.webhooks.rotation import Authorities, from_secret_data

# How old what is known of the authority may be. A new one is made known much longer before it signs.
AGE_S = 30.0
# Before the authority ends, so that the successor of a pod is there in time.
MARGIN = timedelta(minutes=1)

_decode_secret = msgspec.json.Decoder(Secret).decode


class NoAuthority(Retryable):
    """There is no authority yet, or none that can be used: a replica is about to make one."""


class Authority:
    """Reads and signs."""

    def __init__(
        self,
        client: KubeClient,
        namespace: str,
        *,
        clock: Callable[[], datetime] = meta.now,
    ) -> None:
        self._client = client
        self._key = ObjectKey(namespace, SECRET_NAME)
        self._clock = clock
        self._known: Authorities | None = None
        self._known_since_s = 0.0

    async def bundle(self) -> bytes:
        """What clients are to trust, as PEM. Raises NoAuthority and ApiError."""
        return (await self._read()).bundle(now=self._clock())

    async def lasts_until(self) -> datetime:
        """The latest end of a certificate that is made now."""
        return expires_at((await self._read()).signing.certificate) - MARGIN

    async def issue(self, names: list[str], until: datetime) -> KeyPair:
        """A server's certificate for these names, valid until a little later than `until`."""
        now = self._clock()
        signing = CertificateAuthority((await self._read()).signing)
        return signing.issue(
            names[0], names, now=now, valid_for=until - now + MARGIN, for_clients=False
        )

    async def _read(self) -> Authorities:
        at_s = asyncio.get_running_loop().time()
        if self._known is not None and at_s < self._known_since_s + AGE_S:
            return self._known
        try:
            secret = _decode_secret(await self._client.get(SECRETS, self._key))
        except ApiNotFound as error:
            raise NoAuthority("there is no certificate authority yet") from error
        known = from_secret_data(secret.data or {})
        if known is None:
            raise NoAuthority("the certificate authority is damaged")
        self._known, self._known_since_s = known, at_s
        return known
