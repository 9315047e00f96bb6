"""Pools whose caches hear of nothing, as those of a new leader may: nothing is made twice, and no guest stopped beside another."""

from datetime import timedelta
from typing import Any

import pytest
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.errors import ApiAlreadyExists
from podvisor_common.kube.resources import (
    POOLS,
    VIRTUAL_MACHINE_INSTANCES,
    VIRTUAL_MACHINES,
    ObjectKey,
)

from tests.unit.controller.api_server import ApiServer
from tests.unit.controller.builders import stamp
from tests.unit.controller.pools import (
    POOL_UID,
    guest_of,
    machine_of,
    pool,
    template_body,
)
from tests.unit.controller.unaware_leaders import KEY, PoolScene
from tests.unit.kube.fake_apiserver import Refuse

OLD = pool(virtualMachineTemplate=template_body("32M"))


@pytest.fixture
def scene(server: ApiServer, client: KubeClient) -> PoolScene:
    return PoolScene(server, client)


def outdated(scene: PoolScene, **changes: Any) -> None:
    """Three machines with the present template, whose guests are of the one before and serve."""
    in_order = {"proactive": {"selectionPolicy": {"sortPolicy": "AscendingOrder"}}}
    scene.put_pool(3, **({"maxUnavailable": 1, "updateStrategy": in_order} | changes))
    for index in range(3):
        scene.put_machine(machine_of(pool(), index), guest_of(machine_of(OLD, index)))


async def test_what_another_leader_made_is_not_made_again(scene: PoolScene) -> None:
    scene.put_pool(3)
    old, new = scene.leader(), scene.leader()
    await old.passes()
    await new.passes()
    assert sorted(vm["metadata"]["name"] for vm in scene.machines) == ["web-0", "web-1", "web-2"]


async def test_a_name_that_is_taken_is_looked_at_again(scene: PoolScene) -> None:
    scene.put_pool(1)
    leader = scene.leader()
    vm = machine_of(pool(), 0, metadata={"ownerReferences": []})
    scene.put_machine(vm, guest_of(vm))
    with pytest.raises(ApiAlreadyExists):
        await leader.passes()
    leader.see()
    assert await leader.passes() is None
    assert len(scene.machines) == 1


async def test_once_all_is_as_wanted_there_is_nothing_to_write(scene: PoolScene) -> None:
    scene.put_pool(2)
    leader = scene.leader()
    await leader.passes()
    leader.see()
    await leader.passes()
    scene.server.requests.clear()
    assert await leader.passes() is None
    assert scene.server.requests == []


async def test_a_guest_is_restarted_by_requests_to_its_machine(scene: PoolScene) -> None:
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
    scene: PoolScene,
) -> None:
    outdated(scene)
    leader = scene.leader()
    scene.server.remove(VIRTUAL_MACHINE_INSTANCES, ObjectKey("shop", "web-2"))
    await leader.passes()
    assert scene.asked_to_restart == []


async def test_a_machine_that_has_changed_is_not_restarted_by_what_it_was(scene: PoolScene) -> None:
    outdated(scene)
    leader = scene.leader()
    key = ObjectKey("shop", "web-0")
    vm = scene.server.get(VIRTUAL_MACHINES, key) or {}
    # Its user has halted it.
    scene.server.put(VIRTUAL_MACHINES, vm | {"spec": vm["spec"] | {"runStrategy": "Halted"}})
    await leader.passes()
    assert scene.asked_to_restart == ["web-1"]


async def test_a_new_leader_deletes_no_others_than_the_old_one(scene: PoolScene) -> None:
    scene.put_pool(1)
    for index in range(4):
        vm = machine_of(pool(), index)
        scene.put_machine(vm, guest_of(vm))
    old, new = scene.leader(), scene.leader()
    await old.passes()
    await new.passes()
    living = [vm for vm in scene.machines if "deletionTimestamp" not in vm["metadata"]]
    assert len(living) == 1


async def test_nothing_is_done_by_a_pool_that_only_a_cache_knows(scene: PoolScene) -> None:
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
    scene: PoolScene,
) -> None:
    scene.put_pool(0, scaleInStrategy={"opportunistic": {}})
    vm = machine_of(pool(), 0)
    scene.put_machine(vm, guest_of(vm, phase="Succeeded", ready=False))
    leader = scene.leader()
    scene.put_machine(vm, guest_of(vm))
    await leader.passes()
    assert "deletionTimestamp" not in scene.machines[0]["metadata"]


async def test_a_pool_that_is_on_its_way_out_adopts_nothing(scene: PoolScene) -> None:
    """The cache has not heard of the deletion, and the orphans it sees are those that the deletion leaves."""
    scene.put_pool(1)
    vm = machine_of(pool(), 0, metadata={"ownerReferences": []})
    scene.put_machine(vm, guest_of(vm))
    leader = scene.leader()
    metadata = {"deletionTimestamp": stamp(), "finalizers": ["orphan"]}
    scene.put_pool(1, metadata=metadata)
    assert await leader.passes() is None
    assert scene.machines[0]["metadata"]["ownerReferences"] == ()


async def test_another_namespace_is_not_the_pools(scene: PoolScene) -> None:
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


async def test_what_is_refused_is_tried_again_later(scene: PoolScene) -> None:
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
