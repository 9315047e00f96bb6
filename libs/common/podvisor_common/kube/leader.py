"""One leader among the replicas, by a Lease.

Invariants: time is measured on this process's monotonic clock only. A candidate follows the lease by a watch and takes over
as soon as it is given back, or when it has *itself* seen the lease unchanged for its duration; a leader stops when its last renewal, counted from the moment it was *sent*, is
`renew_deadline_s` old. Wall-clock times in the lease are for people. There is no fencing: a leader that loses the lease has
`cancel_within_s` to end its work, and renew_deadline_s + cancel_within_s < lease_s keeps it from overlapping with the next.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from datetime import datetime
from typing import Any

import msgspec
import structlog

from podvisor_common.api.core import Lease, LeaseSpec
from podvisor_common.api.meta import format_micro_time, now
from podvisor_common.errors import Terminal
from podvisor_common.kube import metrics
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.errors import (
    ApiAlreadyExists,
    ApiConflict,
    ApiError,
    ApiNotFound,
    ApiUnavailable,
)
from podvisor_common.kube.resources import LEASES, ObjectKey

JITTER = 0.2
RELEASE_TIMEOUT_S = 2.0
WATCH_S = 300.0


class _WatchEvent(msgspec.Struct):
    type: str
    object: msgspec.Raw


_log = structlog.get_logger(__name__)
_decode_lease = msgspec.json.Decoder(Lease).decode
_decode_event = msgspec.json.Decoder(_WatchEvent).decode


class LeadershipLost(Terminal):
    """The lease was not renewed in time or went to somebody else. The leading task has ended; the process should too."""


class LeadingTaskStuck(LeadershipLost):
    """As LeadershipLost, but the leading task did not end when cancelled: the process must exit at once (os._exit)."""


class LeaderElection:
    """A candidate for one Lease. `identity` is the pod's name."""

    def __init__(
        self,
        client: KubeClient,
        namespace: str,
        name: str,
        identity: str,
        *,
        lease_s: float = 15.0,
        renew_deadline_s: float = 10.0,
        retry_s: float = 5.0,
        cancel_within_s: float = 2.0,
        wall_clock: Callable[[], datetime] = now,
        rand: Callable[[], float] = random.random,
    ) -> None:
        if renew_deadline_s + cancel_within_s >= lease_s:
            raise ValueError("renew_deadline_s + cancel_within_s must be less than lease_s")
        self._client = client
        self._key = ObjectKey(namespace, name)
        self._identity = identity
        self._lease_s = lease_s
        self._renew_deadline_s = renew_deadline_s
        self._retry_s = retry_s
        self._cancel_within_s = cancel_within_s
        self._wall_clock = wall_clock
        self._rand = rand
        # Short enough that a hanging call leaves time for another attempt before the deadline.
        self._call_timeout_s = retry_s / 2
        self._gauge = metrics.LEADER.labels(name)
        self._gauge.set(0)
        self._observed: LeaseSpec | None = None
        self._observed_at_s = 0.0
        self._version = ""
        self._valid_until_s: float | None = None

    @property
    def is_leader(self) -> bool:
        """Whether the lease is held right now; false as soon as the renewal is overdue, before anyone has noticed."""
        return self._valid_until_s is not None and _now_s() < self._valid_until_s

    async def run(self, lead: Callable[[], Awaitable[None]]) -> None:
        """Wait for the lease, then run `lead()` while it is held; return or raise with it.

        LeadershipLost (or LeadingTaskStuck) when the lease is lost first. However it ends, a lease still held is
        released once `lead` has ended, so that the next leader need not wait.
        """
        await self._acquire()
        _log.info("leading", lease=str(self._key), identity=self._identity)
        self._gauge.set(1)
        leading = asyncio.create_task(_as_coroutine(lead), name=f"leading-{self._key.name}")
        renewing = asyncio.create_task(self._renew_until_lost(), name=f"renewing-{self._key.name}")
        try:
            await asyncio.wait((leading, renewing), return_when=asyncio.FIRST_COMPLETED)
            is_lost = not leading.done()
        finally:
            self._gauge.set(0)
            has_ended = await self._end(leading, renewing)
            if has_ended:
                await self._release()
            self._valid_until_s = None
            if not has_ended:
                # Even to a cancelled caller: what goes on without the lease matters more than how it came to that.
                raise LeadingTaskStuck(f"the work under lease {self._key} goes on without it")
        if is_lost:
            cause = _failure_of(renewing) or _failure_of(leading)
            raise LeadershipLost(f"lease {self._key} was lost") from cause
        await leading

    async def _end(self, *tasks: asyncio.Task[None]) -> bool:
        """Cancel the tasks; whether they ended in time."""
        for task in tasks:
            task.cancel()
        _, pending = await asyncio.wait(tasks, timeout=self._cancel_within_s)
        return not pending

    async def _acquire(self) -> None:
        while True:
            try:
                if await self._try_acquire():
                    return
                await self._until_free()
            except ApiError as error:
                _log.info("lease not reachable", lease=str(self._key), error=str(error))
                await asyncio.sleep(self._jittered(self._retry_s))

    async def _try_acquire(self) -> bool:
        """Take the lease if it is free, ours, or was seen unchanged for its duration."""
        try:
            await self._observe()
        except ApiNotFound:
            # Whoever held it has not noticed yet that it was deleted.
            is_over = self._observed is None or self._is_free(self._observed)
            return await self._create() if is_over else False
        assert self._observed is not None
        if not self._is_free(self._observed):
            return False
        sent_s = _now_s()
        changes = self._held()
        if self._observed.holder_identity != self._identity:
            changes["acquireTime"] = changes["renewTime"]
            changes["leaseTransitions"] = (self._observed.lease_transitions or 0) + 1
        try:
            await self._write(changes)
        except ApiConflict:
            return False
        self._valid_until_s = sent_s + self._renew_deadline_s
        return True

    async def _until_free(self) -> None:
        """Follow the lease until it is free; return sooner, after a pause, when the API server ends the watch."""
        assert self._observed is not None
        lines = self._client.watch(
            LEASES,
            namespace=self._key.namespace,
            field_selector=f"metadata.name={self._key.name}",
            resource_version=self._version,
            timeout_s=WATCH_S,
        )
        try:
            async with (
                asyncio.timeout_at(self._runs_out_s(self._observed)) as wait,
                aclosing(lines),
            ):
                async for line in lines:
                    event = _decode_event(line)
                    if event.type in ("DELETED", "ERROR"):
                        break
                    if event.type == "BOOKMARK":
                        continue
                    self._remember(_decode_lease(event.object))
                    if self._is_free(self._observed):
                        return
                    wait.reschedule(self._runs_out_s(self._observed))
        except TimeoutError:
            return
        except msgspec.DecodeError as error:
            raise ApiUnavailable(200, "MalformedEvent", str(error)) from error
        await asyncio.sleep(self._jittered(self._retry_s / 5))

    def _is_free(self, observed: LeaseSpec) -> bool:
        is_ours = (observed.holder_identity or "") in ("", self._identity)
        return is_ours or _now_s() >= self._runs_out_s(observed)

    def _runs_out_s(self, observed: LeaseSpec) -> float:
        return self._observed_at_s + float(observed.lease_duration_seconds or self._lease_s)

    async def _create(self) -> bool:
        sent_s = _now_s()
        spec = self._held()
        spec |= {"acquireTime": spec["renewTime"], "leaseTransitions": 0}
        manifest = {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.kind,
            "metadata": {"name": self._key.name, "namespace": self._key.namespace},
            "spec": spec,
        }
        try:
            body = await self._client.create(
                LEASES, self._key.namespace, manifest, timeout_s=self._call_timeout_s
            )
        except ApiAlreadyExists:
            return False
        self._remember(_decode_lease(body))
        self._valid_until_s = sent_s + self._renew_deadline_s
        return True

    async def _renew_until_lost(self) -> None:
        """Renew every `retry_s`; return when the lease is lost. Failed attempts are repeated five times as often."""
        pause_s = self._retry_s
        while True:
            assert self._valid_until_s is not None
            left_s = self._valid_until_s - _now_s()
            if left_s <= 0:
                _log.error("lease not renewed in time", lease=str(self._key))
                return
            await asyncio.sleep(min(self._jittered(pause_s), left_s))
            if not self.is_leader:
                continue
            sent_s = _now_s()
            try:
                left_s = self._valid_until_s - sent_s
                await self._write(self._held(), timeout_s=min(self._call_timeout_s, left_s))
            except ApiConflict:
                if await self._is_taken():
                    return
                pause_s = self._retry_s / 5
            except ApiError as error:
                _log.warning("lease not renewed", lease=str(self._key), error=str(error))
                pause_s = self._retry_s / 5
            else:
                self._valid_until_s = sent_s + self._renew_deadline_s
                pause_s = self._retry_s

    async def _is_taken(self) -> bool:
        """Whether somebody else holds the lease; what cannot be found out is left to the deadline."""
        try:
            await self._observe()
        except ApiError:
            return False
        assert self._observed is not None
        if self._observed.holder_identity == self._identity:
            return False
        _log.error(
            "lease taken", lease=str(self._key), holder=self._observed.holder_identity or "nobody"
        )
        self._valid_until_s = None
        return True

    async def _release(self) -> None:
        """Give a lease still held back at once; best effort, for it runs out anyway."""
        if not self.is_leader:
            return
        moment = format_micro_time(self._wall_clock())
        changes = {"holderIdentity": None, "leaseDurationSeconds": 1, "renewTime": moment}
        try:
            await self._write(changes, timeout_s=RELEASE_TIMEOUT_S)
        except ApiError as error:
            _log.info("lease not released", lease=str(self._key), error=str(error))

    async def _observe(self) -> None:
        body = await self._client.get(LEASES, self._key, timeout_s=self._call_timeout_s)
        self._remember(_decode_lease(body))

    async def _write(self, spec: dict[str, Any], *, timeout_s: float | None = None) -> None:
        """Change the lease, unless anybody else has since it was last seen (ApiConflict)."""
        patch = {"metadata": {"resourceVersion": self._version}, "spec": spec}
        body = await self._client.merge_patch(
            LEASES, self._key, patch, timeout_s=timeout_s or self._call_timeout_s
        )
        self._remember(_decode_lease(body))

    def _remember(self, lease: Lease) -> None:
        self._version = lease.metadata.resource_version
        if lease.spec != self._observed:
            self._observed = lease.spec
            self._observed_at_s = _now_s()

    def _held(self) -> dict[str, Any]:
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": int(self._lease_s),
            "renewTime": format_micro_time(self._wall_clock()),
        }

    def _jittered(self, pause_s: float) -> float:
        return pause_s * (1.0 + JITTER * self._rand())


def _now_s() -> float:
    return asyncio.get_running_loop().time()


async def _as_coroutine(lead: Callable[[], Awaitable[None]]) -> None:
    await lead()


def _failure_of(task: asyncio.Task[None]) -> BaseException | None:
    return None if task.cancelled() else task.exception()
