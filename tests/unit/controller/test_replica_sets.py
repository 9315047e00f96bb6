"""Sets of instances against an API server on a real socket, with a node that does its part at once."""

import random

import pytest
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.resources import (
    REPLICA_SETS,
    VIRTUAL_MACHINE_INSTANCES,
)
from podvisor_controller.controllers import Controllers
from podvisor_controller.settings import Settings

from tests.unit.controller.api_server import Fate
from tests.unit.controller.scripted_node import changing_leaders, losing_writes
from tests.unit.controller.set_users import KEY, Sets
from tests.unit.kube.fake_apiserver import Refuse


async def test_a_set_is_filled_scaled_down_and_emptied(sets: Sets, leading: Controllers) -> None:
    await sets.apply(5)
    await sets.ready(5)
    await sets.change(replicas=2)
    await sets.ready(2)
    assert len(sets.created) == 5
    await sets.change(replicas=0)
    await sets.ready(0)
    await sets.until(lambda: len(sets.events("SuccessfulDelete")) == 5)
    assert len(sets.events("SuccessfulCreate")) == 5


async def test_filling_a_set_costs_what_the_ledger_says(sets: Sets, leading: Controllers) -> None:
    await sets.apply(5)
    await sets.ready(5)
    await sets.until(lambda: len(sets.events("SuccessfulCreate")) == 5)
    asked = [
        f"{request.method} {request.path.rpartition('/')[2]}"
        for request in sets.server.requests
        if request.headers["User-Agent"] != "users" and "virtualmachineinstance" in request.path
    ]
    assert asked.count("POST virtualmachineinstances") == 5
    of_set = [
        request.body["status"]
        for request in sets.server.requests
        if request.method == "PATCH" and request.path.endswith(f"/{KEY.name}/status")
    ]
    assert len(of_set) <= 5 + 2
    assert all(of_set)


async def test_what_has_ended_is_replaced(sets: Sets, leading: Controllers) -> None:
    await sets.apply(2)
    await sets.ready(2)
    gone = sets.own[0]
    sets.report(gone, "Failed")
    await sets.until(lambda: gone not in sets.own)
    await sets.ready(2)
    assert len(sets.created) == 3


async def test_pausing_is_said_once(sets: Sets, leading: Controllers) -> None:
    await sets.apply(1)
    await sets.ready(1)
    await sets.change(paused=True, replicas=3)
    await sets.until(lambda: sets.conditions() == ["ReplicaPaused"])
    await sets.change(paused=False)
    await sets.ready(3)
    assert sets.conditions() == []
    await sets.until(lambda: bool(sets.events("SuccessfulResumed")))
    assert (sets.events("SuccessfulPaused"), sets.events("SuccessfulResumed")) == (
        ["Paused"],
        ["Resumed"],
    )


async def test_a_quota_is_told_to_the_owner(sets: Sets, leading: Controllers) -> None:
    quota = Refuse(403, "Forbidden", "exceeded quota: small")
    sets.server.refuse("POST", "/virtualmachineinstances", quota)
    await sets.apply(3)
    await sets.until(lambda: sets.conditions() == ["ReplicaFailure"])
    await sets.until(lambda: bool(sets.events("FailedCreate")))
    assert "exceeded quota: small" in sets.events("FailedCreate")[0]
    # A new number is a new try.
    await sets.change(replicas=2)
    await sets.ready(2)
    assert sets.conditions() == []


async def test_an_instance_leaves_by_its_labels_and_comes_back(
    sets: Sets, leading: Controllers
) -> None:
    await sets.apply(2)
    await sets.ready(2)
    leaver = sets.own[0]
    await sets.label(leaver, "debug")
    await sets.until(lambda: leaver not in sets.own and len(sets.own) == 2)
    await sets.change(replicas=3, paused=True)
    await sets.label(leaver, "web")
    await sets.until(lambda: leaver in sets.own)
    await sets.change(paused=False)
    await sets.ready(3)
    assert len(sets.created) == 3


async def test_a_set_made_anew_takes_the_orphans(sets: Sets, leading: Controllers) -> None:
    await sets.apply(3)
    await sets.ready(3)
    kept = sets.own
    # As the garbage collector does it: first the instances are let go, then the set.
    sets.server.put(
        REPLICA_SETS,
        sets.body
        | {
            "metadata": sets.body["metadata"] | {"deletionTimestamp": "x", "finalizers": ["orphan"]}
        },
    )
    for vmi in sets.server.list(VIRTUAL_MACHINE_INSTANCES):
        metadata = {k: v for k, v in vmi["metadata"].items() if k != "ownerReferences"}
        sets.server.put(VIRTUAL_MACHINE_INSTANCES, vmi | {"metadata": metadata})
    sets.server.remove(REPLICA_SETS, KEY)
    await sets.apply(3)
    await sets.ready(3)
    assert sets.own == kept
    assert len(sets.created) == 3


async def scaled_up_and_down(sets: Sets) -> None:
    """From nothing to ten and to three: exactly that many were made, and the three are of the ten."""
    await sets.apply(0)
    await sets.change(replicas=10)
    await sets.ready(10)
    ten = sets.own
    await sets.change(replicas=3)
    await sets.ready(3)
    assert sorted(sets.created) == ten
    assert set(sets.own) < set(ten)


@pytest.mark.parametrize("seed", range(3))
async def test_scaling_while_writes_fail_and_answers_are_lost(
    sets: Sets, leading: Controllers, seed: int
) -> None:
    fates = losing_writes(sets.server, random.Random(seed), (0.7, 0.15, 0.15))
    await scaled_up_and_down(sets)
    assert fates == set(Fate)


async def test_scaling_while_leaders_come_and_go(
    sets: Sets, client: KubeClient, settings: Settings
) -> None:
    async with changing_leaders(sets.server, client, settings, writes_each=7) as writes:
        await scaled_up_and_down(sets)
    assert len(writes) > 70
