"""What a pool does next: machines made and deleted in order, and updates that never stop more guests than they may."""

from typing import Any

import pytest
from podvisor_common.api import v1
from podvisor_common.api.pool import VirtualMachinePool
from podvisor_common.api.v1.names import Reason
from podvisor_controller.pool import plan
from podvisor_controller.pool.observed import Observed, max_unavailable

from tests.unit.controller.builders import situations, stamp
from tests.unit.controller.pools import (
    guest_of,
    machine_of,
    pool,
    pool_observed,
    template_body,
)

DELETED = {"deletionTimestamp": stamp(1)}
OLD = pool(virtualMachineTemplate=template_body("32M"))
MANUAL = template_body(runStrategy="Manual")


def told(now: Observed) -> list[str]:
    """The plan in words: what is done, and to which index."""
    words = []
    for action in plan.plan(now):
        verb = type(action).__name__.removesuffix("Machine").lower()
        index = action.index if isinstance(action, plan.CreateMachine) else action.vm.metadata.name
        words.append(f"{verb} {str(index).rpartition('-')[2]}")
    return words


def machines(owner: VirtualMachinePool, *indexes: int, **changes: Any) -> list[v1.VirtualMachine]:
    return [machine_of(owner, index, **changes) for index in indexes]


@pytest.mark.parametrize(
    ("now", "expected"),
    situations(
        ("from nothing", pool_observed(pool(3), []), ["create 0", "create 1", "create 2"]),
        ("as wanted", pool_observed(pool(2), machines(pool(), 0, 1)), []),
        (
            "the lowest gaps first",
            pool_observed(pool(4), machines(pool(), 1, 3)),
            ["create 0", "create 2"],
        ),
        (
            "a name that somebody else has is passed over",
            pool_observed(pool(1), [], strangers=frozenset({"web-0"})),
            ["create 1"],
        ),
        (
            "one that is being deleted keeps its place until it is gone",
            pool_observed(pool(2), [*machines(pool(), 0, metadata=DELETED), *machines(pool(), 1)]),
            [],
        ),
        (
            "a pool that is being deleted does nothing",
            pool_observed(pool(3, metadata=DELETED), []),
            [],
        ),
        ("nor does one that is paused", pool_observed(pool(3, paused=True), []), []),
        (
            "what was refused waits",
            pool_observed(pool(3), [], waiting=frozenset({(Reason.FAILED_SCALE_OUT, "")})),
            [],
        ),
    ),
)
def test_scale_out(now: Observed, expected: list[str]) -> None:
    assert told(now) == expected


def proactive(sort_policy: str, **selectors: Any) -> dict[str, Any]:
    policy = {"sortPolicy": sort_policy} | ({"selectors": selectors} if selectors else {})
    return {"proactive": {"selectionPolicy": policy}}


AGED = [
    machine_of(pool(), index, age_s=age_s) for index, age_s in ((0, 30), (1, 90), (2, 60), (10, 10))
]


@pytest.mark.parametrize(
    ("strategy", "expected"),
    situations(
        ("ascending", proactive("AscendingOrder"), ["delete 0", "delete 1"]),
        (
            "descending, by number and not by text",
            proactive("DescendingOrder"),
            ["delete 10", "delete 2"],
        ),
        ("newest", proactive("Newest"), ["delete 10", "delete 0"]),
        ("oldest", proactive("Oldest"), ["delete 1", "delete 2"]),
        ("unmanaged", {"unmanaged": {}}, []),
        ("opportunistic leaves what runs", {"opportunistic": {}}, []),
        (
            "only what the labels select",
            proactive("AscendingOrder", labelSelector={"matchLabels": {"app": "other"}}),
            [],
        ),
        (
            "an empty selector asks for nothing",
            proactive("AscendingOrder", labelSelector={}),
            ["delete 0", "delete 1"],
        ),
        (
            "only what the node selector says",
            proactive(
                "AscendingOrder",
                nodeSelectorRequirementMatcher=[{"key": "zone", "operator": "Exists"}],
            ),
            [],
        ),
    ),
)
def test_scale_in(strategy: dict[str, Any], expected: list[str]) -> None:
    now = pool_observed(pool(2, scaleInStrategy=strategy, updateStrategy={"unmanaged": {}}), AGED)
    assert told(now) == expected


@pytest.mark.parametrize("strategy", [None, {"proactive": {}}, proactive("Random")])
def test_random_ones_go_and_always_the_same(strategy: dict[str, Any] | None) -> None:
    """Who decides on an older state, after a change of leaders, decides the same: no other machine is lost by it."""
    chosen = told(pool_observed(pool(2, scaleInStrategy=strategy), AGED))
    assert len(chosen) == 2
    assert told(pool_observed(pool(2, scaleInStrategy=strategy), AGED[::-1])) == chosen
    fewer = [vm for vm in AGED if f"delete {vm.metadata.name[4:]}" != chosen[0]]
    assert told(pool_observed(pool(2, scaleInStrategy=strategy), fewer)) == chosen[1:]


def test_an_opportunistic_one_deletes_what_does_not_run_and_only_as_it_was_seen() -> None:
    running, ended, stopped = machines(pool(), 0, 1, 2)
    guests = [guest_of(running), guest_of(ended, phase="Succeeded", ready=False)]
    owner = pool(0, scaleInStrategy={"opportunistic": {}})
    actions = plan.plan(pool_observed(owner, [running, ended, stopped], guests))
    assert actions == [plan.DeleteMachine(stopped, True), plan.DeleteMachine(ended, True)]


def test_what_is_being_deleted_is_not_deleted_twice_over() -> None:
    own = [*machines(pool(), 0, 1), *machines(pool(), 2, metadata=DELETED)]
    strategy = proactive("DescendingOrder")
    assert told(pool_observed(pool(2, scaleInStrategy=strategy), own)) == []
    assert told(pool_observed(pool(1, scaleInStrategy=strategy), own)) == ["delete 1"]


@pytest.mark.parametrize("paused", [False, True])
def test_claims_come_before_everything_else(paused: bool) -> None:
    orphan = machine_of(pool(), 0, metadata={"ownerReferences": []})
    stray = machine_of(pool(), 1, metadata={"labels": {"pool": "other"}})
    assert told(pool_observed(pool(5, paused=paused), [orphan, stray])) == ["adopt 0", "release 1"]


def test_a_machine_of_another_name_is_not_adopted() -> None:
    metadata = {"ownerReferences": [], "name": "database"}
    lone = machine_of(pool(), 0, metadata=metadata)
    assert told(pool_observed(pool(0), [lone])) == []


def ordered(**changes: Any) -> VirtualMachinePool:
    strategy = {"proactive": {"selectionPolicy": {"sortPolicy": "AscendingOrder"}}}
    return pool(**({"updateStrategy": strategy} | changes))


def given(*indexes: int, **changes: Any) -> list[v1.VirtualMachine]:
    """Machines that have the new template already."""
    return machines(pool(), *indexes, **changes)


def before(*indexes: int, ready: bool = True) -> list[v1.VirtualMachineInstance]:
    """Their guests from before."""
    return [guest_of(vm, ready=ready) for vm in machines(OLD, *indexes)]


@pytest.mark.parametrize(
    ("now", "expected"),
    situations(
        (
            "every machine gets the template at once",
            pool_observed(ordered(maxUnavailable=1), machines(OLD, 0, 1, 2)),
            ["update 0", "update 1", "update 2"],
        ),
        (
            "one guest after another",
            pool_observed(ordered(maxUnavailable=1), given(0, 1, 2), before(0, 1, 2)),
            ["restart 0"],
        ),
        (
            "as many as may be not ready",
            pool_observed(ordered(maxUnavailable="67%"), given(0, 1, 2), before(0, 1, 2)),
            ["restart 0", "restart 1"],
        ),
        (
            "all, when nobody says how many",
            pool_observed(ordered(), given(0, 1, 2), before(0, 1, 2)),
            ["restart 0", "restart 1", "restart 2"],
        ),
        (
            "the next waits until the first is ready",
            pool_observed(
                ordered(replicas=2, maxUnavailable=1),
                given(0, 1),
                [guest_of(given(0)[0], ready=False), *before(1)],
            ),
            [],
        ),
        (
            "and goes then",
            pool_observed(
                ordered(replicas=2, maxUnavailable=1),
                given(0, 1),
                [guest_of(given(0)[0]), *before(1)],
            ),
            ["restart 1"],
        ),
        (
            "a machine without a guest counts",
            pool_observed(ordered(replicas=2, maxUnavailable=1), given(0, 1), before(1)),
            [],
        ),
        (
            "but not one that its user has stopped",
            pool_observed(
                ordered(maxUnavailable=1, virtualMachineTemplate=MANUAL),
                machines(pool(virtualMachineTemplate=MANUAL), 0, 1, 2),
                before(1, 2),
            ),
            ["restart 1"],
        ),
        (
            "nor one that its user has shut down from within",
            pool_observed(
                ordered(maxUnavailable=1, virtualMachineTemplate=MANUAL),
                machines(pool(virtualMachineTemplate=MANUAL), 0, 1, 2),
                [guest_of(machine_of(OLD, 0), phase="Succeeded", ready=False), *before(1, 2)],
            ),
            ["restart 1"],
        ),
        (
            "unless he has asked for its start",
            pool_observed(
                ordered(maxUnavailable=1, virtualMachineTemplate=MANUAL),
                [
                    *machines(
                        pool(virtualMachineTemplate=MANUAL),
                        0,
                        status={"stateChangeRequests": [{"action": "Start"}]},
                    ),
                    *machines(pool(virtualMachineTemplate=MANUAL), 1, 2),
                ],
                before(1, 2),
            ),
            [],
        ),
        (
            "a machine on its way out counts",
            pool_observed(
                ordered(maxUnavailable=1),
                [*given(0, metadata=DELETED), *given(1, 2)],
                before(0, 1, 2),
            ),
            [],
        ),
        (
            "and so does one that comes in its place",
            pool_observed(ordered(maxUnavailable=1), given(1, 2), before(1, 2)),
            ["create 0"],
        ),
        (
            "and one that was asked to restart while its guest still runs",
            pool_observed(
                ordered(replicas=2, maxUnavailable=1),
                [
                    *given(0, status={"stateChangeRequests": [{"action": "Stop", "uid": "x"}]}),
                    *given(1),
                ],
                before(0, 1),
            ),
            [],
        ),
        (
            "what does not serve is restarted beside the others",
            pool_observed(
                ordered(maxUnavailable=1), given(0, 1, 2), [*before(0, 1), *before(2, ready=False)]
            ),
            ["restart 2"],
        ),
        (
            "a guest that is being stopped is not stopped again",
            pool_observed(
                ordered(replicas=1),
                given(0),
                [guest_of(machine_of(OLD, 0), deletionTimestamp=stamp(1))],
            ),
            [],
        ),
        (
            "a machine that runs once is left alone",
            pool_observed(
                ordered(virtualMachineTemplate=template_body(runStrategy="Once")),
                machines(pool(virtualMachineTemplate=template_body(runStrategy="Once")), 0, 1, 2),
                before(0, 1, 2),
            ),
            [],
        ),
        (
            "what a guest cannot notice does not restart it",
            pool_observed(
                ordered(virtualMachineTemplate=template_body(runStrategy="Manual")),
                machines(pool(virtualMachineTemplate=template_body(runStrategy="Manual")), 0, 1, 2),
                [guest_of(vm) for vm in given(0, 1, 2)],
            ),
            [],
        ),
        (
            "opportunistic: the machines only",
            pool_observed(
                pool(updateStrategy={"opportunistic": {}}),
                [*machines(OLD, 0), *given(1, 2)],
                before(0, 1, 2),
            ),
            ["update 0"],
        ),
        (
            "unmanaged: nothing",
            pool_observed(
                pool(updateStrategy={"unmanaged": {}}),
                [*machines(OLD, 0), *given(1, 2)],
                before(0, 1, 2),
            ),
            [],
        ),
        (
            "what goes is not updated before",
            pool_observed(
                ordered(replicas=1, scaleInStrategy=proactive("DescendingOrder")),
                machines(OLD, 0, 1),
            ),
            ["delete 1", "update 0"],
        ),
        (
            "a machine whose update was refused holds up no other",
            pool_observed(
                ordered(maxUnavailable=1),
                [*machines(OLD, 0), *given(1, 2)],
                before(0, 1, 2),
                waiting=frozenset({(Reason.FAILED_UPDATE, "vm-0")}),
            ),
            ["restart 1"],
        ),
        (
            "in the order that is asked for",
            pool_observed(
                pool(maxUnavailable=1, updateStrategy=proactive("DescendingOrder")),
                given(0, 1, 2),
                before(0, 1, 2),
            ),
            ["restart 2"],
        ),
    ),
)
def test_update(now: Observed, expected: list[str]) -> None:
    assert told(now) == expected


@pytest.mark.parametrize(
    ("value", "replicas", "expected"),
    [
        (None, 3, 3),
        ("100%", 4, 4),
        ("50%", 3, 1),
        ("1%", 3, 1),
        (2, 3, 2),
        (5, 3, 5),
        (None, 0, 1),
        (0, 3, 1),
        ("x", 3, 1),
    ],
)
def test_max_unavailable(value: int | str | None, replicas: int, expected: int) -> None:
    assert max_unavailable(pool(replicas, maxUnavailable=value)) == expected
