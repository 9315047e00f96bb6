"""What an instance needs next, as a table of situations."""

from datetime import timedelta
from typing import Any, TypeVar

import msgspec
import pytest
from podvisor_common.api import core
from podvisor_common.api.v1.names import Phase
from podvisor_controller.node.health import NodeHealth
from podvisor_controller.vmi.observed import Observed
from podvisor_controller.vmi.plan import (
    CreatePod,
    DeletePod,
    DiscardPod,
    Finish,
    ReleaseFinalizer,
    plan,
)
from podvisor_controller.vmi.pod import launcher_pod_name

from tests.unit.controller.builders import (
    NOW,
    UID,
    deleted,
    ended_pod,
    lingering_pod,
    observed,
    pod,
    refused_pod,
    scheduled,
    situations,
    unschedulable_pod,
    unstartable_pod,
    vmi,
    waiting_pod,
)

DYING = {"deletionTimestamp": "2026-01-01T00:00:59Z"}
SNAKE_DYING = {"deletion_timestamp": DYING["deletionTimestamp"]}

SITUATIONS = situations(
    ("first sight", observed(vmi()), [CreatePod]),
    ("the pod is there", observed(vmi(), pod()), []),
    ("the pod is bound", observed(vmi(), pod(node="n1")), []),
    ("the pod fits no node", observed(vmi(), unschedulable_pod(30)), []),
    ("the image cannot be pulled", observed(scheduled(), waiting_pod("ErrImagePull")), []),
    ("the guest runs", observed(scheduled("Running"), pod("Running", node="n1")), []),
    ("deleted before the pod existed", observed(deleted()), [ReleaseFinalizer]),
    ("deleted, and released already", observed(deleted(finalizers=[])), []),
    ("deleted while the guest runs", observed(deleted(), pod("Running", node="n1")), [DeletePod]),
    ("deleted, and the pod is going", observed(deleted(), pod(metadata=DYING)), []),
    (
        "deleted after the guest ended",
        observed(deleted({"phase": "Failed"}), ended_pod(1)),
        [DeletePod],
    ),
    (
        "deleted after the guest ended, for good",
        observed(deleted({"phase": "Succeeded"}), pod(metadata=DYING)),
        [],
    ),
    (
        "deleted after the guest ended, and another instance follows",
        observed(deleted({"phase": "Succeeded"}), pod(metadata=DYING), has_successor=True),
        [ReleaseFinalizer],
    ),
    (
        "the same, before the pod was told to go",
        observed(deleted({"phase": "Failed"}), pod("Running", node="n1"), has_successor=True),
        [DeletePod, ReleaseFinalizer],
    ),
    (
        "deleted while the guest runs, and another instance follows",
        observed(deleted({"phase": "Running"}), pod(metadata=DYING), has_successor=True),
        [],
    ),
    (
        "released already, the pod still going",
        observed(
            deleted({"phase": "Failed"}, finalizers=[]), pod(metadata=DYING), has_successor=True
        ),
        [],
    ),
    (
        "deleted with two pods",
        observed(deleted(), pod(), pod(metadata={"name": "b", "uid": "b"})),
        [DeletePod, DeletePod],
    ),
    (
        "deleted while its node is dead",
        observed(deleted({"nodeName": "n1"}), pod(metadata=DYING), node=NodeHealth.UNRESPONSIVE),
        [],
    ),
    (
        "deleted, its pod deleted by force while the guest may run",
        observed(deleted({"phase": "Running", "nodeName": "n1"})),
        [],
    ),
    (
        "the same, before the guest was reported as running",
        observed(deleted({"phase": "Scheduled", "nodeName": "n1"})),
        [],
    ),
    (
        "the same on a node that does not answer",
        observed(
            deleted({"phase": "Running", "nodeName": "n1"}),
            node=NodeHealth.UNRESPONSIVE,
            has_successor=True,
        ),
        [],
    ),
    (
        "the same on a node that is fenced",
        observed(deleted({"phase": "Running", "nodeName": "n1"}), node=NodeHealth.FENCED),
        [ReleaseFinalizer],
    ),
    (
        "deleted, and the guest ended before its pod went",
        observed(deleted({"phase": "Succeeded", "nodeName": "n1"})),
        [ReleaseFinalizer],
    ),
    (
        "deleted, the pod has ended and is about to vanish, its handler silent",
        observed(
            deleted({"phase": "Running", "nodeName": "n1"}), ended_pod(0, seconds_ago=0, **DYING)
        ),
        [Finish],
    ),
    (
        "deleted, the kubelet had refused the pod",
        observed(deleted({"phase": "Scheduled", "nodeName": "n1"}), refused_pod()),
        [Finish],
    ),
    ("ended, the pod kept for its logs", observed(scheduled("Succeeded"), ended_pod(0)), []),
    ("ended, the pod is gone", observed(scheduled("Failed")), []),
    (
        "the pod has only just ended",
        observed(scheduled("Running"), ended_pod(0, seconds_ago=1)),
        [],
    ),
    ("the pod ended, its handler silent", observed(scheduled("Running"), ended_pod(0)), [Finish]),
    (
        "the pod ended and is about to vanish",
        observed(scheduled("Running"), ended_pod(0, seconds_ago=0, **DYING)),
        [Finish],
    ),
    (
        "what carries the guest has ended, the rest of the pod stays",
        observed(scheduled(), lingering_pod()),
        [Finish],
    ),
    (
        "the same, a moment ago",
        observed(scheduled(), lingering_pod(seconds_ago=1)),
        [],
    ),
    (
        "the same, while the pod is being deleted",
        observed(scheduled("Running"), lingering_pod(seconds_ago=1, **DYING)),
        [],
    ),
    ("the pod was deleted by force", observed(scheduled("Running")), []),
    (
        "the pod vanished before it was bound",
        observed(vmi(status={"phase": "Pending"})),
        [CreatePod],
    ),
    ("the node does not answer", observed(scheduled("Running"), node=NodeHealth.UNRESPONSIVE), []),
    ("the node is fenced", observed(scheduled("Running"), node=NodeHealth.FENCED), [Finish]),
    (
        "the node is fenced, the pod still listed",
        observed(scheduled("Running"), pod("Running", node="n1"), node=NodeHealth.FENCED),
        [Finish],
    ),
    ("refused, the status still names the node", observed(scheduled(), refused_pod()), []),
    ("refused by the kubelet", observed(vmi(), refused_pod()), [DiscardPod]),
    ("cannot start, the status still names the node", observed(scheduled(), unstartable_pod()), []),
    ("cannot start on its node", observed(vmi(), unstartable_pod()), [DiscardPod]),
    ("refused, to be tried later", observed(vmi(), retry_at=NOW + timedelta(seconds=5)), []),
    ("refused, to be tried now", observed(vmi(), attempt=1, retry_at=NOW), [CreatePod]),
    (
        "refused, and the clock was set back since",
        observed(vmi(), attempt=1, retry_at=NOW + timedelta(hours=1)),
        [CreatePod],
    ),
    (
        "its pod ended, and the clock was set back since",
        observed(scheduled("Running"), ended_pod(0, seconds_ago=-3600)),
        [Finish],
    ),
    (
        "its pod ended, on a node whose clock is ahead",
        observed(scheduled("Running"), ended_pod(0, seconds_ago=-5)),
        [],
    ),
    (
        "its pod ended long ago, as the API server that was away says only now",
        observed(scheduled("Running"), ended_pod(0, seconds_ago=50), pod_end_seen_at=NOW),
        [],
    ),
    (
        "its pod ended cleanly, and whether it has run is yet to be said",
        observed(
            scheduled(),
            ended_pod(0, seconds_ago=50),
            pod_end_seen_at=NOW - timedelta(seconds=15),
        ),
        [],
    ),
    (
        "its pod ended cleanly, and nobody has said that it ran",
        observed(
            scheduled(),
            ended_pod(0, seconds_ago=50),
            pod_end_seen_at=NOW - timedelta(seconds=25),
        ),
        [Finish],
    ),
)


Kind = TypeVar("Kind")


def the_one(kind: type[Kind], now: Observed) -> Kind:
    """The only action planned, which is of that kind."""
    [action] = plan(now)
    assert isinstance(action, kind)
    return action


@pytest.mark.parametrize(("now", "expected"), SITUATIONS)
def test_plan(now: Any, expected: Any) -> None:
    assert [type(action) for action in plan(now)] == expected
    assert plan(now) == plan(now)


def _without_container(**metadata: Any) -> core.Pod:
    """A pod that has ended before the runtime made its container."""
    terminated = {"exitCode": 137, "reason": core.CONTAINER_STATUS_UNKNOWN}
    statuses = [{"name": "compute", "state": {"terminated": terminated}}]
    return pod("Failed", node="n1", metadata=metadata, status={"containerStatuses": statuses})


@pytest.mark.parametrize(
    ("now", "phase", "reason"),
    situations(
        (
            "clean end",
            observed(scheduled("Running"), ended_pod(0)),
            Phase.SUCCEEDED,
            "GuestShutdown",
        ),
        ("crash", observed(scheduled("Running"), ended_pod(1)), Phase.FAILED, "GuestCrashed"),
        (
            "never ran",
            observed(scheduled(), ended_pod(0, seconds_ago=30)),
            Phase.FAILED,
            "PodEndedEarly",
        ),
        (
            "evicted while the guest ran",
            observed(
                scheduled("Running"),
                pod("Failed", node="n1", status={"reason": "Evicted", "message": "low on memory"}),
            ),
            Phase.FAILED,
            "Evicted",
        ),
        (
            "no container status at all",
            observed(scheduled("Running"), pod("Failed", node="n1")),
            Phase.FAILED,
            "PodEnded",
        ),
        (
            "deleted while its image could not be pulled",
            observed(
                deleted({"phase": "Scheduled", "nodeName": "n1"}), _without_container(**DYING)
            ),
            Phase.SUCCEEDED,
            "NeverStarted",
        ),
        (
            "fenced",
            observed(scheduled("Running"), node=NodeHealth.FENCED),
            Phase.FAILED,
            "NodeFenced",
        ),
        (
            "destroyed after its grace period, as asked",
            observed(
                deleted({"phase": "Running", "nodeName": "n1"}),
                ended_pod(10, seconds_ago=0, **DYING),
            ),
            Phase.SUCCEEDED,
            "GuestCrashed",
        ),
    ),
)
def test_how_it_ended(now: Any, phase: str, reason: str) -> None:
    finish = the_one(Finish, now)
    assert (finish.phase, finish.reason) == (phase, reason)
    assert finish.message


def test_every_attempt_has_a_name_of_its_own() -> None:
    first = the_one(CreatePod, observed(vmi()))
    second = the_one(CreatePod, observed(vmi(), attempt=1))
    assert first.manifest["metadata"]["name"] == launcher_pod_name("myvm", UID)
    assert first.manifest["metadata"]["name"] != second.manifest["metadata"]["name"]


def test_the_kubelet_waits_longer_than_the_guest_may_take() -> None:
    delete = the_one(DeletePod, observed(deleted(), pod()))
    assert delete.grace_period_s == 5 + 30


def test_a_pod_without_a_guest_is_not_waited_for() -> None:
    now = observed(deleted({"phase": "Scheduled"}), waiting_pod("ImagePullBackOff"))
    delete = the_one(DeletePod, now)
    assert delete.grace_period_s == 1


@pytest.mark.parametrize(
    ("phase", "granted_s", "expected"),
    situations(
        ("the kubelet waits for nobody", "Scheduled", 35, [DeletePod]),
        ("cut already", "Scheduled", 1, []),
        ("a guest did run", "Running", 35, []),
    ),
)
def test_a_long_wait_for_no_guest_is_cut(phase: str, granted_s: int, expected: Any) -> None:
    stuck = waiting_pod("ErrImagePull")
    meta = msgspec.structs.replace(
        stuck.metadata, deletion_grace_period_seconds=granted_s, **SNAKE_DYING
    )
    now = observed(deleted({"phase": phase}), msgspec.structs.replace(stuck, metadata=meta))
    assert [type(action) for action in plan(now)] == expected


def test_of_several_pods_the_living_one_counts() -> None:
    dying = pod(metadata={"name": "a", "uid": "a", **DYING})
    assert observed(vmi(), dying, pod()).pod == pod()


def test_a_pod_that_the_status_does_not_name_counts_for_nothing() -> None:
    forged = pod("Running", node="n2", metadata={"name": "b", "uid": "b"})
    own = pod("Running", node="n1", metadata={"creationTimestamp": "2020-01-01T00:00:00Z"})
    dying = pod("Running", node="n1", metadata=DYING)
    bound = scheduled("Running", activePods={"pod-1": "n1"})
    assert observed(bound, forged, own).pod == own
    assert observed(bound, forged, dying).pod == dying
    assert observed(bound, forged).pod is None
    assert plan(observed(bound, forged)) == []


def test_time_alone_changes_the_decision_only_where_it_does() -> None:
    assert observed(vmi(), pod()).look_again_in_s is None
    assert observed(vmi(), unschedulable_pod(0)).look_again_in_s == pytest.approx(1.5)
    assert observed(vmi(), unschedulable_pod(30)).look_again_in_s is None
    assert observed(scheduled("Running"), ended_pod(0, seconds_ago=1)).look_again_in_s == 2
    assert observed(vmi(), retry_at=NOW + timedelta(seconds=5)).look_again_in_s == 5
