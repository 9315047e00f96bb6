"""A local copy of one resource, indexed, with callbacks on every change.

Invariant: reads never wait and never see half of a list. Callbacks run in the loop, right after the change, and only enqueue.
"""

import asyncio
import builtins
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from podvisor_common.kube import metrics
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.reflector import Reflector, Selection, Timing
from podvisor_common.kube.resources import KubeObject, ObjectKey, Resource, key_of
from podvisor_common.kube.store import Change, Indexer, Store, is_older_version

T = TypeVar("T", bound=KubeObject)
Callback = Callable[[ObjectKey, T | None, T | None], None]


class Informer(Generic[T]):
    """Caches the objects of `resource` that match the selectors, decoded as `type_`.

    `keep` says what of an object is worth its place in the cache: the same object with less in it. In metrics a cache is
    `called` as its resource, unless there are several of that.
    """

    def __init__(
        self,
        client: KubeClient,
        resource: Resource,
        type_: type[T],
        *,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        indexers: Mapping[str, Indexer[T]] | None = None,
        keep: Callable[[T], T] | None = None,
        called: str | None = None,
        timing: Timing = Timing(),  # noqa: B008  (frozen)
    ) -> None:
        self.resource = resource
        self._store: Store[T] = Store(indexers or {})
        self._keep = keep
        self._callbacks: list[Callback[T]] = []
        self._synced = asyncio.Event()
        self._objects = metrics.INFORMER_OBJECTS.labels(called or resource.plural)
        self._reflector = Reflector(
            client,
            resource,
            type_,
            self,
            selection=Selection(namespace, label_selector, field_selector),
            keep=keep,
            timing=timing,
        )

    @property
    def synced(self) -> bool:
        """Whether the cache has ever been complete."""
        return self._synced.is_set()

    async def wait_synced(self) -> None:
        """Wait for the first complete list; how long is the caller's to bound."""
        await self._synced.wait()

    def get(self, key: ObjectKey) -> T | None:
        """The object as last seen. Shared: it must not be changed."""
        return self._store.get(key)

    def list(self) -> builtins.list[T]:
        """All objects, in no particular order."""
        return self._store.list()

    def by_index(self, name: str, value: str) -> builtins.list[T]:
        """The objects for which indexer `name` gave `value`, in key order."""
        return self._store.by_index(name, value)

    def subscribe(self, callback: Callback[T]) -> None:
        """Call `callback(key, old, new)` after every change from now on, and for what is already known."""
        self._callbacks.append(callback)
        for change in Store[T]({}).replace(self._store.list()):
            callback(change.key, change.old, change.new)

    async def run(self) -> None:
        """Keep the cache in step until cancelled."""
        await self._reflector.run()

    def learn(self, obj: T) -> None:
        """Take over the answer to a write of our own, so that the next pass sees it before the watch tells of it.

        One that the watch is past already, of an object that is not here, is of an object deleted meanwhile.
        """
        version = obj.metadata.resource_version or ""
        is_known = self._store.get(key_of(obj)) is not None
        if is_known or is_older_version(self._reflector.version, version):
            self.apply(obj if self._keep is None else self._keep(obj))

    def replace(self, objects: builtins.list[T]) -> None:
        """For the reflector: the complete state."""
        changes = self._store.replace(objects)
        self._objects.set(len(objects))
        self._synced.set()
        for change in changes:
            self._tell(change)

    def apply(self, obj: T) -> None:
        """For the reflector: a new or changed object."""
        self._changed(self._store.apply(obj))

    def delete(self, obj: T) -> None:
        """For the reflector: an object that is gone."""
        self._changed(self._store.delete(obj))

    def _changed(self, change: Change[T] | None) -> None:
        if change is not None:
            self._objects.set(len(self._store))
            self._tell(change)

    def _tell(self, change: Change[T]) -> None:
        for callback in self._callbacks:
            callback(change.key, change.old, change.new)
