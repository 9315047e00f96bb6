"""A client that costs little: POST and DELETE from this process, one watch for all machines of a namespace.

kubectl takes 0.3 CPU seconds to start, which on a small machine is part of what would be measured. Moments are seconds of
time.monotonic(), those of requests when they were sent.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from podvisor_common.api import v1
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.informer import Informer
from podvisor_common.kube.resources import (
    VIRTUAL_MACHINE_INSTANCES,
    VIRTUAL_MACHINES,
    ObjectKey,
    Resource,
)

from tests.support.cluster import ROOT, on_node

Instance = v1.VirtualMachineInstance
PATIENCE_S = 180.0
_PODS = "/var/lib/kubelet/pods"
_SERIAL_LOG = "volumes/kubernetes.io~empty-dir/console/serial0.log"


@dataclass(frozen=True, slots=True)
class Seen:
    """One state of an instance, None when it is gone, and when it was told."""

    at_s: float
    name: str
    state: Instance | None


class Observer:
    """The machines of one namespace as a watch tells of them."""

    def __init__(self, client: KubeClient, namespace: str) -> None:
        self._client = client
        self.namespace = namespace
        self._seen: list[Seen] = []
        self._grown = asyncio.Event()
        self.instances = Informer(
            client, VIRTUAL_MACHINE_INSTANCES, v1.VirtualMachineInstance, namespace=namespace
        )
        self.instances.subscribe(lambda key, _, new: self._note(key, new))

    async def create(self, manifest: Mapping[str, Any]) -> float:
        """POST an instance or a machine; when."""
        resource = _resource(manifest["kind"])
        sent_s = time.monotonic()
        await self._client.create(resource, self.namespace, manifest, timeout_s=60)
        return sent_s

    async def delete(self, name: str) -> float:
        """DELETE an instance; when."""
        sent_s = time.monotonic()
        await self._client.delete(VIRTUAL_MACHINE_INSTANCES, ObjectKey(self.namespace, name))
        return sent_s

    async def set_strategy(self, name: str, strategy: str) -> float:
        """Change the run strategy of a machine; when."""
        return await self.edit(name, {"spec": {"runStrategy": strategy}})

    async def edit(self, name: str, patch: Mapping[str, Any]) -> float:
        """Merge a patch into a machine; when."""
        sent_s = time.monotonic()
        await self._client.merge_patch(VIRTUAL_MACHINES, ObjectKey(self.namespace, name), patch)
        return sent_s

    async def running(self, name: str, *, after_s: float, not_uid: str = "") -> float:
        """When the instance was first seen Running after a moment; `not_uid` asks for another one than that."""

        def holds(state: Instance | None) -> bool:
            return (
                state is not None
                and state.status.phase == "Running"
                and state.metadata.uid != not_uid
            )

        return await self._first(name, holds, after_s, "Running")

    async def gone(self, name: str, *, after_s: float) -> float:
        """When the instance's object was gone, after a moment."""
        return await self._first(name, lambda state: state is None, after_s, "gone")

    async def until(self, holds: Callable[[list[Instance]], bool], *, what: str) -> float:
        """When the instances of the namespace were first seen as `holds` wants them."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not holds(self.instances.list()):
                    self._grown.clear()
                    await self._grown.wait()
        except TimeoutError:
            raise AssertionError(f"not {what} after {PATIENCE_S} s") from None
        return time.monotonic()

    def instance(self, name: str) -> Instance:
        """The instance as it is. AssertionError when there is none."""
        found = self.instances.get(ObjectKey(self.namespace, name))
        assert found is not None, f"{name} does not exist"
        return found

    def pod_uid(self, name: str) -> str:
        """The uid of the instance's pod."""
        (uid,) = self.instance(name).status.active_pods or {}
        return uid

    async def login(self, name: str, *, look_every_s: float = 0.05) -> float:
        """When the guest's login prompt was found in its serial log, on the node."""
        path = f"{_PODS}/{self.pod_uid(name)}/{_SERIAL_LOG}"
        script = f"until grep -qsa '{name} login:' {path}; do sleep {look_every_s}; done"
        await on_node("timeout", str(PATIENCE_S), "sh", "-c", script, timeout_s=PATIENCE_S + 5)
        return time.monotonic()

    def _note(self, key: ObjectKey, state: Instance | None) -> None:
        self._seen.append(Seen(time.monotonic(), key.name, state))
        self._grown.set()

    async def _first(
        self, name: str, holds: Callable[[Instance | None], bool], after_s: float, what: str
    ) -> float:
        checked = 0
        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    for seen in self._seen[checked:]:
                        if seen.name == name and seen.at_s >= after_s and holds(seen.state):
                            return seen.at_s
                    checked = len(self._seen)
                    while checked == len(self._seen):
                        self._grown.clear()
                        await self._grown.wait()
        except TimeoutError:
            raise AssertionError(f"{name} is not {what} after {PATIENCE_S} s") from None


@asynccontextmanager
async def observing(namespace: str) -> AsyncIterator[Observer]:
    """An observer whose watch is open."""
    os.environ["KUBECONFIG"] = str(ROOT / ".dev/kubeconfig")
    async with await KubeClient.from_environment(user_agent="podvisor-bench") as client:
        observer = Observer(client, namespace)
        watching = asyncio.create_task(observer.instances.run(), name="instances")
        try:
            async with asyncio.timeout(20):
                await observer.instances.wait_synced()
            yield observer
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


def _resource(kind: str) -> Resource:
    return VIRTUAL_MACHINES if kind == "VirtualMachine" else VIRTUAL_MACHINE_INSTANCES
