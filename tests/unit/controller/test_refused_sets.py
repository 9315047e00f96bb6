"""Sets and pools some of whose members must not be touched: the rest is looked after all the same, and why is said."""

from aiohttp import web
from podvisor_common.kube.resources import VIRTUAL_MACHINE_INSTANCES, VIRTUAL_MACHINES
from podvisor_controller.controllers import Controllers

from tests.unit.controller.builders import member_body
from tests.unit.controller.pools import template_body
from tests.unit.controller.set_users import Pools, Sets


def _forbid(of: Sets | Pools, method: str, name: str) -> None:
    """A policy protects an object of that name from a method."""
    of.server.is_forbidden = lambda request: (
        request.method == method and request.path.endswith(f"/{name}")
    )


def _reasons(of: Sets) -> list[str]:
    return [condition["reason"] for condition in of.status.get("conditions", [])]


async def test_what_has_ended_makes_room_in_a_quota(sets: Sets, leading: Controllers) -> None:
    await sets.apply(2)
    await sets.ready(2)

    def is_beyond(request: web.Request) -> bool:
        is_creation = request.method == "POST" and request.path.endswith("instances")
        return is_creation and len(sets.server.list(VIRTUAL_MACHINE_INSTANCES)) >= 2

    sets.server.is_forbidden = is_beyond
    ended = sets.own[0]
    sets.report(ended, "Failed")
    await sets.until(lambda: ended not in sets.own)
    await sets.ready(2)
    await sets.until(lambda: sets.conditions() == [])


async def test_an_orphan_that_cannot_be_adopted(sets: Sets, leading: Controllers) -> None:
    await sets.apply(1)
    await sets.ready(1)
    orphan = member_body("lone", owner="")
    orphan["metadata"]["namespace"] = "shop"
    del orphan["metadata"]["uid"]
    _forbid(sets, "PATCH", "lone")
    sets.server.put(VIRTUAL_MACHINE_INSTANCES, orphan)
    await sets.until(lambda: _reasons(sets) == ["FailedAdopt"])
    await sets.change(replicas=4)
    await sets.ready(4)
    assert len(sets.events("FailedAdopt")) == 1


async def test_a_machine_that_cannot_be_adopted(pools: Pools, leading: Controllers) -> None:
    await pools.apply(1)
    await pools.ready(0)
    metadata = {"namespace": "shop", "name": "web-5", "labels": {"pool": "web"}}
    _forbid(pools, "PATCH", "web-5")
    pools.server.put(VIRTUAL_MACHINES, template_body(runStrategy="Halted") | {"metadata": metadata})
    await pools.until(lambda: "ReplicaFailure" in pools.conditions())
    await pools.change(replicas=3)
    await pools.ready(0, 1, 2)


async def test_a_dead_instance_that_may_not_be_deleted(sets: Sets, leading: Controllers) -> None:
    """Another one that dies is replaced, whatever the pause before the first is tried again."""
    await sets.apply(3)
    await sets.ready(3)
    kept, dying, _ = sets.own
    _forbid(sets, "DELETE", kept)
    sets.report(kept, "Failed")
    await sets.until(lambda: len(sets.created) == 4 and _reasons(sets) == ["FailedDelete"])
    sets.report(dying, "Failed")
    await sets.until(lambda: len(sets.created) == 5)
    assert len(sets.events("FailedDelete")) == 1


async def test_the_failure_is_that_of_what_is_wanted(sets: Sets, leading: Controllers) -> None:
    await sets.apply(3)
    await sets.ready(3)
    sets.server.is_forbidden = lambda request: (
        request.method in ("POST", "DELETE") and "/virtualmachineinstances" in request.path
    )
    await sets.change(replicas=5)
    await sets.until(lambda: _reasons(sets) == ["FailedCreate"])
    await sets.change(replicas=1)
    await sets.until(lambda: _reasons(sets) == ["FailedDelete"])
