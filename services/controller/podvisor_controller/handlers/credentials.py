"""What a controller shows to handlers, and by what it knows them.

Invariant: the key is in memory only. A certificate is kept while it is young and its authority is trusted, even when another one
signs by now: handlers learn of a new authority later than controllers do.
"""

from collections.abc import Callable
from datetime import datetime, timedelta

from podvisor_common.api import meta
from podvisor_common.errors import Retryable
from podvisor_common.rpc.tcp import Credentials
from podvisor_common.tls.authority import (
    CertificateAuthority,
    KeyPair,
    remaining_share,
    split_bundle,
)
from podvisor_common.tls.identities import CONTROLLER

from podvisor_controller.webhooks.rotation import LEAF_RENEWAL_SHARE, Authorities


class NoCredentials(Retryable):
    """There is no authority yet that could sign for this controller."""

    reason = "NoCredentials"


class ControllerCredentials:
    """Makes the certificate of this replica, when it is asked for one and the last is not fit any more."""

    def __init__(
        self,
        authorities: Callable[[], Authorities | None],
        *,
        life: timedelta,
        wall_clock: Callable[[], datetime] = meta.now,
    ) -> None:
        self._authorities = authorities
        self._life = life
        self._wall_clock = wall_clock
        self._issuer = b""
        self._current: Credentials | None = None

    def current(self) -> Credentials:
        """What to open a connection with now; the same object as long as nothing of it has changed. Raises NoCredentials."""
        authorities = self._authorities()
        if authorities is None:
            raise NoCredentials("there is no certificate authority yet")
        now = self._wall_clock()
        bundle = authorities.bundle(now=now)
        current = self._current
        if current is None or not self._is_fit(current.pair, bundle, now):
            current = Credentials(self._issue(authorities, now), bundle)
        elif current.authorities != bundle:
            current = Credentials(current.pair, bundle)
        self._current = current
        return current

    def _is_fit(self, pair: KeyPair, bundle: bytes, now: datetime) -> bool:
        is_young = remaining_share(pair.certificate, now=now) >= LEAF_RENEWAL_SHARE
        return is_young and self._issuer in split_bundle(bundle)

    def _issue(self, authorities: Authorities, now: datetime) -> KeyPair:
        self._issuer = authorities.signing.certificate
        return CertificateAuthority(authorities.signing).issue_for_client(
            CONTROLLER, [CONTROLLER], now=now, valid_for=self._life
        )
