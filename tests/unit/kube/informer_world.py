"""An informer on the pods of a fake API server, and everything that it tells."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from podvisor_common.api.meta import ObjectMeta
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.informer import Informer
from podvisor_common.kube.reflector import Timing
from podvisor_common.kube.resources import PODS, ObjectKey

from tests.unit.kube.fake_apiserver import (
    FakeApiServer,
    WatchFault,
)


class Spec(msgspec.Struct, frozen=True, rename="camel"):
    node_name: str = ""


class Pod(msgspec.Struct, frozen=True):
    metadata: ObjectMeta
    spec: Spec = Spec()


def pod(name: str, node: str = "n1", namespace: str = "shop") -> dict[str, Any]:
    return {"metadata": {"namespace": namespace, "name": name}, "spec": {"nodeName": node}}


def key(name: str) -> ObjectKey:
    return ObjectKey("shop", name)


class World:
    """A server, an informer on its pods, and everything the informer has told."""

    def __init__(self, server: FakeApiServer, informer: Informer[Pod]) -> None:
        self.server = server
        self.informer = informer
        self.told: list[tuple[str, str | None, str | None]] = []
        self._told = asyncio.Condition()
        self._changed = asyncio.Event()
        informer.subscribe(self._on_change)

    def _on_change(self, key: ObjectKey, old: Pod | None, new: Pod | None) -> None:
        self.told.append(
            (key.name, old.spec.node_name if old else None, new.spec.node_name if new else None)
        )
        self._changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    def nodes(self) -> dict[str, str]:
        return {obj.metadata.name: obj.spec.node_name for obj in self.informer.list()}

    @property
    def lists(self) -> int:
        return sum(request.is_list for request in self.server.requests)

    @property
    def watches(self) -> list[dict[str, str]]:
        return [request.query for request in self.server.requests if request.is_watch]


@asynccontextmanager
async def world(
    *objects: dict[str, Any],
    faults: tuple[WatchFault, ...] = (),
    timing: Timing = Timing(),  # noqa: B008  (frozen)
    **options: Any,
) -> AsyncIterator[World]:
    async with (
        FakeApiServer() as server,
        KubeClient.for_url(server.url, user_agent="test") as client,
    ):
        for obj in objects:
            server.put(PODS, obj)
        server.watch_faults.extend(faults)
        informer = Informer(
            client,
            PODS,
            Pod,
            indexers={"node": lambda pod: [pod.spec.node_name]},
            timing=timing,
            **options,
        )
        it = World(server, informer)
        task = asyncio.create_task(informer.run(), name="informer")
        try:
            await informer.wait_synced()
            yield it
        finally:
            task.cancel()
            await asyncio.wait([task])
