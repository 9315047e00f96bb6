"""List, then watch, for ever: the state of one resource as seen by the API server, told to a sink.

A complete list is told in one step (`replace`), everything after it as `apply` and `delete`. A watch that ends resumes
from the last version seen, bookmarks included, and what is told again is not told on; only an expired version leads to a
new list. Every failure costs a jittered pause that grows from 0.8 to 10 s and is forgotten after two minutes without one;
expired versions have pauses of their own, for who tells of one is not away.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import msgspec
import structlog

from podvisor_common.aio.backoff import Backoff
from podvisor_common.kube import metrics
from podvisor_common.kube.client import WATCH_INACTIVITY_S, KubeClient
from podvisor_common.kube.errors import (
    ApiError,
    ApiExpired,
    ApiUnavailable,
    Status,
    error_from_status,
)
from podvisor_common.kube.resources import KubeObject, Resource
from podvisor_common.kube.store import is_older_version

T = TypeVar("T", bound=KubeObject)

_log = structlog.get_logger(__name__)


class Sink(Protocol[T]):
    """Where the state goes. Synchronous: it stores and enqueues, it never waits."""

    def replace(self, objects: list[T]) -> None:
        """The complete state; what is not in it does not exist."""

    def apply(self, obj: T) -> None:
        """This object is new or has changed."""

    def delete(self, obj: T) -> None:
        """This object, given in its last state, is gone."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which objects of a resource are reflected."""

    namespace: str | None = None
    label_selector: str = ""
    field_selector: str = ""


@dataclass(frozen=True, slots=True)
class Timing:
    """The reflector's pace."""

    page_size: int = 500
    watch_timeout_min_s: float = 300.0
    watch_timeout_max_s: float = 600.0
    watch_inactivity_s: float = WATCH_INACTIVITY_S
    retry_initial_s: float = 0.8
    retry_max_s: float = 10.0
    calm_s: float = 120.0
    short_watch_s: float = 1.0


class _ListMeta(msgspec.Struct, rename="camel"):
    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class _Page(msgspec.Struct):
    metadata: _ListMeta
    items: list[msgspec.Raw] | None = None


class _WatchEvent(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _Meta(msgspec.Struct, rename="camel"):
    name: str = ""
    namespace: str = ""
    resource_version: str = ""


class _Envelope(msgspec.Struct):
    metadata: _Meta


_decode_page = msgspec.json.Decoder(_Page).decode
_decode_event = msgspec.json.Decoder(_WatchEvent).decode
_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_status = msgspec.json.Decoder(Status).decode


class Reflector(Generic[T]):
    """Keeps a sink in step with the API server for one selection of one resource."""

    def __init__(
        self,
        client: KubeClient,
        resource: Resource,
        type_: type[T],
        sink: Sink[T],
        *,
        selection: Selection = Selection(),
        keep: Callable[[T], T] | None = None,
        timing: Timing = Timing(),
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        rand: Callable[[], float] = random.random,
    ) -> None:
        self._client = client
        self._resource = resource
        self._decode = msgspec.json.Decoder(type_).decode
        self._sink = sink
        self._selection = selection
        self._keep = keep
        self._timing = timing
        self._sleep = sleep
        self._rand = rand
        self._away = self._new_backoff()
        self._expired = self._new_backoff()
        self._last_failure_s = float("-inf")
        self._version = ""

    def _new_backoff(self) -> Backoff:
        timing = self._timing
        return Backoff(timing.retry_initial_s, 2.0, timing.retry_max_s, rand=self._rand)

    @property
    def version(self) -> str:
        """The resource version up to which the sink has been told everything; empty before the first list."""
        return self._version

    async def run(self) -> None:
        """Reflect until cancelled."""
        while True:
            try:
                if not self._version:
                    await self._list()
                await self._watch()
            except ApiExpired as error:
                self._version = ""
                await self._pause_after(error)
            except ApiError as error:
                await self._pause_after(error)

    async def _list(self) -> None:
        try:
            objects, version = await self._list_pages(self._timing.page_size)
        except ApiExpired:
            # The list took longer than the server keeps its snapshot: take it in one piece.
            objects, version = await self._list_pages(0)
        metrics.INFORMER_LISTS.labels(self._resource.plural).inc()
        self._version = version
        self._sink.replace(objects)

    async def _list_pages(self, page_size: int) -> tuple[list[T], str]:
        objects: list[T] = []
        continue_ = ""
        while True:
            page = self._parse_page(
                await self._client.list_page(
                    self._resource,
                    namespace=self._selection.namespace,
                    label_selector=self._selection.label_selector,
                    field_selector=self._selection.field_selector,
                    limit=page_size,
                    continue_=continue_,
                )
            )
            objects += [obj for raw in page.items or () if (obj := self._object(raw)) is not None]
            continue_ = page.metadata.continue_
            if not continue_:
                return objects, page.metadata.resource_version

    def _parse_page(self, body: bytes) -> _Page:
        try:
            return _decode_page(body)
        except msgspec.DecodeError as error:
            raise ApiUnavailable(200, "MalformedList", str(error)) from error

    async def _watch(self) -> None:
        """One watch from the last version to its end. One that ends at once is paced like a failure."""
        timing = self._timing
        spread_s = timing.watch_timeout_max_s - timing.watch_timeout_min_s
        started_s = asyncio.get_running_loop().time()
        watch = self._client.watch(
            self._resource,
            namespace=self._selection.namespace,
            label_selector=self._selection.label_selector,
            field_selector=self._selection.field_selector,
            resource_version=self._version,
            timeout_s=timing.watch_timeout_min_s + spread_s * self._rand(),
            inactivity_s=timing.watch_inactivity_s,
        )
        async with aclosing(watch) as lines:
            async for line in lines:
                self._take(line)
        if asyncio.get_running_loop().time() - started_s < timing.short_watch_s:
            raise ApiUnavailable(0, "ShortWatch", "the watch ended at once")

    def _take(self, line: bytes) -> None:
        try:
            event = _decode_event(line)
            if event.type == "ERROR":
                status = _decode_status(event.object)
                raise error_from_status(status.code, status)
            envelope = _decode_envelope(event.object)
        except msgspec.DecodeError as error:
            raise ApiUnavailable(200, "MalformedEvent", str(error)) from error
        version = envelope.metadata.resource_version
        if version and (version == self._version or is_older_version(version, self._version)):
            # Told before. What became of the object since is known: it must not come back.
            return
        if event.type in ("ADDED", "MODIFIED", "DELETED"):
            obj = self._object(event.object)
            if obj is not None:
                (self._sink.delete if event.type == "DELETED" else self._sink.apply)(obj)
        self._version = version or self._version

    def _object(self, raw: msgspec.Raw) -> T | None:
        """The decoded object; None, and a log line, for one that does not fit its type, so that it harms no other."""
        try:
            obj = self._decode(raw)
            # At once: a list of them all, whole, would be the largest thing this process ever has.
            return obj if self._keep is None else self._keep(obj)
        except msgspec.DecodeError as error:
            meta = _decode_envelope(raw).metadata
            metrics.INFORMER_UNDECODABLE.labels(self._resource.plural).inc()
            _log.error(
                "object does not fit its type",
                resource=self._resource.plural,
                namespace=meta.namespace,
                name=meta.name,
                error=str(error),
            )
            return None

    async def _pause_after(self, error: ApiError) -> None:
        now_s = asyncio.get_running_loop().time()
        if now_s - self._last_failure_s >= self._timing.calm_s:
            self._away.reset()
            self._expired.reset()
        backoff = self._expired if isinstance(error, ApiExpired) else self._away
        pause_s = backoff.next_s(at_least_s=error.retry_after_s or 0.0)
        self._last_failure_s = now_s + pause_s
        metrics.INFORMER_FAILURES.labels(self._resource.plural, error.reason).inc()
        _log.info(
            "list or watch interrupted",
            resource=self._resource.plural,
            error=str(error),
            pause_s=round(pause_s, 2),
        )
        await self._sleep(pause_s)
