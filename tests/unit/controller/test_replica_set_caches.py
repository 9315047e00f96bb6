"""Sets whose caches hear of nothing, of leaders that do not know of each other, and of answers that are lost: nothing is made twice."""

import asyncio
import itertools
from collections.abc import Callable
from datetime import timedelta

import msgspec
import pytest
from aiohttp import web
from podvisor_common.api import v1
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.controller import Requeue
from podvisor_common.kube.errors import ApiAlreadyExists, ApiConflict, ApiUnavailable
from podvisor_common.kube.resources import (
    REPLICA_SETS,
    VIRTUAL_MACHINE_INSTANCES,
    ObjectKey,
)
from podvisor_controller.replicaset import reconciler

from tests.unit.controller.api_server import ApiServer, Fate
from tests.unit.controller.builders import SET_UID, member_body, stamp
from tests.unit.controller.unaware_leaders import KEY, SetScene
from tests.unit.kube.fake_apiserver import Refuse


@pytest.fixture
def scene(server: ApiServer, client: KubeClient) -> SetScene:
    return SetScene(server, client)


def lose_answers_to(method: str, *numbers: int) -> Callable[[web.Request], Fate]:
    """A fate for ApiServer: of the requests of that method about instances, these are done without an answer."""
    count = itertools.count()

    def fate_of(request: web.Request) -> Fate:
        if request.method != method or "/virtualmachineinstances" not in request.path:
            return Fate.ANSWERED
        return Fate.ANSWER_LOST if next(count) in numbers else Fate.ANSWERED

    return fate_of


async def test_a_second_pass_before_the_cache_shows_anything_makes_nothing(scene: SetScene) -> None:
    scene.put_set(5)
    leader = scene.leader()
    await leader.passes()
    assert await leader.passes() == Requeue(reconciler.LOOK_AGAIN_S)
    assert len(scene.asked("POST")) == len(scene.instances) == 5
    assert (scene.status["replicas"], scene.status["readyReplicas"]) == (5, 0)


async def test_once_the_cache_shows_all_there_is_nothing_to_write(scene: SetScene) -> None:
    scene.put_set(2)
    leader = scene.leader()
    await leader.passes()
    leader.see()
    scene.server.requests.clear()
    assert await leader.passes() is None
    assert scene.server.requests == []


async def test_what_went_before_the_cache_showed_it_is_replaced(
    scene: SetScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler, "LOOK_AGAIN_S", 0.0)
    scene.put_set(3)
    leader = scene.leader()
    await leader.passes()
    gone = scene.living[0]
    scene.server.remove(VIRTUAL_MACHINE_INSTANCES, ObjectKey("shop", gone))
    await leader.passes()
    assert len(scene.living) == 3
    assert len(scene.asked("POST")) == 4


async def test_creations_without_an_answer_are_repeated_under_their_names(scene: SetScene) -> None:
    scene.put_set(7)
    leader = scene.leader()
    scene.server.fate_of = lose_answers_to("POST", 4, 5)
    with pytest.raises(ApiUnavailable):
        await leader.passes()
    assert len(scene.instances) == 7
    await leader.passes()
    assert len(scene.instances) == scene.status["replicas"] == 7


async def test_a_creation_without_an_answer_keeps_its_name_when_another_gets_free(
    scene: SetScene,
) -> None:
    scene.put_set(1)
    leader = scene.leader()
    await leader.passes()
    [before] = scene.instances
    going = before["metadata"] | {"deletionTimestamp": stamp()}
    scene.server.put(VIRTUAL_MACHINE_INSTANCES, before | {"metadata": going})
    leader.see()
    scene.server.fate_of = lose_answers_to("POST", 0)
    with pytest.raises(ApiUnavailable):
        await leader.passes()
    # The watch has told of the end of the first, and not yet of the second.
    scene.server.remove(VIRTUAL_MACHINE_INSTANCES, ObjectKey("shop", before["metadata"]["name"]))
    leader.vmis.replace([])
    await leader.passes()
    assert len(scene.living) == 1


async def test_a_refused_creation_is_not_taken_for_a_lost_one(scene: SetScene) -> None:
    """What could not be made is made under the same name, and nothing of it is left over."""
    scene.put_set(3)
    scene.server.refuse("POST", "/virtualmachineinstances", Refuse(503))
    leader = scene.leader()
    with pytest.raises(ApiUnavailable):
        await leader.passes()
    assert scene.instances == []
    await leader.passes()
    assert len(scene.instances) == 3


async def test_a_new_leader_knows_what_the_old_one_made(scene: SetScene) -> None:
    scene.put_set(5)
    old, new = scene.leader(), scene.leader()
    await old.passes()
    new.see(REPLICA_SETS)
    await new.passes()
    assert len(scene.instances) == len(scene.asked("POST")) == 5


async def test_a_leader_that_leads_again_looks_again(scene: SetScene) -> None:
    scene.put_set(2)
    first, second = scene.leader(), scene.leader()
    await first.passes()
    scene.put_set(5)
    second.see(REPLICA_SETS)
    await second.passes()
    first.see(REPLICA_SETS)
    first.reconciler.begin_term()
    await first.passes()
    assert len(scene.asked("POST")) == len(scene.instances) == 5


async def test_two_that_believe_to_lead_make_the_same(scene: SetScene) -> None:
    scene.put_set(10)
    one, two = scene.leader(), scene.leader()
    await asyncio.gather(one.passes(), two.passes(), return_exceptions=True)
    assert len(scene.instances) == 10


async def test_a_name_that_somebody_else_has_is_left_to_him(scene: SetScene) -> None:
    scene.put_set(1)
    before = scene.leader()
    await before.passes()
    [name] = scene.living
    scene.server.remove(VIRTUAL_MACHINE_INSTANCES, ObjectKey("shop", name))
    leader = scene.leader()
    scene.put_member(name, owner="another")
    with pytest.raises(ApiAlreadyExists):
        await leader.passes()
    await leader.passes()
    [own] = [vmi for vmi in scene.instances if vmi["metadata"]["name"] != name]
    assert own["metadata"]["ownerReferences"][0]["uid"] == SET_UID
    assert len(scene.instances) == 2


async def test_another_namespace_is_not_the_sets(scene: SetScene) -> None:
    """Anybody may write the set's UID there."""
    scene.put_set(0)
    foreign = member_body("far", metadata={"namespace": "else"})
    scene.server.put(VIRTUAL_MACHINE_INSTANCES, foreign)
    await scene.leader().passes()
    assert scene.status["replicas"] == 0
    assert scene.asked("DELETE") == []


async def test_a_new_leader_deletes_no_others_than_the_old_one(scene: SetScene) -> None:
    scene.put_set(10)
    for number in range(10):
        scene.put_member(f"m{number}")
    old, new = scene.leader(), scene.leader()
    scene.put_set(3)
    for leader in (old, new):
        leader.see(REPLICA_SETS)
    await old.passes()
    # The new one's cache has all ten, and by that another would be missed least.
    survivor = new.vmis.get(ObjectKey("shop", scene.living[0]))
    assert survivor is not None
    metadata = msgspec.structs.replace(survivor.metadata, resource_version="1000")
    worst = v1.VirtualMachineInstanceStatus(phase="Pending")
    new.vmis.apply(msgspec.structs.replace(survivor, metadata=metadata, status=worst))
    new.see(REPLICA_SETS)
    await new.passes()
    assert len(scene.asked("DELETE")) == 7
    assert len(scene.living) == 3


async def test_deletions_without_an_answer_are_repeated(scene: SetScene) -> None:
    scene.put_set(10)
    for number in range(10):
        scene.put_member(f"m{number}")
    scene.put_set(3)
    leader = scene.leader()
    scene.server.fate_of = lose_answers_to("DELETE", 1, 3)
    with pytest.raises(ApiUnavailable):
        await leader.passes()
    await leader.passes()
    await leader.passes()
    assert len(scene.living) == 3
    assert len(set(scene.asked("DELETE"))) == 7


async def test_a_deletion_without_an_answer_is_not_made_good_by_another(scene: SetScene) -> None:
    scene.put_set(2)
    for name in "abc":
        scene.put_member(name)
    leader = scene.leader()
    scene.server.fate_of = lose_answers_to("DELETE", 0)
    with pytest.raises(ApiUnavailable):
        await leader.passes()
    # Meanwhile another has become one that would be missed less.
    worst = v1.VirtualMachineInstanceStatus(phase="Pending")
    survivor = leader.vmis.get(ObjectKey("shop", scene.living[0]))
    assert survivor is not None
    metadata = msgspec.structs.replace(survivor.metadata, resource_version="1000")
    leader.vmis.apply(msgspec.structs.replace(survivor, metadata=metadata, status=worst))
    await leader.passes()
    assert len(scene.living) == 2


async def test_what_the_cache_has_and_the_api_server_has_not_does_not_count(
    scene: SetScene,
) -> None:
    scene.put_set(3)
    for name in "abcde":
        scene.put_member(name)
    leader = scene.leader()
    for name in "de":
        scene.server.remove(VIRTUAL_MACHINE_INSTANCES, ObjectKey("shop", name))
    await leader.passes()
    assert scene.living == ["a", "b", "c"]


async def test_what_is_gone_already_is_not_asked_for_again(scene: SetScene) -> None:
    scene.put_set(1)
    for name in "abc":
        scene.put_member(name)
    leader = scene.leader()
    await leader.passes()
    for name in set("abc") - set(scene.living):
        scene.server.remove(VIRTUAL_MACHINE_INSTANCES, ObjectKey("shop", name))
    await leader.passes()
    assert len(scene.asked("DELETE")) == 2


async def test_a_namesake_is_not_deleted(scene: SetScene) -> None:
    scene.put_set(1)
    scene.put_member("a")
    scene.put_member("b", "Pending")
    leader = scene.leader()
    await leader.passes()
    assert scene.living == ["a"]
    scene.server.remove(VIRTUAL_MACHINE_INSTANCES, ObjectKey("shop", "a"))
    scene.put_member("a", metadata={"uid": "another"})
    scene.put_set(0)
    leader.see(REPLICA_SETS)
    with pytest.raises(ApiConflict):
        await leader.passes()
    assert scene.living == ["a"]


async def test_a_quota_is_met_once_told_and_tried_again_later(scene: SetScene) -> None:
    scene.put_set(8)
    scene.server.refuse("POST", "/virtualmachineinstances", Refuse(403, "Forbidden", "quota"))
    leader = scene.leader()
    wait = await leader.passes()
    # One is tried before all: a second one would not have been refused.
    assert scene.instances == []
    assert scene.condition["type"] == "ReplicaFailure"
    assert scene.condition["reason"] == "FailedCreate"
    assert scene.condition["message"] == "The VirtualMachineInstance cannot be created: quota"
    leader.see()
    assert wait is not None
    await leader.passes()
    assert scene.instances == []
    assert scene.condition["reason"] == "FailedCreate"
    leader.at += timedelta(seconds=wait.after_s)
    await leader.passes()
    assert len(scene.instances) == 8
    assert "conditions" not in scene.status


async def test_a_deletion_that_is_refused_is_told(scene: SetScene) -> None:
    scene.put_set(0)
    scene.put_member("a")
    scene.server.refuse("DELETE", "/a", Refuse(403, "Forbidden", "policy"))
    leader = scene.leader()
    await leader.passes()
    assert (scene.condition["type"], scene.condition["reason"]) == (
        "ReplicaFailure",
        "FailedDelete",
    )
    assert scene.condition["message"] == "The VirtualMachineInstance cannot be deleted: policy"
    assert scene.living == ["a"]


async def test_a_paused_set_is_left_alone_and_its_status_is_not(scene: SetScene) -> None:
    scene.put_set(3, paused=True)
    scene.put_member("a")
    await scene.leader().passes()
    assert len(scene.instances) == scene.status["replicas"] == scene.status["readyReplicas"] == 1
    assert scene.condition["type"] == "ReplicaPaused"


async def test_a_set_that_is_on_its_way_out_adopts_nothing(scene: SetScene) -> None:
    """The cache has not heard of the deletion, and the orphans it sees are those that the deletion leaves."""
    scene.put_set(2)
    scene.put_member("a", owner="")
    leader = scene.leader()
    body = scene.server.get(REPLICA_SETS, KEY) or {}
    metadata = body["metadata"] | {"deletionTimestamp": stamp(), "finalizers": ["orphan"]}
    scene.server.put(REPLICA_SETS, body | {"metadata": metadata})
    await leader.passes()
    [vmi] = scene.instances
    assert vmi["metadata"]["ownerReferences"] == []


async def test_a_number_that_the_cache_has_not_heard_of_counts(scene: SetScene) -> None:
    scene.put_set(5)
    leader = scene.leader()
    scene.put_set(2)
    await leader.passes()
    assert len(scene.asked("POST")) == len(scene.instances) == 2


async def test_nothing_is_made_for_a_set_that_is_gone(scene: SetScene) -> None:
    """Its instances are being deleted along with it, and the cache has heard of that first."""
    scene.put_set(2)
    leader = scene.leader()
    scene.server.remove(REPLICA_SETS, KEY)
    await leader.passes()
    assert scene.instances == []


async def test_orphans_are_adopted_and_strays_released(scene: SetScene) -> None:
    scene.put_set(2)
    scene.put_member("orphan", owner="")
    scene.put_member("stray", metadata={"labels": {"app": "other"}})
    leader = scene.leader()
    await leader.passes()
    owners = {
        vmi["metadata"]["name"]: [one["uid"] for one in vmi["metadata"]["ownerReferences"]]
        for vmi in scene.instances
    }
    assert owners == {"orphan": [SET_UID], "stray": []}
    await leader.passes()
    assert len(scene.instances) == 3
    assert scene.status["replicas"] == 2
