"""The client's side of a scale run: makes machines, binds their pods, notes when each is where.

It stands in for the scheduler too: kube-scheduler sends 50 requests a second at most, which would be the figure measured.
"""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from podvisor_common.api import core
from podvisor_common.api.base import ApiObject, ApiStruct
from podvisor_common.api.meta import ObjectMeta
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.informer import Informer
from podvisor_common.kube.resources import (
    PODS,
    VIRTUAL_MACHINE_INSTANCES,
    ObjectKey,
    Resource,
    key_of,
)

from tests.perf.scale.node import TAINT

SCHEDULER = "podvisor-test-scale"
CALLS_AT_ONCE = 16
CALL_TIMEOUT_S = 60.0


class _Status(ApiStruct, frozen=True):
    phase: str = ""


class _Instance(ApiObject, frozen=True):
    metadata: ObjectMeta
    status: _Status = _Status()


def manifest(name: str, namespace: str) -> dict[str, Any]:
    """A machine like the introduction's, but for its network, which only a node with a kernel of its own can wire."""
    disk = {"disk": {"bus": "virtio"}}
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": "scale"}},
        "spec": {
            "schedulerName": SCHEDULER,
            "terminationGracePeriodSeconds": 5,
            "tolerations": [{"key": TAINT, "operator": "Exists"}],
            "domain": {
                "resources": {"requests": {"memory": "64M"}},
                "devices": {
                    "autoattachPodInterface": False,
                    "disks": [{"name": "root", **disk}, {"name": "seed", **disk}],
                },
            },
            "volumes": [
                {"name": "root", "containerDisk": {"image": "podvisor.test/fake-disk:1"}},
                {"name": "seed", "cloudInitNoCloud": {"userData": "#cloud-config\n" + "# pad\n" * 40}},
            ],
        },
    }  # fmt: skip


class Load:
    """The machines of one namespace, and the moments at which they were where, by the monotonic clock in seconds."""

    def __init__(self, client: KubeClient, namespace: str, nodes: Sequence[str]) -> None:
        self._client = client
        self._namespace = namespace
        self._nodes = itertools.cycle(nodes)
        self._changed = asyncio.Event()
        self._unbound: asyncio.Queue[ObjectKey] = asyncio.Queue()
        self._binding: set[ObjectKey] = set()
        self.created_s: dict[str, float] = {}
        self.answered_s: dict[str, float] = {}
        self.running_s: dict[str, float] = {}
        self.deleted_s: dict[str, float] = {}
        self.gone_s: dict[str, float] = {}
        self.failed: set[str] = set()
        self._vmis: Informer[_Instance] = Informer(
            client, VIRTUAL_MACHINE_INSTANCES, _Instance, namespace=namespace
        )
        self._pods: Informer[core.Pod] = Informer(client, PODS, core.Pod, namespace=namespace)
        self._vmis.subscribe(self._instance_changed)
        self._pods.subscribe(self._pod_changed)

    async def run(self) -> None:
        """Watch and bind until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._vmis.run(), name="watch-vmis")
            group.create_task(self._pods.run(), name="watch-pods")
            for number in range(CALLS_AT_ONCE):
                group.create_task(self._bind(), name=f"binder-{number}")

    async def create(self, names: Sequence[str], *, within_s: float) -> None:
        """Create machines and wait until all of them run."""

        async def one(name: str) -> None:
            self.created_s[name] = time.monotonic()
            await self._client.create(
                VIRTUAL_MACHINE_INSTANCES, self._namespace, manifest(name, self._namespace),
                timeout_s=CALL_TIMEOUT_S,
            )  # fmt: skip
            self.answered_s[name] = time.monotonic()

        async with asyncio.TaskGroup() as group:
            group.create_task(_each(names, one), name="create")
            await self._until(lambda: len(self.running_s), names, within_s=within_s, what="Running")

    async def delete(self, names: Sequence[str], *, within_s: float) -> None:
        """Delete machines and wait until all of them are gone."""

        async def one(name: str) -> None:
            self.deleted_s[name] = time.monotonic()
            key = ObjectKey(self._namespace, name)
            await self._client.delete(VIRTUAL_MACHINE_INSTANCES, key, timeout_s=CALL_TIMEOUT_S)

        async with asyncio.TaskGroup() as group:
            group.create_task(_each(names, one), name="delete")
            await self._until(lambda: len(self.gone_s), names, within_s=within_s, what="gone")

    async def _until(
        self, count: Callable[[], int], names: Sequence[str], *, within_s: float, what: str
    ) -> None:
        tenth = len(names) / 10
        told = 0
        try:
            async with asyncio.timeout(within_s):
                while count() < len(names):
                    self._changed.clear()
                    await self._changed.wait()
                    if count() >= (told + 1) * tenth:
                        told = int(count() / tenth)
                        print(f"  {count()} of {len(names)} {what}", flush=True)
        except TimeoutError:
            raise AssertionError(
                f"only {count()} of {len(names)} are {what} after {within_s} s; failed: {len(self.failed)}"
            ) from None

    def _instance_changed(
        self, key: ObjectKey, old: _Instance | None, new: _Instance | None
    ) -> None:
        now_s = time.monotonic()
        if new is None:
            self.gone_s[key.name] = now_s
        elif new.status.phase == "Running":
            self.running_s.setdefault(key.name, now_s)
        elif new.status.phase == "Failed":
            self.failed.add(key.name)
        self._changed.set()

    def _pod_changed(self, key: ObjectKey, old: core.Pod | None, new: core.Pod | None) -> None:
        if new is None:
            self._binding.discard(key)
        elif not new.spec.node_name and key not in self._binding:
            self._binding.add(key)
            self._unbound.put_nowait(key)

    async def _bind(self) -> None:
        while True:
            key = await self._unbound.get()
            target = {"apiVersion": "v1", "kind": "Node", "name": next(self._nodes)}
            binding = {
                "apiVersion": "v1",
                "kind": "Binding",
                "metadata": {"name": key.name},
                "target": target,
            }
            subresource = Resource("", "v1", f"pods/{key.name}/binding", "Binding")
            await self._client.create(
                subresource, self._namespace, binding, timeout_s=CALL_TIMEOUT_S
            )

    async def bound_pods(self) -> set[ObjectKey]:
        """The pods that exist."""
        return {key_of(pod) for pod in self._pods.list()}


async def _each(names: Iterable[str], call: Callable[[str], Awaitable[None]]) -> None:
    """Make one call per name, CALLS_AT_ONCE at a time."""
    left = iter(names)

    async def work() -> None:
        for name in left:
            await call(name)

    async with asyncio.TaskGroup() as group:
        for number in range(CALLS_AT_ONCE):
            group.create_task(work(), name=f"client-{number}")
