"""Sets of instances and pools of machines as a user sees and changes them, by a client of the user's own."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, ClassVar

from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.resources import (
    EVENTS,
    POOLS,
    REPLICA_SETS,
    VIRTUAL_MACHINE_INSTANCES,
    VIRTUAL_MACHINES,
    ObjectKey,
    Resource,
)

from tests.unit.controller.api_server import ApiServer, Json
from tests.unit.controller.builders import set_body
from tests.unit.controller.pools import pool_body

KEY = ObjectKey("shop", "web")


class SetUser:
    """What is the same for both."""

    resource: ClassVar[Resource]

    def __init__(self, server: ApiServer, users: KubeClient) -> None:
        self.server = server
        self._users = users

    async def create(self, body: Json) -> None:
        for name in ("uid", "resourceVersion"):
            del body["metadata"][name]
        await self._users.create(self.resource, KEY.namespace, body)

    async def change(self, **spec: Any) -> None:
        await self._users.merge_patch(self.resource, KEY, {"spec": spec})

    @property
    def body(self) -> Json:
        return self.server.get(self.resource, KEY) or {}

    @property
    def status(self) -> Json:
        status: Json = self.body.get("status") or {}
        return status

    def events(self, reason: str) -> list[str]:
        """What events of that reason say about the set or the pool."""
        return [
            event["note"]
            for event in self.server.list(EVENTS)
            if event["reason"] == reason and event["regarding"]["name"] == KEY.name
        ]

    async def until(self, holds: Callable[[], bool]) -> None:
        await self.server.until(holds)


class Sets(SetUser):
    """The set as a user sees and changes it, by a client of the user's own."""

    resource = REPLICA_SETS

    async def apply(self, replicas: int) -> None:
        await self.create(set_body(replicas))

    async def label(self, name: str, app: str) -> None:
        key = ObjectKey(KEY.namespace, name)
        patch = {"metadata": {"labels": {"app": app}}}
        await self._users.merge_patch(VIRTUAL_MACHINE_INSTANCES, key, patch)

    def report(self, name: str, phase: str) -> None:
        """The handler's word on a guest that has ended."""
        vmi = self.server.get(VIRTUAL_MACHINE_INSTANCES, ObjectKey(KEY.namespace, name)) or {}
        self.server.put(
            VIRTUAL_MACHINE_INSTANCES, vmi | {"status": vmi["status"] | {"phase": phase}}
        )

    @property
    def own(self) -> list[str]:
        """The names of the set's instances, those on their way out included."""
        uid = self.body["metadata"]["uid"]
        return [
            vmi["metadata"]["name"]
            for vmi in self.server.list(VIRTUAL_MACHINE_INSTANCES)
            if uid in [owner["uid"] for owner in vmi["metadata"].get("ownerReferences", [])]
        ]

    @property
    def created(self) -> list[str]:
        return [
            obj["metadata"]["name"]
            for obj in self.server.created
            if obj["kind"] == "VirtualMachineInstance"
        ]

    def conditions(self) -> list[str]:
        return [condition["type"] for condition in self.status.get("conditions", [])]

    async def ready(self, count: int) -> None:
        """Wait until so many run, as the status says, and no other is left."""

        def holds() -> bool:
            counts = (self.status.get("replicas"), self.status.get("readyReplicas"))
            return counts == (count, count) and len(self.own) == count

        await self.until(holds)


class Pools(SetUser):
    """The pool as a user sees and changes it, by a client of the user's own."""

    resource = POOLS

    def __init__(self, server: ApiServer, users: KubeClient) -> None:
        super().__init__(server, users)
        self.most_unavailable = 0

    async def apply(self, replicas: int, **spec: Any) -> None:
        await self.create(pool_body(replicas, **spec))

    async def label(self, name: str, value: str) -> None:
        patch = {"metadata": {"labels": {"pool": value}}}
        await self._users.merge_patch(VIRTUAL_MACHINES, ObjectKey(KEY.namespace, name), patch)

    async def delete(self, name: str) -> None:
        await self._users.delete(VIRTUAL_MACHINES, ObjectKey(KEY.namespace, name))

    @property
    def machines(self) -> list[Json]:
        """The pool's machines, those on their way out included."""
        uid = self.body["metadata"]["uid"]
        return [
            vm
            for vm in self.server.list(VIRTUAL_MACHINES)
            if uid in [owner["uid"] for owner in vm["metadata"].get("ownerReferences", [])]
        ]

    @property
    def names(self) -> list[str]:
        return sorted(vm["metadata"]["name"] for vm in self.machines)

    @property
    def created(self) -> list[str]:
        machines = [obj for obj in self.server.created if obj["kind"] == "VirtualMachine"]
        return sorted(vm["metadata"]["name"] for vm in machines)

    @property
    def memories(self) -> set[str]:
        """What the guests have, each as its machine started it."""
        return {
            vmi["spec"]["domain"]["resources"]["requests"]["memory"]
            for vmi in self.server.list(VIRTUAL_MACHINE_INSTANCES)
        }

    @property
    def unavailable(self) -> int:
        """Machines whose guest does not serve."""
        instances = {
            vmi["metadata"]["name"]: vmi for vmi in self.server.list(VIRTUAL_MACHINE_INSTANCES)
        }
        return sum(not _serves(instances.get(name)) for name in self.names)

    def conditions(self) -> dict[str, str]:
        return {c["type"]: c["reason"] for c in self.status.get("conditions", [])}

    async def ready(self, *indexes: int) -> None:
        """Wait until just these run, as the status says."""

        def holds() -> bool:
            counts = (self.status.get("replicas"), self.status.get("readyReplicas"))
            wanted = sorted(f"web-{index}" for index in indexes)
            return counts == (len(indexes),) * 2 and self.names == wanted and not self.unavailable

        await self.until(holds)

    async def updated(self, memory: str) -> None:
        """Wait until every guest has that memory and serves."""
        await self.until(lambda: self.memories == {memory} and self.unavailable == 0)

    def writes(self) -> list[str]:
        """Every write of the controller for the pool: about it, or about machines beside what their own life costs."""
        found = []
        for request in self.server.requests:
            if request.method == "GET" or request.headers["User-Agent"] == "users":
                continue
            is_update = isinstance(request.body, list)
            status = {} if is_update else (request.body or {}).get("status", {})
            asks = len(status.get("stateChangeRequests") or ()) == 2
            is_machine = "/virtualmachines/" in request.path
            if request.path.endswith("/virtualmachines") or (is_machine and (is_update or asks)):
                found.append(f"{request.method} machine")
            elif "/virtualmachinepools/" in request.path:
                found.append(f"{request.method} pool")
        return found

    @asynccontextmanager
    async def counting(self) -> AsyncIterator[None]:
        """Look at every change how many do not serve."""

        def look() -> bool:
            self.most_unavailable = max(self.most_unavailable, self.unavailable)
            return False

        async def go_on() -> None:
            while True:
                await self.server.until(look)

        watching = asyncio.create_task(go_on(), name="counting")
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


def _serves(vmi: Json | None) -> bool:
    if vmi is None or "deletionTimestamp" in vmi["metadata"]:
        return False
    conditions = vmi.get("status", {}).get("conditions", [])
    return {"Ready": "True"} in [{c["type"]: c["status"]} for c in conditions]
