"""What a set of instances needs next, and what its status says, as tables of situations."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest
from podvisor_common.api import v1
from podvisor_common.api.v1.names import Reason
from podvisor_controller.replicaset.instance import instance_of
from podvisor_controller.replicaset.plan import (
    AdoptInstance,
    CreateInstances,
    DeleteInstance,
    Observed,
    ReleaseInstance,
    in_deletion_order,
    plan,
)
from podvisor_controller.replicaset.status import status_of
from podvisor_controller.sets.claims import claim
from podvisor_controller.sets.conditions import Failure
from podvisor_controller.status_patch import patch_of

from tests.unit.controller.builders import (
    NOW,
    SET_UID,
    Json,
    member,
    replica_set,
    situations,
    stamp,
)

GOING = {"deletionTimestamp": stamp(1)}
QUOTA = Failure(Reason.FAILED_CREATE, "exceeded quota: small")
OTHER = {"labels": {"app": "other"}}


def observed(
    owner: v1.VirtualMachineInstanceReplicaSet,
    *objects: v1.VirtualMachineInstance,
    **changes: Any,
) -> Observed:
    claims = claim(objects, SET_UID, owner.spec.selector)
    defaults: Json = {"at": NOW}
    return Observed(replica_set=owner, claims=claims, **(defaults | changes))


def in_words(now: Observed) -> list[str]:
    """The plan, short: `+2`, `-name`, `adopt name`, `release name`."""
    words = []
    for action in plan(now):
        match action:
            case CreateInstances(count):
                words.append(f"+{count}")
            case DeleteInstance(vmi):
                words.append(f"-{vmi.metadata.name}")
            case AdoptInstance(vmi):
                words.append(f"adopt {vmi.metadata.name}")
            case ReleaseInstance(vmi):
                words.append(f"release {vmi.metadata.name}")
    return words


THREE = [member(name) for name in "abc"]


@pytest.mark.parametrize(
    ("owner", "objects", "expected"),
    situations(
        ("nothing is there", replica_set(3), [], ["+3"]),
        ("all are there", replica_set(3), THREE, []),
        ("one is missing", replica_set(3), THREE[:2], ["+1"]),
        ("one too many", replica_set(2), THREE, ["-a"]),
        ("none is wanted", replica_set(0), THREE, ["-a", "-b", "-c"]),
        (
            "one is being deleted",
            replica_set(3),
            [*THREE[:2], member("c", metadata=GOING)],
            ["+1"],
        ),
        (
            "one has failed",
            replica_set(3),
            [*THREE[:2], member("c", "Failed")],
            ["-c", "+1"],
        ),
        (
            "one has succeeded, and there are too many",
            replica_set(1),
            [*THREE[:2], member("c", "Succeeded")],
            ["-c", "-a"],
        ),
        ("paused and short", replica_set(3, spec={"paused": True}), [], []),
        (
            "paused, with an orphan",
            replica_set(3, spec={"paused": True}),
            [member("o", owner="")],
            ["adopt o"],
        ),
        ("being deleted", replica_set(3, metadata=GOING), [], []),
        ("an orphan comes before others", replica_set(3), [member("o", owner="")], ["adopt o"]),
        (
            "an orphan that has ended stays",
            replica_set(0),
            [member("o", "Failed", owner="")],
            [],
        ),
        (
            "an orphan on its way out stays",
            replica_set(0),
            [member("o", owner="", metadata=GOING)],
            [],
        ),
        (
            "an orphan with other labels",
            replica_set(0),
            [member("o", owner="", metadata=OTHER)],
            [],
        ),
        ("somebody else's", replica_set(0), [member("s", owner="another")], []),
        (
            "its own with other labels",
            replica_set(3),
            [*THREE, member("s", metadata=OTHER)],
            ["release s"],
        ),
        (
            "its own with other labels, on its way out",
            replica_set(3),
            [*THREE, member("s", metadata=OTHER | GOING)],
            [],
        ),
        (
            "what it would make it would not select",
            replica_set(3, spec={"selector": {"matchLabels": {"app": "other"}}}),
            THREE,
            [],
        ),
    ),
)
def test_plan(owner: Any, objects: Any, expected: list[str]) -> None:
    assert in_words(observed(owner, *objects)) == expected


def test_the_least_missed_go_first() -> None:
    newer, older = {"creationTimestamp": stamp(10)}, {"creationTimestamp": stamp(100)}
    objects = [
        member("ready-old", metadata=older),
        member("ready-new", metadata=newer),
        member("ready-same", metadata=newer),
        member("not-ready", ready=False, metadata=older),
        member("scheduled", "Scheduled", metadata=older),
        member("pending", "Pending", metadata=older),
        member("new", "", metadata=newer),
        member("unknown", "Unknown", node="n1", metadata=older),
    ]
    order = [vmi.metadata.name for vmi in in_deletion_order(observed(replica_set(0), *objects))]
    assert order == [
        "new",
        "pending",
        "scheduled",
        "unknown",
        "not-ready",
        "ready-new",
        "ready-same",
        "ready-old",
    ]


def test_a_deletion_without_an_answer_is_repeated_instead_of_another() -> None:
    now = observed(replica_set(2), *THREE, doubtful=frozenset({"uid-c"}))
    assert in_words(now) == ["-c"]


def test_what_was_deleted_does_not_count_before_the_cache_shows_it() -> None:
    assert in_words(observed(replica_set(2), *THREE, deleted=frozenset({"uid-a"}))) == []
    assert in_words(observed(replica_set(3), *THREE, deleted=frozenset({"uid-a"}))) == ["+1"]


WAIT = timedelta(seconds=2)


@pytest.mark.parametrize(
    ("wait", "expected"),
    [
        ({"creations_wait": WAIT}, ["-c"]),
        ({"deletions_wait": WAIT}, ["+1"]),
        ({"creations_wait": WAIT, "deletions_wait": WAIT}, []),
        ({}, ["-c", "+1"]),
    ],
)
def test_what_was_refused_is_waited_out_and_keeps_up_nothing_else(
    wait: dict[str, timedelta], expected: list[str]
) -> None:
    objects = [*THREE[:2], member("c", "Failed")]
    assert in_words(observed(replica_set(3), *objects, **wait)) == expected


def test_a_member_that_cannot_be_claimed_holds_up_nothing() -> None:
    objects = [member("o", owner=""), member("s", metadata=OTHER)]
    assert in_words(observed(replica_set(3), *objects)) == ["adopt o", "release s"]
    assert in_words(observed(replica_set(3), *objects, claims_wait=WAIT)) == ["+3"]


def test_an_instance_is_what_the_template_says() -> None:
    template = {
        "metadata": {"labels": {"app": "web"}, "annotations": {"a": "b"}, "name": "ignored"},
        "spec": {"domain": {"devices": {}}, "nodeSelector": {"disk": "ssd"}},
    }
    manifest = instance_of(replica_set(spec={"template": template}), "web1")
    assert manifest["metadata"] == {
        "name": "web1",
        "namespace": "shop",
        "labels": {"app": "web"},
        "annotations": {"a": "b"},
        "finalizers": ["kubevirt.io/foregroundDeleteVirtualMachine"],
        "ownerReferences": [
            {
                "apiVersion": "kubevirt.io/v1",
                "kind": "VirtualMachineInstanceReplicaSet",
                "name": "web",
                "uid": SET_UID,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }
    assert manifest["spec"] == template["spec"]


def conditions_in(status: v1.VirtualMachineInstanceReplicaSetStatus) -> Json:
    return {c.type: (c.status, c.reason, c.message) for c in status.conditions or ()}


def test_status_counts_what_lives() -> None:
    objects = [*THREE[:2], member("c", ready=False), member("d", "Failed"), member("e", "Pending")]
    status = status_of(observed(replica_set(4), *objects, member("f", metadata=GOING)))
    assert (status.replicas, status.ready_replicas) == (4, 2)
    assert status.label_selector == "app=web"
    assert status.conditions is None


def test_nothing_is_said_as_zero() -> None:
    patch = patch_of(replica_set(0).status, status_of(observed(replica_set(0))))
    assert patch == {"replicas": 0, "readyReplicas": 0, "labelSelector": "app=web"}


@pytest.mark.parametrize(
    ("spec", "objects", "failure", "expected"),
    situations(
        ("nothing to say", {}, THREE, None, {}),
        (
            "refused",
            {},
            THREE[:2],
            QUOTA,
            {"ReplicaFailure": ("True", "FailedCreate", "exceeded quota: small")},
        ),
        ("refused, and not wanted any more", {}, THREE, QUOTA, {}),
        (
            "paused",
            {"paused": True},
            [],
            QUOTA,
            {"ReplicaPaused": ("True", "Paused", "Controller got paused")},
        ),
    ),
)
def test_conditions(spec: Json, objects: Any, failure: Failure | None, expected: Json) -> None:
    now = observed(replica_set(3, spec=spec), *objects, failure=failure)
    assert conditions_in(status_of(now)) == expected


def test_conditions_go_with_their_cause_and_keep_their_time() -> None:
    paused = {"type": "ReplicaPaused", "status": "True", "reason": "Paused", "message": "x"}
    others = {"type": "Else", "status": "True"}
    known = {"conditions": [others, paused | {"lastTransitionTime": stamp(500)}]}
    still = status_of(observed(replica_set(0, spec={"paused": True}, status=known)))
    times = {c.type: c.last_transition_time for c in still.conditions or ()}
    assert times["ReplicaPaused"] == stamp(500)
    resumed = status_of(observed(replica_set(0, status=known)))
    assert [c.type for c in resumed.conditions or ()] == ["Else"]


def test_an_unchanged_set_needs_no_write() -> None:
    first = status_of(observed(replica_set(3, spec={"paused": True}), *THREE))
    known: Json = msgspec.to_builtins(first)
    owner = replica_set(3, spec={"paused": True}, status=known)
    again = status_of(observed(owner, *THREE, at=NOW + timedelta(hours=1)))
    assert patch_of(owner.status, again) == {}
