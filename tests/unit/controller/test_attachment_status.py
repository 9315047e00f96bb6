"""What is said of volumes of a running guest: to people, and to the handler."""

from typing import Any

import pytest
from podvisor_common.api import core, v1
from podvisor_controller.vmi import volume_status
from podvisor_controller.vmi.attachments import Attachments
from podvisor_controller.vmi.observed import Observed
from podvisor_controller.vmi.status import has_changed, new_trouble, status_of

from tests.unit.controller.builders import (
    observed,
    situations,
    stamp,
    vmi,
)
from tests.unit.controller.plugged import (
    DYING,
    FIRST,
    FIXED,
    LATER,
    LAUNCHER,
    SECOND,
    attachments,
    holder,
    rival,
    running,
    told,
    volume,
    with_volumes,
)

UNSCHEDULABLE = {
    "type": "PodScheduled",
    "status": "False",
    "reason": "Unschedulable",
    "message": "volume node affinity conflict",
}


def unplaced(seconds_ago: float) -> core.Pod:
    condition = UNSCHEDULABLE | {"lastTransitionTime": stamp(seconds_ago)}
    return holder(phase="Pending", node="", status={"conditions": [condition]})


@pytest.mark.parametrize(
    ("now", "reason", "words"),
    situations(
        ("held", attachments(running(volume()), holder()), None, ""),
        (
            "no claim",
            attachments(running(volume()), claims={}),
            "FailedPvcNotFound",
            "is attached when",
        ),
        (
            "no claim any more, but a pod that holds it",
            attachments(running(volume()), holder(), claims={}),
            None,
            "",
        ),
        (
            "refused",
            attachments(running(volume()), failures={"data": LATER}),
            "FailedHotplugSync",
            "why",
        ),
        ("placed soon, perhaps", attachments(running(volume()), unplaced(1)), None, ""),
        (
            "on another node",
            attachments(running(volume()), unplaced(2)),
            "FailedHotplugSync",
            f'Pod {FIRST} cannot hold volume "data" on the node of the machine: volume node',
        ),
        ("nothing runs", attachments(running(volume()), launcher=None, claims={}), None, ""),
    ),
)
def test_what_is_said_of_a_running_machine(
    now: Attachments, reason: str | None, words: str
) -> None:
    seen = observed(now.vmi, LAUNCHER, attached=now, claims=now.claims)
    body = status_of(seen)
    assert body is not None
    assert "phase" not in body
    found = {condition["type"]: condition for condition in body["conditions"]}
    assert found.keys() == ({"Synchronized"} if reason else set())
    if reason is not None:
        assert found["Synchronized"]["reason"] == reason
        assert words in found["Synchronized"]["message"]
        assert new_trouble(now.vmi, body) == found["Synchronized"]


def test_what_was_said_is_taken_back() -> None:
    said = {"type": "Synchronized", "status": "False", "reason": "FailedHotplugSync"}
    healed = running(volume(), status=(told(),))
    body = status_of(seen(healed, holder()))
    assert body is not None
    told_of = vmi(
        spec=with_volumes(volume()),
        status={
            "phase": "Running",
            "nodeName": "n1",
            "conditions": [said],
            "volumeStatus": [told()],
        },
    )
    assert has_changed(told_of, body)


@pytest.mark.parametrize(
    ("now", "again_s"),
    situations(
        ("nothing", attachments(running(volume()), holder()), 0),
        ("a pause", attachments(running(volume()), failures={"data": LATER}), 5),
        ("a refused deletion", attachments(running(), holder(), refused={"hp-0": LATER}), 5),
        ("the scheduler's second thought", attachments(running(volume()), unplaced(1)), 0.5),
        (
            "who else gets a pod",
            attachments(running(volume()), rivals=(rival(FIXED, is_getting_pod=True),)),
            1,
        ),
    ),
)
def test_when_time_alone_matters(now: Attachments, again_s: float) -> None:
    assert now.look_again_in.total_seconds() == again_s
    seen_all = observed(now.vmi, LAUNCHER, attached=now)
    assert seen_all.look_again_in_s == (again_s or None)


def seen(instance: v1.VirtualMachineInstance, *pods: core.Pod, **changes: Any) -> Observed:
    now = attachments(instance, *pods, **changes)
    return observed(instance, LAUNCHER, attached=now, claims=now.claims)


@pytest.mark.parametrize(
    ("now", "expected", "is_news"),
    situations(
        ("a pod is there", seen(running(volume()), holder()), [told()], True),
        (
            "as said",
            seen(running(volume(), status=(told(phase="Ready"),)), holder()),
            [told()],
            False,
        ),
        (
            "the pod has a successor",
            seen(
                running(volume(), status=(told(),)),
                holder(metadata=DYING),
                holder(attempt=1, uid="hp-1"),
            ),
            [told(hotplugVolume={"attachPodName": SECOND, "attachPodUID": "hp-1"})],
            True,
        ),
        (
            "the pod is going and has none yet",
            seen(running(volume(), status=(told(),)), holder(metadata=DYING)),
            [told()],
            False,
        ),
        (
            "the volume leaves",
            seen(running(status=(told(phase="Detaching"),)), holder()),
            [told()],
            False,
        ),
        (
            "the pod has vanished while the guest has the volume",
            seen(running(volume(), status=(told(phase="Ready"),))),
            [told()],
            False,
        ),
        (
            "the pod has vanished before the guest has let go of the volume",
            seen(running(status=(told(phase="Detaching"),))),
            [told()],
            False,
        ),
        (
            "nothing of the guest's pods is left on a node that is silent",
            seen(running(volume(), status=(told(phase="Ready"),)), launcher=None, is_over=False),
            [told()],
            False,
        ),
        (
            "nothing of its pods is left, and the guest has ended",
            seen(running(volume(), status=(told(phase="Ready"),)), launcher=None),
            [{"name": "data", "persistentVolumeClaimInfo": told()["persistentVolumeClaimInfo"]}],
            True,
        ),
        (
            "the volume has left",
            seen(running(status=(told(phase="UnMountedFromPod"),))),
            None,
            True,
        ),
        (
            "another claim waits for the old one",
            seen(running(volume(claim_name="other"), status=(told(),)), holder()),
            [told()],
            False,
        ),
    ),
)
def test_what_the_handler_is_told(now: Observed, expected: Any, is_news: bool) -> None:
    body = status_of(now)
    assert body is not None
    assert body.get("volumeStatus") == expected
    assert volume_status.has_changed(now.vmi, body) == is_news


def test_a_pod_that_is_not_known_of_is_looked_for() -> None:
    now = attachments(running(volume(), status=(told(uid="hp-7"),)), holder())
    assert [entry.name for entry in now.vanished] == ["data"]
    assert attachments(running(volume(), status=(told(),)), holder()).vanished == []
