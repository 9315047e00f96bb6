"""Pools against an API server on a real socket, with a node that does its part at once."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from podvisor_common.api.v1.names import POOL_REVISION_LABEL
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.resources import (
    EVENTS,
    POOLS,
    VIRTUAL_MACHINE_INSTANCES,
    VIRTUAL_MACHINES,
    ObjectKey,
)
from podvisor_controller.controllers import Controllers
from podvisor_controller.settings import Settings

from tests.unit.controller.api_server import ApiServer, Fate, Json
from tests.unit.controller.pools import pool_body, template_body
from tests.unit.controller.scripted_node import changing_leaders, is_ours, node
from tests.unit.kube.fake_apiserver import Refuse

KEY = ObjectKey("shop", "web")


class Pools:
    """The pool as a user sees and changes it, by a client of the user's own."""

    def __init__(self, server: ApiServer, users: KubeClient) -> None:
        self.server = server
        self._users = users
        self.most_unavailable = 0

    async def apply(self, replicas: int, **spec: Any) -> None:
        body = pool_body(replicas, **spec)
        for name in ("uid", "resourceVersion"):
            del body["metadata"][name]
        await self._users.create(POOLS, KEY.namespace, body)

    async def change(self, **spec: Any) -> None:
        await self._users.merge_patch(POOLS, KEY, {"spec": spec})

    async def label(self, name: str, value: str) -> None:
        patch = {"metadata": {"labels": {"pool": value}}}
        await self._users.merge_patch(VIRTUAL_MACHINES, ObjectKey(KEY.namespace, name), patch)

    async def delete(self, name: str) -> None:
        await self._users.delete(VIRTUAL_MACHINES, ObjectKey(KEY.namespace, name))

    @property
    def body(self) -> Json:
        return self.server.get(POOLS, KEY) or {}

    @property
    def status(self) -> Json:
        status: Json = self.body.get("status") or {}
        return status

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

    def events(self, reason: str) -> list[str]:
        """What events of that reason say about the pool."""
        return [
            event["note"]
            for event in self.server.list(EVENTS)
            if event["reason"] == reason and event["regarding"]["name"] == KEY.name
        ]

    def conditions(self) -> dict[str, str]:
        return {c["type"]: c["reason"] for c in self.status.get("conditions", [])}

    async def until(self, holds: Callable[[], bool]) -> None:
        await self.server.until(holds)

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


@pytest.fixture
async def pools(server: ApiServer) -> AsyncIterator[Pools]:
    """The user's view, in a cluster whose node works."""
    async with KubeClient.for_url(server.url, user_agent="users") as users, node(server):
        yield Pools(server, users)


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
    chance, fates = random.Random(seed), set[Fate]()

    def fate_of(request: web.Request) -> Fate:
        if not is_ours(request):
            return Fate.ANSWERED
        weights = (0.8, 0.1, 0.1)
        [fate] = chance.choices((Fate.ANSWERED, Fate.REFUSED, Fate.ANSWER_LOST), weights)
        fates.add(fate)
        return fate

    pools.server.fate_of = fate_of
    await lived(pools)
    assert fates == set(Fate)


async def test_a_life_while_leaders_come_and_go(
    pools: Pools, client: KubeClient, settings: Settings
) -> None:
    async with changing_leaders(pools.server, client, settings, writes_each=7) as writes:
        await lived(pools)
    assert len(writes) > 70
