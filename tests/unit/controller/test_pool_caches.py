"""Pools whose caches hear of nothing, as those of a new leader may: nothing is made twice, and no guest stopped beside another."""

import copy
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from podvisor_common.api import v1
from podvisor_common.api.pool import VirtualMachinePool
from podvisor_common.api.v1 import names
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.controller import Requeue
from podvisor_common.kube.errors import ApiAlreadyExists
from podvisor_common.kube.events import EventRecorder
from podvisor_common.kube.informer import Informer
from podvisor_common.kube.resources import (
    POOLS,
    VIRTUAL_MACHINE_INSTANCES,
    VIRTUAL_MACHINES,
    ObjectKey,
    Resource,
)
from podvisor_controller.pool.reconciler import PoolReconciler
from podvisor_controller.sets.claims import CLAIM_INDEX, claimable

from tests.unit.controller.api_server import ApiServer, Json
from tests.unit.controller.builders import NOW, stamp
from tests.unit.controller.pools import (
    POOL_UID,
    guest_of,
    machine_of,
    pool,
    pool_body,
    template_body,
)
from tests.unit.kube.fake_apiserver import Refuse

KEY = ObjectKey("shop", "web")
OLD = pool(virtualMachineTemplate=template_body("32M"))


class Leader:
    """A reconciler whose caches hear of nothing but what see() tells them: no watch runs at all."""

    def __init__(self, server: ApiServer, client: KubeClient) -> None:
        self._server = server
        self.pools = Informer(client, POOLS, VirtualMachinePool)
        self.vms = Informer(
            client,
            VIRTUAL_MACHINES,
            v1.VirtualMachine,
            indexers={CLAIM_INDEX: claimable(names.POOL)},
        )
        self.vmis = Informer(client, VIRTUAL_MACHINE_INSTANCES, v1.VirtualMachineInstance)
        self.at = NOW
        self._reconciler = PoolReconciler(
            client,
            pools=self.pools,
            vms=self.vms,
            vmis=self.vmis,
            recorder=EventRecorder(client, "test", "test"),
            clock=lambda: self.at,
        )

    def see(self, *resources: Resource) -> None:
        """Have the caches of these resources, of all unless said otherwise, as the API server is now."""
        for resource in resources or (POOLS, VIRTUAL_MACHINES, VIRTUAL_MACHINE_INSTANCES):
            bodies = self._server.list(resource)
            if resource is POOLS:
                self.pools.replace(msgspec.convert(bodies, list[VirtualMachinePool]))
            elif resource is VIRTUAL_MACHINES:
                self.vms.replace(msgspec.convert(bodies, list[v1.VirtualMachine]))
            else:
                self.vmis.replace(msgspec.convert(bodies, list[v1.VirtualMachineInstance]))

    async def passes(self) -> Requeue | None:
        return await self._reconciler.reconcile(KEY)


class Scene:
    """The pool in the API server, and whoever leads."""

    def __init__(self, server: ApiServer, client: KubeClient) -> None:
        self.server = server
        self._client = client

    def leader(self) -> Leader:
        """Another process that leads, knowing the API server as it is now."""
        leader = Leader(self.server, self._client)
        leader.see()
        return leader

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


@pytest.fixture
def scene(server: ApiServer, client: KubeClient) -> Scene:
    return Scene(server, client)


def outdated(scene: Scene, **changes: Any) -> None:
    """Three machines with the present template, whose guests are of the one before and serve."""
    in_order = {"proactive": {"selectionPolicy": {"sortPolicy": "AscendingOrder"}}}
    scene.put_pool(3, **({"maxUnavailable": 1, "updateStrategy": in_order} | changes))
    for index in range(3):
        scene.put_machine(machine_of(pool(), index), guest_of(machine_of(OLD, index)))


async def test_what_another_leader_made_is_not_made_again(scene: Scene) -> None:
    scene.put_pool(3)
    old, new = scene.leader(), scene.leader()
    await old.passes()
    await new.passes()
    assert sorted(vm["metadata"]["name"] for vm in scene.machines) == ["web-0", "web-1", "web-2"]


async def test_a_name_that_is_taken_is_looked_at_again(scene: Scene) -> None:
    scene.put_pool(1)
    leader = scene.leader()
    vm = machine_of(pool(), 0, metadata={"ownerReferences": []})
    scene.put_machine(vm, guest_of(vm))
    with pytest.raises(ApiAlreadyExists):
        await leader.passes()
    leader.see()
    assert await leader.passes() is None
    assert len(scene.machines) == 1


async def test_once_all_is_as_wanted_there_is_nothing_to_write(scene: Scene) -> None:
    scene.put_pool(2)
    leader = scene.leader()
    await leader.passes()
    leader.see()
    await leader.passes()
    scene.server.requests.clear()
    assert await leader.passes() is None
    assert scene.server.requests == []


async def test_a_guest_is_restarted_by_requests_to_its_machine(scene: Scene) -> None:
    outdated(scene)
    leader = scene.leader()
    await leader.passes()
    assert scene.asked_to_restart == ["web-0"]
    vm = scene.server.get(VIRTUAL_MACHINES, ObjectKey("shop", "web-0")) or {}
    assert vm["status"]["stateChangeRequests"] == [
        {"action": "Stop", "uid": "vmi-of-vm-0"},
        {"action": "Start"},
    ]
    await leader.passes()
    assert scene.asked_to_restart == ["web-0"]


async def test_no_guest_is_stopped_beside_one_that_is_gone_and_that_nobody_has_heard_of(
    scene: Scene,
) -> None:
    outdated(scene)
    leader = scene.leader()
    scene.server.remove(VIRTUAL_MACHINE_INSTANCES, ObjectKey("shop", "web-2"))
    await leader.passes()
    assert scene.asked_to_restart == []


async def test_a_machine_that_has_changed_is_not_restarted_by_what_it_was(scene: Scene) -> None:
    outdated(scene)
    leader = scene.leader()
    key = ObjectKey("shop", "web-0")
    vm = scene.server.get(VIRTUAL_MACHINES, key) or {}
    # Its user has halted it.
    scene.server.put(VIRTUAL_MACHINES, vm | {"spec": vm["spec"] | {"runStrategy": "Halted"}})
    await leader.passes()
    assert scene.asked_to_restart == ["web-1"]


async def test_a_new_leader_deletes_no_others_than_the_old_one(scene: Scene) -> None:
    scene.put_pool(1)
    for index in range(4):
        vm = machine_of(pool(), index)
        scene.put_machine(vm, guest_of(vm))
    old, new = scene.leader(), scene.leader()
    await old.passes()
    await new.passes()
    living = [vm for vm in scene.machines if "deletionTimestamp" not in vm["metadata"]]
    assert len(living) == 1


async def test_nothing_is_done_by_a_pool_that_only_a_cache_knows(scene: Scene) -> None:
    """It was larger, of another template or about to go: the machines are those of the present one."""
    scene.put_pool(1, virtualMachineTemplate=template_body("32M"))
    leader = scene.leader()
    scene.put_pool(2, scaleInStrategy={"proactive": {}})
    for index in range(2):
        vm = machine_of(pool(), index)
        scene.put_machine(vm, guest_of(vm))
    leader.see(VIRTUAL_MACHINES, VIRTUAL_MACHINE_INSTANCES)
    scene.server.requests.clear()
    await leader.passes()
    assert scene.writes() == ["PATCH status"]


async def test_a_machine_that_runs_by_now_is_not_deleted_for_having_been_stopped(
    scene: Scene,
) -> None:
    scene.put_pool(0, scaleInStrategy={"opportunistic": {}})
    vm = machine_of(pool(), 0)
    scene.put_machine(vm, guest_of(vm, phase="Succeeded", ready=False))
    leader = scene.leader()
    scene.put_machine(vm, guest_of(vm))
    await leader.passes()
    assert "deletionTimestamp" not in scene.machines[0]["metadata"]


async def test_a_pool_that_is_on_its_way_out_adopts_nothing(scene: Scene) -> None:
    """The cache has not heard of the deletion, and the orphans it sees are those that the deletion leaves."""
    scene.put_pool(1)
    vm = machine_of(pool(), 0, metadata={"ownerReferences": []})
    scene.put_machine(vm, guest_of(vm))
    leader = scene.leader()
    metadata = {"deletionTimestamp": stamp(), "finalizers": ["orphan"]}
    scene.put_pool(1, metadata=metadata)
    assert await leader.passes() is None
    assert scene.machines[0]["metadata"]["ownerReferences"] == ()


async def test_another_namespace_is_not_the_pools(scene: Scene) -> None:
    """Anybody may write the pool's UID there."""
    scene.put_pool(0)
    vm = machine_of(pool(), 0, metadata={"namespace": "else"})
    assert vm.metadata.controller_reference() is not None
    assert vm.metadata.owner_references is not None
    assert vm.metadata.owner_references[0].uid == POOL_UID
    scene.put_machine(vm, guest_of(vm))
    await scene.leader().passes()
    assert len(scene.machines) == 1
    assert "DELETE web-0" not in scene.writes()


async def test_what_is_refused_is_tried_again_later(scene: Scene) -> None:
    scene.put_pool(3)
    scene.server.refuse("POST", "/virtualmachines", Refuse(403, "Forbidden", "quota"))
    leader = scene.leader()
    wait = await leader.passes()
    # One is tried before all: a second one would not have been refused.
    assert scene.machines == []
    [condition] = (scene.server.get(POOLS, KEY) or {})["status"]["conditions"]
    assert condition["reason"] == "FailedScaleOut"
    assert condition["message"] == "The VirtualMachine cannot be created: quota"
    assert wait is not None
    await leader.passes()
    assert scene.machines == []
    leader.at += timedelta(seconds=wait.after_s)
    await leader.passes()
    assert len(scene.machines) == 3
    assert "conditions" not in (scene.server.get(POOLS, KEY) or {})["status"]
