"""The certificates of the webhooks, from nothing: an authority in a Secret, a leaf in each
replica's memory.

Invariants: any replica may make the Secret and whoever comes second reads it; a replica is ready
only with a leaf of an authority that the API server has been told to trust, which the leading replica
tells it; a new authority is published before it signs. Keys are in the Secret and in memory, nowhere else.
A leaf is renewed in time even while the API server cannot be reached, by the authority that was published last.
"""

import asyncio
import math
import ssl
from collections.abc import Callable
from datetime import datetime

import msgspec
import structlog
from podvisor_common.aio.backoff import Backoff
from podvisor_common.api.core import Secret
from podvisor_common.api.meta import format_time
from podvisor_common.api.meta import now as wall_clock_now
from podvisor_common.errors import Retryable
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.errors import ApiAlreadyExists, ApiConflict, ApiError, ApiNotFound
from podvisor_common.kube.resources import SECRETS, ObjectKey
from podvisor_common.tls.authority import CertificateAuthority, KeyPair, expires_at
from podvisor_common.tls.contexts import load_pair, report_refusals, server_context

from podvisor_controller.webhooks import rotation
from podvisor_controller.webhooks.publication import (
    is_published,
    publish,
    publish_api_services,
    publish_trust,
)
from podvisor_controller.webhooks.registration import SERVICE, server_names
from podvisor_controller.webhooks.rotation import DEFAULT_LIVES, Authorities, Lives, Step

SECRET_NAME = "podvisor-ca"
# Also how long a registration that somebody damaged stays damaged.
PASS_INTERVAL_S = 20.0
# A leaf is renewed in the middle of its life: there are several attempts before its end.
PASSES_IN_A_LIFE = 6
# So soon after a pass a client that refuses the certificate leads to the next one.
REFUSAL_PAUSE_S = 5.0
# Whoever reaches the port can refuse as often as it likes.
REFUSAL_TOLD_EVERY_S = 30.0

_log = structlog.stdlib.get_logger(__name__)
_decode_secret = msgspec.json.Decoder(Secret).decode


class NotPublished(Retryable):
    """The leading replica has not told the API server of the authority yet."""


class Certificates:
    """Owns the SSL context of the webhook server and keeps it, and what the API server trusts, up
    to date.
    """

    def __init__(
        self,
        client: KubeClient,
        namespace: str,
        *,
        leads: Callable[[], bool],
        lives: Lives = DEFAULT_LIVES,
        wall_clock: Callable[[], datetime] = wall_clock_now,
        monotonic_s: Callable[[], float] | None = None,
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._leads = leads
        self._lives = lives
        self._pass_interval_s = min(PASS_INTERVAL_S, lives.leaf.total_seconds() / PASSES_IN_A_LIFE)
        self._key = ObjectKey(namespace, SECRET_NAME)
        self._wall_clock = wall_clock
        self._monotonic_s = monotonic_s
        self._leaf: KeyPair | None = None
        self._issuer = b""
        self._published: Authorities | None = None
        self._published_bundle = b""
        self._published_at_s = 0.0
        self._refused = asyncio.Event()
        self._refusal_told_s = -math.inf
        # Serves an untrusted placeholder until the first pass is through: the port opens at once,
        # clients fail.
        self.pair: KeyPair = self._placeholder()
        self.context: ssl.SSLContext = server_context(self.pair)
        self._users: list[Callable[[KeyPair], None]] = []
        report_refusals(self.context, self._on_refusal)

    async def run(self) -> None:
        """Do a pass now and every 20 s, or six in the life of a leaf, sooner after a failure or when a client refuses the
        certificate. Ends by cancellation only.
        """
        backoff = Backoff(initial_s=0.2, max_s=self._pass_interval_s)
        while True:
            try:
                await self.bring_up_to_date()
            except (ApiConflict, NotPublished):
                pause_s = backoff.next_s()
            except ApiError as error:
                pause_s = backoff.next_s()
                _log.warning("webhook certificates not up to date", error=str(error))
            else:
                backoff.reset()
                pause_s = self._pass_interval_s
            await self._pause(pause_s)

    def subscribe(self, use: Callable[[KeyPair], None]) -> None:
        """Call `use` with every certificate from now on that takes the place of `pair`: other ports show the same."""
        self._users.append(use)

    @property
    def published(self) -> Authorities | None:
        """Who signs, and whom everybody has been told to trust; None before the first pass is through."""
        return self._published

    def not_ready(self) -> str | None:
        """A readiness check: why not, or None."""
        if self._leaf is None:
            return "no certificate of the published authority yet"
        is_over = expires_at(self._leaf.certificate) <= self._wall_clock()
        return "the certificate has expired and could not be renewed" if is_over else None

    async def bring_up_to_date(self) -> None:
        """One pass: Secret, publication, leaf. Safe to repeat and to run in every replica. Raises
        ApiError, and NotPublished where another replica has to act first.
        """
        if self._published is not None:
            self._renew_leaf(self._published)
        state = await self._state()
        bundle = state.bundle(now=self._wall_clock())
        # First trust, then use: the other order would have the API server meet an unknown signer.
        if self._leads():
            await publish(self._client, self._namespace, bundle)
        elif not await is_published(self._client, bundle):
            raise NotPublished("the API server has not been told of the authority yet")
        if self._published_bundle != bundle:
            self._published_bundle, self._published_at_s = bundle, self._now_s()
        self._published = state
        self._renew_leaf(state)
        if self._leads():
            await publish_trust(self._client, self._namespace, bundle)
            await publish_api_services(self._client, self._namespace, bundle)

    async def _pause(self, pause_s: float) -> None:
        """Until the next pass. A client that refuses the certificate may have been told of the wrong authority: that cannot wait."""
        deaf_s = min(pause_s, REFUSAL_PAUSE_S)
        await asyncio.sleep(deaf_s)
        try:
            async with asyncio.timeout(pause_s - deaf_s):
                await self._refused.wait()
        except TimeoutError:
            return
        finally:
            self._refused.clear()

    def _on_refusal(self, reason: str) -> None:
        self._refused.set()
        if self._now_s() < self._refusal_told_s + REFUSAL_TOLD_EVERY_S:
            return
        self._refusal_told_s = self._now_s()
        expiry = expires_at(self._leaf.certificate) if self._leaf else None
        _log.warning(
            "a client refused the certificate of the webhooks",
            reason=reason,
            expires=expiry and format_time(expiry),
        )

    async def _state(self) -> Authorities:
        """The stored state after the step that is due, if one is."""
        try:
            secret = _decode_secret(await self._client.get(SECRETS, self._key))
        except ApiNotFound:
            return await self._create()
        state = rotation.from_secret_data(secret.data or {})
        if state is None:
            _log.error("the authority's secret is damaged, making a new one", secret=str(self._key))
        now = self._wall_clock()
        step = rotation.next_step(
            state, published_for_s=self._published_for_s(state, now), now=now, lives=self._lives
        )
        if step is Step.NOTHING and state is not None:
            return state
        return await self._store(step, self._taken(step, state, now), secret)

    async def _create(self) -> Authorities:
        now = self._wall_clock()
        state = self._taken(Step.CREATE, None, now)
        try:
            await self._client.create(SECRETS, self._namespace, self._manifest(state))
        except ApiAlreadyExists:
            # Another replica was faster: its authority is everybody's.
            secret = _decode_secret(await self._client.get(SECRETS, self._key))
            return rotation.from_secret_data(secret.data or {}) or await self._store(
                Step.CREATE, state, secret
            )
        _log.info("certificate authority created", secret=str(self._key))
        return state

    def _taken(self, step: Step, state: Authorities | None, now: datetime) -> Authorities:
        return rotation.take(step, state, now=now, lives=self._lives)

    async def _store(self, step: Step, state: Authorities, seen: Secret) -> Authorities:
        """Write the state; ApiConflict when another replica has changed the Secret since it was seen."""
        manifest = self._manifest(state, seen.metadata.resource_version)
        await self._client.update(SECRETS, self._key, manifest)
        _log.info("certificate authority changed", step=step.value, secret=str(self._key))
        return state

    def _renew_leaf(self, state: Authorities) -> None:
        now = self._wall_clock()
        signing = state.signing
        if not rotation.leaf_is_due(self._leaf, signing.certificate, self._issuer, now=now):
            return
        leaf = CertificateAuthority(signing).issue(
            SERVICE, server_names(self._namespace), now=now, valid_for=self._lives.leaf
        )
        load_pair(self.context, leaf)
        self.pair = leaf
        for use in self._users:
            use(leaf)
        self._leaf, self._issuer = leaf, signing.certificate

    def _published_for_s(self, state: Authorities | None, now: datetime) -> float | None:
        if state is None or state.bundle(now=now) != self._published_bundle:
            return None
        return self._now_s() - self._published_at_s

    def _now_s(self) -> float:
        if self._monotonic_s is not None:
            return self._monotonic_s()
        return asyncio.get_running_loop().time()

    def _placeholder(self) -> KeyPair:
        now = self._wall_clock()
        authority = rotation.new_authority(now)
        return authority.issue(
            SERVICE, server_names(self._namespace), now=now, valid_for=self._lives.leaf
        )

    def _manifest(self, state: Authorities, resource_version: str = "") -> dict[str, object]:
        metadata: dict[str, object] = {
            "name": SECRET_NAME,
            "namespace": self._namespace,
            "labels": {
                "app.kubernetes.io/name": "podvisor",
                "app.kubernetes.io/component": SERVICE,
            },
        }
        if resource_version:
            metadata["resourceVersion"] = resource_version
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": metadata,
            "type": "Opaque",
            "data": rotation.to_secret_data(state),
        }
