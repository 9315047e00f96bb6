"""Pools against an API server on a real socket, with a node that does its part at once."""

import json
import random

import pytest
from aiohttp import web
from podvisor_common.api.v1.names import POOL_REVISION_LABEL
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.resources import (
    POOLS,
    VIRTUAL_MACHINE_INSTANCES,
    VIRTUAL_MACHINES,
    ObjectKey,
)
from podvisor_controller.controllers import Controllers
from podvisor_controller.settings import Settings

from tests.unit.controller.api_server import Fate
from tests.unit.controller.pools import template_body
from tests.unit.controller.scripted_node import changing_leaders, losing_writes
from tests.unit.controller.set_users import KEY, Pools
from tests.unit.kube.fake_apiserver import Refuse

IN_ORDER = {"proactive": {"selectionPolicy": {"sortPolicy": "AscendingOrder"}}}
LAST_FIRST = {"proactive": {"selectionPolicy": {"sortPolicy": "DescendingOrder"}}}


async def test_machines_come_and_go_in_order(pools: Pools, leading: Controllers) -> None:
    await pools.apply(3, scaleInStrategy=LAST_FIRST)
    await pools.ready(0, 1, 2)
    await pools.change(replicas=1)
    await pools.ready(0)
    await pools.change(replicas=2)
    await pools.ready(0, 1)
    assert pools.created == ["web-0", "web-1", "web-1", "web-2"]
    await pools.until(lambda: len(pools.events("SuccessfulDelete")) == 2)
    # One event tells of both creations of web-1.
    assert len(pools.events("SuccessfulCreate")) == 3


async def test_a_machine_that_is_deleted_comes_again(pools: Pools, leading: Controllers) -> None:
    await pools.apply(3)
    await pools.ready(0, 1, 2)
    [before] = [vm for vm in pools.machines if vm["metadata"]["name"] == "web-1"]
    await pools.delete("web-1")
    uid = before["metadata"]["uid"]
    await pools.until(lambda: uid not in [vm["metadata"]["uid"] for vm in pools.machines])
    await pools.ready(0, 1, 2)
    assert pools.created == ["web-0", "web-1", "web-1", "web-2"]


async def test_one_guest_after_another_gets_the_new_template(
    pools: Pools, leading: Controllers
) -> None:
    await pools.apply(3, maxUnavailable=1, updateStrategy=IN_ORDER)
    await pools.ready(0, 1, 2)
    async with pools.counting():
        await pools.change(virtualMachineTemplate=template_body("32M"))
        await pools.updated("32M")
    assert pools.most_unavailable == 1
    assert pools.created == ["web-0", "web-1", "web-2"]
    await pools.until(lambda: len(pools.events("SuccessfulUpdate")) == 6)
    restarts = [note for note in pools.events("SuccessfulUpdate") if "Restarted" in note]
    assert sorted(restarts) == [
        f"Restarted VM shop/web-{index}, for it has been updated" for index in range(3)
    ]


async def test_a_pool_costs_what_the_ledger_says(pools: Pools, leading: Controllers) -> None:
    await pools.apply(4, maxUnavailable=1)
    await pools.ready(0, 1, 2, 3)
    filling = pools.writes()
    assert filling.count("POST machine") == 4
    assert len(filling) <= 3 * 4 + 2
    pools.server.requests.clear()
    await pools.change(virtualMachineTemplate=template_body("32M"))
    await pools.updated("32M")
    await pools.ready(0, 1, 2, 3)
    updating = pools.writes()
    assert updating.count("PATCH machine") == 2 * 4
    assert len(updating) <= 4 * 4 + 2


@pytest.mark.parametrize("run_strategy", ["Manual", "RerunOnFailure"])
async def test_a_machine_that_would_stay_stopped_runs_again(
    pools: Pools, leading: Controllers, run_strategy: str
) -> None:
    await pools.apply(1, virtualMachineTemplate=template_body(runStrategy=run_strategy))
    if run_strategy == "Manual":
        await pools.until(lambda: pools.names == ["web-0"])
        [vm] = pools.machines
        status = vm.get("status", {}) | {"stateChangeRequests": [{"action": "Start"}]}
        pools.server.put(VIRTUAL_MACHINES, vm | {"status": status})
    await pools.ready(0)
    await pools.change(virtualMachineTemplate=template_body("32M", runStrategy=run_strategy))
    await pools.updated("32M")


async def test_an_opportunistic_update_disturbs_no_guest(
    pools: Pools, leading: Controllers
) -> None:
    await pools.apply(2, updateStrategy={"opportunistic": {}})
    await pools.ready(0, 1)
    await pools.change(virtualMachineTemplate=template_body("32M"))
    await pools.until(lambda: len(pools.events("SuccessfulUpdate")) == 2)
    assert pools.memories == {"64M"}
    vmi = pools.server.get(VIRTUAL_MACHINE_INSTANCES, ObjectKey("shop", "web-0")) or {}
    # Its user restarts it.
    pools.server.put(
        VIRTUAL_MACHINE_INSTANCES, vmi | {"status": vmi["status"] | {"phase": "Succeeded"}}
    )
    await pools.until(lambda: pools.memories == {"32M", "64M"})
    await pools.ready(0, 1)


async def test_pausing_is_said_once_and_stops_everything(
    pools: Pools, leading: Controllers
) -> None:
    await pools.apply(1)
    await pools.ready(0)
    await pools.change(
        paused=True, replicas=3, virtualMachineTemplate=template_body(runStrategy="Manual")
    )
    await pools.until(lambda: pools.conditions() == {"ReplicaPaused": "Paused"})
    assert pools.names == ["web-0"]
    await pools.change(paused=False, virtualMachineTemplate=template_body())
    await pools.ready(0, 1, 2)
    assert pools.conditions() == {}
    await pools.until(lambda: bool(pools.events("SuccessfulResume")))
    assert pools.events("SuccessfulPaused") == ["Pool is paused"]
    assert pools.events("SuccessfulResume") == ["Pool is unpaused"]


async def test_a_quota_is_told_to_the_owner(pools: Pools, leading: Controllers) -> None:
    quota = Refuse(403, "Forbidden", "exceeded quota: small")
    pools.server.refuse("POST", "/virtualmachines", quota)
    await pools.apply(3)
    await pools.until(lambda: pools.conditions() == {"ReplicaFailure": "FailedScaleOut"})
    await pools.until(lambda: bool(pools.events("FailedScaleOut")))
    assert "exceeded quota: small" in pools.events("FailedScaleOut")[0]
    # A new number is a new try.
    await pools.change(replicas=2)
    await pools.ready(0, 1)
    assert pools.conditions() == {}


async def test_a_template_that_a_machine_may_not_get_is_told_to_the_owner(
    pools: Pools, leading: Controllers
) -> None:
    await pools.apply(1)
    await pools.ready(0)
    pools.server.refuse("PATCH", "/web-0", Refuse(422, "Invalid", "not on this cluster"))
    await pools.change(virtualMachineTemplate=template_body("32M"))
    await pools.until(lambda: pools.conditions() == {"ReplicaFailure": "FailedUpdate"})
    assert pools.memories == {"64M"}
    # And tried again by itself.
    await pools.updated("32M")
    await pools.until(lambda: pools.conditions() == {})


async def test_one_machine_that_may_not_be_updated_holds_up_no_other(
    pools: Pools, leading: Controllers
) -> None:
    await pools.apply(3)
    await pools.ready(0, 1, 2)

    def fate_of(request: web.Request) -> Fate:
        if request.method == "PATCH" and request.path.endswith("/web-0"):
            text = json.dumps({"code": 403, "reason": "Forbidden", "message": "not web-0"})
            raise web.HTTPForbidden(text=text, content_type="application/json")
        return Fate.ANSWERED

    pools.server.fate_of = fate_of
    await pools.change(virtualMachineTemplate=template_body("32M"))
    await pools.until(lambda: pools.memories == {"32M", "64M"} and pools.unavailable == 0)
    await pools.until(lambda: pools.conditions() == {"ReplicaFailure": "FailedUpdate"})
    await pools.until(lambda: len(pools.events("SuccessfulUpdate")) == 4)


async def test_a_name_that_somebody_has_is_left_to_him(pools: Pools, leading: Controllers) -> None:
    body = {
        "metadata": {"namespace": "shop", "name": "web-1"},
        **template_body(runStrategy="Halted"),
    }
    stranger = body | {"metadata": {"namespace": "shop", "name": "web-1", "labels": {"pool": "no"}}}
    pools.server.put(VIRTUAL_MACHINES, stranger)
    await pools.apply(2)
    await pools.ready(0, 2)


async def test_a_machine_leaves_by_its_labels_and_comes_back(
    pools: Pools, leading: Controllers
) -> None:
    await pools.apply(2, scaleInStrategy=LAST_FIRST)
    await pools.ready(0, 1)
    await pools.label("web-0", "debug")
    await pools.ready(1, 2)
    await pools.label("web-0", "web")
    await pools.ready(0, 1)
    assert pools.created == ["web-0", "web-1", "web-2"]


async def test_a_pool_made_anew_takes_the_orphans(pools: Pools, leading: Controllers) -> None:
    await pools.apply(3)
    await pools.ready(0, 1, 2)
    # As the garbage collector does it: first the machines are let go, then the pool.
    metadata = pools.body["metadata"] | {"deletionTimestamp": "x", "finalizers": ["orphan"]}
    pools.server.put(POOLS, pools.body | {"metadata": metadata})
    for vm in pools.server.list(VIRTUAL_MACHINES):
        metadata = {k: v for k, v in vm["metadata"].items() if k != "ownerReferences"}
        pools.server.put(VIRTUAL_MACHINES, vm | {"metadata": metadata})
    pools.server.remove(POOLS, KEY)
    await pools.apply(3)
    await pools.ready(0, 1, 2)
    assert pools.created == ["web-0", "web-1", "web-2"]


async def lived(pools: Pools) -> None:
    """Scaled to five, updated one after another, scaled to two: each machine was made once and never two guests were missing."""
    await pools.apply(5, maxUnavailable=1, scaleInStrategy=LAST_FIRST)
    await pools.ready(0, 1, 2, 3, 4)
    async with pools.counting():
        await pools.change(virtualMachineTemplate=template_body("32M"))
        await pools.updated("32M")
    assert pools.most_unavailable == 1
    assert pools.created == [f"web-{index}" for index in range(5)]
    await pools.change(replicas=2)
    await pools.ready(0, 1)
    revisions = {vm["metadata"]["labels"][POOL_REVISION_LABEL] for vm in pools.machines}
    assert len(revisions) == 1


@pytest.mark.parametrize("seed", range(3))
async def test_a_life_while_writes_fail_and_answers_are_lost(
    pools: Pools, leading: Controllers, seed: int
) -> None:
    fates = losing_writes(pools.server, random.Random(seed), (0.8, 0.1, 0.1))
    await lived(pools)
    assert fates == set(Fate)


async def test_a_life_while_leaders_come_and_go(
    pools: Pools, client: KubeClient, settings: Settings
) -> None:
    async with changing_leaders(pools.server, client, settings, writes_each=7) as writes:
        await lived(pools)
    assert len(writes) > 70
