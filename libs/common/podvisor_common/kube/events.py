"""Kubernetes events (events.k8s.io/v1) for people who describe an object. Best effort.

Invariants: record() never waits and never fails; memory is bounded (oldest waiting events are dropped, and counted; of one that
was sent only a digest is kept, for ten minutes); the same event on the same object within ten minutes is one event object,
whose series is brought up to date at counts 2, 4, 8, …
Notes must not hold secrets; they are cut at 1 KiB.
"""

import asyncio
import hashlib
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
import structlog

from podvisor_common.aio.backoff import Backoff
from podvisor_common.api.meta import format_micro_time, now
from podvisor_common.kube import metrics
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.errors import ApiAlreadyExists, ApiError, ApiUnavailable
from podvisor_common.kube.resources import EVENTS, KubeObject, ObjectKey, Resource

NORMAL = "Normal"
WARNING = "Warning"

WINDOW_S = 600.0
QUEUE_LIMIT = 1000
REMEMBERED_LIMIT = 4096
NOTE_LIMIT_BYTES = 1024
RATE_PER_S = 10.0
BURST = 50
# Of one event, where the API server answers. Where it does not, the event waits with the others.
ATTEMPTS = 3
AWAY_RETRY_S = 10.0

# No answer, an overloaded server, or one that is not there behind its load balancer: no event's own fault.
_AWAY = (0, 429, 502, 503)

_log = structlog.get_logger(__name__)


class ObjectReference(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """The object an event is about."""

    api_version: str
    kind: str
    name: str
    namespace: str = ""
    uid: str = ""


def reference_to(resource: Resource, obj: KubeObject) -> ObjectReference:
    """The reference to a decoded object of `resource`."""
    meta = obj.metadata
    return ObjectReference(
        api_version=resource.api_version,
        kind=resource.kind,
        name=meta.name or "",
        namespace=meta.namespace or "",
        uid=meta.uid or "",
    )


@dataclass(frozen=True, slots=True)
class _Fact:
    """What makes two events the same."""

    regarding: ObjectReference
    type: str
    reason: str
    action: str
    note: str

    @property
    def namespace(self) -> str:
        return self.regarding.namespace or "default"

    def digest(self) -> bytes:
        """What is kept of it to know it again."""
        return hashlib.blake2b(msgspec.json.encode(self._parts()), digest_size=16).digest()

    def event_name(self, window: int) -> str:
        digest = hashlib.sha256(msgspec.json.encode([*self._parts(), window])).hexdigest()[:16]
        return f"{self.regarding.name[:200].rstrip('.-')}.{digest}"

    def _parts(self) -> tuple[Any, ...]:
        return (self.regarding, self.type, self.reason, self.action, self.note)


@dataclass(slots=True)
class _Series:
    window: int
    began_s: float
    count: int
    last_seen: datetime
    is_created: bool = False


class EventRecorder:
    """Records events as `component` (a qualified name such as virt-handler) in process `instance` (the pod's name)."""

    def __init__(
        self,
        client: KubeClient,
        component: str,
        instance: str,
        *,
        queue_limit: int = QUEUE_LIMIT,
        wall_clock: Callable[[], datetime] = now,
    ) -> None:
        self._client = client
        self._component = component
        self._instance = instance[:128]
        self._queue_limit = queue_limit
        self._wall_clock = wall_clock
        self._series: OrderedDict[bytes, _Series] = OrderedDict()  # the oldest first
        self._waiting: deque[tuple[_Fact, _Series]] = deque()
        self._wake = asyncio.Event()

    def record(
        self,
        regarding: ObjectReference,
        type_: str,
        reason: str,
        message: str,
        *,
        action: str = "Reconcile",
    ) -> None:
        """Note that something happened to an object. `type_` is NORMAL or WARNING, `reason` one CamelCase word."""
        fact = _Fact(regarding, type_, reason[:128], action[:128], _cut(message))
        now_s = asyncio.get_running_loop().time()
        moment = self._wall_clock()
        self._forget(now_s - WINDOW_S)
        key = fact.digest()
        series = self._series.get(key)
        if series is not None:
            series.count += 1
            series.last_seen = moment
            if series.count & (series.count - 1):
                metrics.EVENTS.labels("deduplicated").inc()
                return
        else:
            series = _Series(int(moment.timestamp() // WINDOW_S), now_s, 1, moment)
            self._series[key] = series
            if len(self._series) > REMEMBERED_LIMIT:
                self._series.popitem(last=False)
        if len(self._waiting) >= self._queue_limit:
            self._waiting.popleft()
            metrics.EVENTS.labels("dropped").inc()
        self._waiting.append((fact, series))
        self._wake.set()

    def _forget(self, began_by_s: float) -> None:
        """What happens again from now on is a new event."""
        while self._series and next(iter(self._series.values())).began_s <= began_by_s:
            self._series.popitem(last=False)

    async def run(self) -> None:
        """Send what is recorded until cancelled, in bursts of BURST and RATE_PER_S on average."""
        loop = asyncio.get_running_loop()
        tokens, counted_s = float(BURST), loop.time()
        while True:
            while not self._waiting:
                self._wake.clear()
                await self._wake.wait()
            now_s = loop.time()
            tokens = min(float(BURST), tokens + (now_s - counted_s) * RATE_PER_S)
            counted_s = now_s
            if tokens < 1.0:
                # At least a moment: rounding must not make this loop spin.
                await asyncio.sleep(max((1.0 - tokens) / RATE_PER_S, 0.01))
                continue
            tokens -= 1.0
            if self._waiting:
                await self._send(*self._waiting.popleft())

    async def _send(self, fact: _Fact, series: _Series) -> None:
        backoff = Backoff(1.0, max_s=AWAY_RETRY_S)
        attempts_left = ATTEMPTS
        while True:
            try:
                await self._write(fact, series)
            except ApiUnavailable as error:
                attempts_left -= error.status not in _AWAY
                if not attempts_left:
                    self._give_up(error)
                    return
                await asyncio.sleep(backoff.next_s(at_least_s=error.retry_after_s or 0.0))
            except ApiError as error:
                self._give_up(error)
                return
            else:
                metrics.EVENTS.labels("sent").inc()
                return

    async def _write(self, fact: _Fact, series: _Series) -> None:
        name = fact.event_name(series.window)
        if series.is_created:
            key = ObjectKey(fact.namespace, name)
            last = format_micro_time(series.last_seen)
            patch = {"series": {"count": series.count, "lastObservedTime": last}}
            await self._client.merge_patch(EVENTS, key, patch)
            return
        try:
            await self._client.create(EVENTS, fact.namespace, self._manifest(fact, series, name))
        except ApiAlreadyExists:
            _log.debug("event known from an earlier process", event_name=name)
        series.is_created = True

    def _manifest(self, fact: _Fact, series: _Series, name: str) -> dict[str, Any]:
        return {
            "apiVersion": EVENTS.api_version,
            "kind": EVENTS.kind,
            "metadata": {"name": name, "namespace": fact.namespace},
            "eventTime": format_micro_time(series.last_seen),
            "type": fact.type,
            "reason": fact.reason,
            "action": fact.action,
            "note": fact.note,
            "regarding": fact.regarding,
            "reportingController": self._component,
            "reportingInstance": self._instance,
        }

    def _give_up(self, error: ApiError) -> None:
        metrics.EVENTS.labels("failed").inc()
        _log.info("event not recorded", error=str(error))


def _cut(message: str) -> str:
    """The message within the limit of a note, cut between characters."""
    raw = message.encode()
    if len(raw) <= NOTE_LIMIT_BYTES:
        return message
    return raw[: NOTE_LIMIT_BYTES - 3].decode(errors="ignore") + "…"
