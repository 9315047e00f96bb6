"""Controllers of sets and pools whose caches hear of nothing, as those of a new leader may; and what a test has in the API server."""

import copy
from datetime import datetime
from typing import Any, TypeVar

import msgspec
from podvisor_common.api import v1
from podvisor_common.api.pool import VirtualMachinePool
from podvisor_common.api.v1 import names
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.controller import Reconcile, Requeue
from podvisor_common.kube.events import EventRecorder
from podvisor_common.kube.informer import Informer
from podvisor_common.kube.resources import (
    POOLS,
    REPLICA_SETS,
    VIRTUAL_MACHINE_INSTANCES,
    VIRTUAL_MACHINES,
    ObjectKey,
    Resource,
)
from podvisor_controller.pool.reconciler import PoolReconciler
from podvisor_controller.replicaset.reconciler import ReplicaSetReconciler
from podvisor_controller.sets.claims import CLAIM_INDEX, claimable

from tests.unit.controller.api_server import ApiServer, Json
from tests.unit.controller.builders import NOW, member_body, set_body
from tests.unit.controller.pools import pool_body

KEY = ObjectKey("shop", "web")


class Leader:
    """A reconciler whose caches hear of nothing but what see() tells them: no watch runs at all."""

    reconcile: Reconcile

    def __init__(self, server: ApiServer, client: KubeClient) -> None:
        self._server = server
        self._caches: dict[Resource, tuple[Informer[Any], type]] = {}
        self.at: datetime = NOW
        self.recorder = EventRecorder(client, "test", "test")

    def cache(self, client: KubeClient, resource: Resource, type_: type, kind: str = "") -> Any:
        """A cache of that resource; with `kind` it is indexed by what sets of that kind may claim."""
        indexers = {CLAIM_INDEX: claimable(kind)} if kind else {}
        informer: Informer[Any] = Informer(client, resource, type_, indexers=indexers)
        self._caches[resource] = (informer, type_)
        return informer

    def see(self, *resources: Resource) -> None:
        """Have the caches of these resources, of all unless said otherwise, as the API server is now."""
        for resource in resources or tuple(self._caches):
            informer, type_ = self._caches[resource]
            bodies = self._server.list(resource)
            informer.replace([msgspec.convert(body, type_) for body in bodies])

    async def passes(self) -> Requeue | None:
        return await self.reconcile(KEY)


class SetLeader(Leader):
    """Of sets of instances."""

    def __init__(self, server: ApiServer, client: KubeClient) -> None:
        super().__init__(server, client)
        self.vmis: Informer[v1.VirtualMachineInstance] = self.cache(
            client, VIRTUAL_MACHINE_INSTANCES, v1.VirtualMachineInstance, names.REPLICA_SET
        )
        self.reconciler = ReplicaSetReconciler(
            client,
            replica_sets=self.cache(client, REPLICA_SETS, v1.VirtualMachineInstanceReplicaSet),
            vmis=self.vmis,
            recorder=self.recorder,
            clock=lambda: self.at,
        )
        self.reconcile = self.reconciler.reconcile


class PoolLeader(Leader):
    """Of pools of machines."""

    def __init__(self, server: ApiServer, client: KubeClient) -> None:
        super().__init__(server, client)
        self.reconcile = PoolReconciler(
            client,
            pools=self.cache(client, POOLS, VirtualMachinePool),
            vms=self.cache(client, VIRTUAL_MACHINES, v1.VirtualMachine, names.POOL),
            vmis=self.cache(client, VIRTUAL_MACHINE_INSTANCES, v1.VirtualMachineInstance),
            recorder=self.recorder,
            clock=lambda: self.at,
        ).reconcile


L = TypeVar("L", bound=Leader)


class Scene:
    """What is in the API server, and whoever leads."""

    def __init__(self, server: ApiServer, client: KubeClient) -> None:
        self.server = server
        self._client = client

    def _informed(self, leader: L) -> L:
        """One that knows the API server as it is now."""
        leader.see()
        return leader


class SetScene(Scene):
    """A set of instances."""

    def leader(self) -> SetLeader:
        """Another process that leads, knowing the API server as it is now."""
        return self._informed(SetLeader(self.server, self._client))

    def put_set(self, replicas: int, **spec: Any) -> None:
        body = self.server.get(REPLICA_SETS, KEY) or set_body()
        metadata = dict(body["metadata"])
        metadata.pop("resourceVersion", None)
        metadata["generation"] += 1
        spec = body["spec"] | {"replicas": replicas} | spec
        self.server.put(REPLICA_SETS, body | {"metadata": metadata, "spec": spec})

    def put_member(self, name: str, phase: str = "Running", **changes: Any) -> Json:
        body = member_body(name, phase, **changes)
        del body["metadata"]["resourceVersion"]
        return self.server.put(VIRTUAL_MACHINE_INSTANCES, body)

    @property
    def instances(self) -> list[Json]:
        return self.server.list(VIRTUAL_MACHINE_INSTANCES)

    @property
    def living(self) -> list[str]:
        return [
            vmi["metadata"]["name"]
            for vmi in self.instances
            if "deletionTimestamp" not in vmi["metadata"]
        ]

    @property
    def status(self) -> Json:
        status: Json = (self.server.get(REPLICA_SETS, KEY) or {}).get("status") or {}
        return status

    @property
    def condition(self) -> Json:
        [condition] = self.status["conditions"]
        return dict(condition)

    def asked(self, method: str) -> list[str]:
        """What instances were asked for in that way, in the order of the requests."""
        return [
            request.path
            for request in self.server.requests
            if request.method == method and "/virtualmachineinstances" in request.path
        ]


class PoolScene(Scene):
    """A pool of machines."""

    def leader(self) -> PoolLeader:
        """Another process that leads, knowing the API server as it is now."""
        return self._informed(PoolLeader(self.server, self._client))

    def put_pool(self, replicas: int, **changes: Any) -> None:
        body = copy.deepcopy(pool_body(replicas, **changes))
        del body["metadata"]["resourceVersion"]
        self.server.put(POOLS, body)

    def put_machine(self, vm: v1.VirtualMachine, guest: v1.VirtualMachineInstance) -> None:
        for resource, obj in ((VIRTUAL_MACHINES, vm), (VIRTUAL_MACHINE_INSTANCES, guest)):
            body: Json = msgspec.to_builtins(obj)
            body["metadata"].pop("resourceVersion", None)
            self.server.put(resource, body)

    @property
    def machines(self) -> list[Json]:
        return self.server.list(VIRTUAL_MACHINES)

    @property
    def asked_to_restart(self) -> list[str]:
        return [
            vm["metadata"]["name"]
            for vm in self.machines
            if vm.get("status", {}).get("stateChangeRequests")
        ]

    def writes(self) -> list[str]:
        return [
            f"{request.method} {request.path.rpartition('/')[2]}"
            for request in self.server.requests
            if request.method != "GET"
        ]
