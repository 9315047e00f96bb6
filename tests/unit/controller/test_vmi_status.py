"""What the controller says of an instance, and when it is worth a write."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from podvisor_common.api import core, v1
from podvisor_common.api.v1.names import Phase
from podvisor_controller.node.health import NodeHealth
from podvisor_controller.vmi.observed import Observed
from podvisor_controller.vmi.plan import Finish
from podvisor_controller.vmi.status import (
    finished,
    has_changed,
    new_trouble,
    status_of,
    without,
)
from podvisor_controller.vmi.trouble import Trouble

from tests.unit.controller.builders import (
    NOW,
    Json,
    deleted,
    ended_pod,
    initializing_pod,
    observed,
    pod,
    refused_pod,
    scheduled,
    situations,
    spec_body,
    stamp,
    unschedulable_pod,
    unstartable_pod,
    vmi,
    waiting_pod,
)

TROUBLE = Trouble("FailedCreate", "exceeded quota")
READY = {"type": "Ready", "status": "True"}


def conditions_of(body: Json) -> dict[str, tuple[str, str]]:
    return {c["type"]: (c["status"], c["reason"]) for c in body["conditions"]}


def told(instance: v1.VirtualMachineInstance, body: Json) -> v1.VirtualMachineInstance:
    """The instance after `body` was applied to it by its only writer."""
    status = msgspec.convert(
        msgspec.to_builtins(instance.status) | body, v1.VirtualMachineInstanceStatus
    )
    return msgspec.structs.replace(instance, status=status)


def said(now: Observed) -> Json:
    """The body, where there is something to say."""
    body = status_of(now)
    assert body is not None
    return body


@pytest.mark.parametrize(
    "now",
    situations(
        ("nothing is there yet", observed(vmi())),
        ("the pod is not bound", observed(vmi(), pod())),
        ("the scheduler has only just found no node", observed(vmi(), unschedulable_pod(1))),
        ("being deleted", observed(deleted(), pod("Running", node="n1"))),
        ("the pod was deleted by force", observed(scheduled("Running"))),
        (
            "ended, and said not to be ready",
            observed(scheduled("Failed", conditions=[{"type": "Ready", "status": "False"}])),
        ),
    ),
)
def test_nothing_to_say(now: Any) -> None:
    assert status_of(now) is None


@pytest.mark.parametrize(
    ("now", "phase", "conditions"),
    situations(
        (
            "bound",
            observed(vmi(), pod(node="n1")),
            "Scheduled",
            {"Ready": ("False", "GuestNotRunning")},
        ),
        (
            "no node fits",
            observed(vmi(), unschedulable_pod(30)),
            "Scheduling",
            {
                "Ready": ("False", "GuestNotRunning"),
                "PodScheduled": ("False", "Unschedulable"),
            },
        ),
        (
            "the pod cannot be created",
            observed(vmi(), failure=TROUBLE),
            "Pending",
            {"Ready": ("False", "PodNotExists"), "Synchronized": ("False", "FailedCreate")},
        ),
        (
            "image not there",
            observed(scheduled(), waiting_pod("ErrImagePull", "not found")),
            "Scheduled",
            {"Ready": ("False", "GuestNotRunning"), "Synchronized": ("False", "ErrImagePull")},
        ),
        (
            "image tried again, backing off",
            observed(
                scheduled(
                    conditions=[
                        {"type": "Synchronized", "status": "False", "reason": "ImagePullBackOff"}
                    ]
                ),
                waiting_pod("ErrImagePull", "not found"),
            ),
            "Scheduled",
            {"Ready": ("False", "GuestNotRunning"), "Synchronized": ("False", "ImagePullBackOff")},
        ),
        (
            "image name that is none",
            observed(scheduled(), waiting_pod("InvalidImageName")),
            "Scheduled",
            {"Ready": ("False", "GuestNotRunning"), "Synchronized": ("False", "ErrImagePull")},
        ),
        (
            "refused by the kubelet",
            observed(scheduled(), refused_pod()),
            "Scheduling",
            {"Ready": ("False", "GuestNotRunning"), "Synchronized": ("False", "PodRefused")},
        ),
        (
            "its launcher cannot be started",
            observed(scheduled(), unstartable_pod()),
            "Scheduling",
            {"Ready": ("False", "GuestNotRunning"), "Synchronized": ("False", "PodRefused")},
        ),
        (
            "running on a node that does not answer",
            observed(scheduled("Running"), pod("Running", node="n1"), node=NodeHealth.UNRESPONSIVE),
            None,
            {"Ready": ("False", "NodeUnresponsive")},
        ),
        (
            "its pod was deleted by force from a node that does not answer",
            observed(scheduled("Running"), node=NodeHealth.UNRESPONSIVE),
            None,
            {"Ready": ("False", "NodeUnresponsive")},
        ),
        (
            "running on a node whose handler is not heard of",
            observed(scheduled("Running"), pod("Running", node="n1"), node=NodeHealth.UNATTENDED),
            None,
            {"Ready": ("Unknown", "HandlerUnresponsive")},
        ),
        (
            "its pod was deleted by force from such a node",
            observed(scheduled("Running"), node=NodeHealth.UNATTENDED),
            None,
            {"Ready": ("Unknown", "HandlerUnresponsive")},
        ),
        (
            "to be started on such a node",
            observed(scheduled(), pod("Running", node="n1"), node=NodeHealth.UNATTENDED),
            "Scheduled",
            {"Ready": ("Unknown", "HandlerUnresponsive")},
        ),
        ("running", observed(scheduled("Running"), pod("Running", node="n1")), None, {}),
        (
            "ended, Ready forgotten",
            observed(scheduled("Succeeded"), ended_pod(0)),
            None,
            {"Ready": ("False", "GuestNotRunning")},
        ),
    ),
)
def test_what_is_said(now: Any, phase: str, conditions: Any) -> None:
    body = said(now)
    assert body.get("phase") == phase
    assert conditions_of(body) == conditions


def test_everything_a_bound_pod_tells_is_in_one_write() -> None:
    now = observed(vmi(), pod(node="n1"), pod_created_at=NOW - timedelta(milliseconds=59_950))
    body = said(now)
    assert body["nodeName"] == "n1"
    assert body["activePods"] == {"pod-1": "n1"}
    assert body["qosClass"] == "Burstable"
    assert body["runtimeUser"] == 107
    assert body["launcherContainerImageVersion"] == "registry.example/virt-launcher:1"
    assert [e["phase"] for e in body["phaseTransitionTimestamps"]] == [
        "Pending",
        "Scheduling",
        "Scheduled",
    ]
    assert body["startTimeline"] == {"podCreated": 50, "podScheduled": 60_000}


def test_a_refused_pod_takes_the_node_out_of_the_status() -> None:
    now = observed(scheduled(activePods={"pod-1": "n1"}), refused_pod())
    body = said(now)
    assert "nodeName" not in body
    assert "activePods" not in body
    assert has_changed(now.vmi, body)


@pytest.mark.parametrize("waiting", [waiting_pod, initializing_pod])
def test_a_pull_error_names_the_volume(waiting: Callable[[str, str], core.Pod]) -> None:
    message = 'failed to pull "demo/disk:devel": not found'
    now = observed(scheduled(), waiting("ErrImagePull", message))
    assert now.trouble is not None
    assert now.trouble.message.startswith('Volume "root": image "demo/disk:devel" cannot be pulled')


@pytest.mark.parametrize("waiting", [waiting_pod, initializing_pod])
def test_a_pull_error_names_the_kernel(waiting: Callable[[str, str], core.Pod]) -> None:
    image = {"image": "demo/kernel:1", "kernelPath": "/k"}
    spec = spec_body(volumes=[])
    spec["domain"]["firmware"] = {"kernelBoot": {"container": image}}
    instance = vmi(spec=spec, status={"phase": "Scheduled", "nodeName": "n1"})
    now = observed(instance, waiting("ErrImagePull", 'failed to pull "demo/kernel:1": not found'))
    assert now.trouble is not None
    assert now.trouble.message.startswith('Kernel boot: image "demo/kernel:1" cannot be pulled')


@pytest.mark.parametrize("reason", ["RunContainerError", "CrashLoopBackOff"])
def test_an_image_that_cannot_be_held_is_told(reason: str) -> None:
    now = observed(scheduled(), initializing_pod(reason, "no such directory"))
    condition = next(c for c in said(now)["conditions"] if c["type"] == "Synchronized")
    assert (condition["status"], condition["reason"]) == ("False", "FailedCreate")
    assert "volumeroot cannot start: no such directory" in condition["message"]


def test_a_pod_that_is_being_initialized_is_in_no_trouble() -> None:
    assert observed(scheduled(), initializing_pod("PodInitializing")).trouble is None


@pytest.mark.parametrize(
    "now",
    situations(
        ("bound", observed(vmi(), pod(node="n1"))),
        ("in trouble", observed(vmi(), failure=TROUBLE)),
        ("unschedulable", observed(vmi(), unschedulable_pod(30))),
        ("image error", observed(scheduled(), waiting_pod("ErrImagePull", "x"))),
    ),
)
def test_what_was_said_is_not_said_again(now: Any) -> None:
    body = said(now)
    assert has_changed(now.vmi, body)
    later = observed(
        told(now.vmi, body), *now.pods, failure=now.failure, at=NOW + timedelta(seconds=9)
    )
    assert not has_changed(later.vmi, said(later))
    assert new_trouble(later.vmi, said(later)) is None


def test_an_image_that_is_tried_again_is_no_news() -> None:
    first = observed(scheduled(), waiting_pod("ErrImagePull", "not found"))
    news = new_trouble(first.vmi, said(first))
    assert news is not None
    assert news["reason"] == "ErrImagePull"
    backing_off = observed(
        told(first.vmi, said(first)), waiting_pod("ImagePullBackOff", "back-off")
    )
    body = said(backing_off)
    assert has_changed(backing_off.vmi, body)
    assert new_trouble(backing_off.vmi, body) is None
    again = observed(told(backing_off.vmi, body), waiting_pod("ErrImagePull", "not found"))
    assert not has_changed(again.vmi, said(again))


def test_the_handlers_words_are_no_reason_to_write() -> None:
    bound = observed(vmi(), pod(node="n1"))
    status = said(bound) | {
        "phase": "Running",
        "conditions": [READY],
        "interfaces": [{"name": "default", "ipAddress": "10.1.2.3"}],
    }
    now = observed(told(vmi(), status), pod("Running", node="n1"))
    assert not has_changed(now.vmi, said(now))


@pytest.mark.parametrize(
    "reason",
    [
        pytest.param("ErrImagePull", id="as it was said"),
        pytest.param("", id="what stays of it when the handler wrote over it and healed first"),
    ],
)
def test_trouble_that_is_over_is_taken_back(reason: str) -> None:
    conditions = [{"type": "Synchronized", "status": "False", "reason": reason}]
    now = observed(scheduled(conditions=conditions), pod(node="n1"))
    body = said(now)
    assert "Synchronized" not in conditions_of(body)
    assert has_changed(now.vmi, body)


def test_trouble_of_the_handlers_is_left_alone() -> None:
    bound = said(observed(vmi(), pod(node="n1")))
    conditions = [
        *bound["conditions"],
        {"type": "Synchronized", "status": "False", "reason": "MissingSecret"},
    ]
    now = observed(told(vmi(), bound | {"conditions": conditions}), pod(node="n1"))
    assert not has_changed(now.vmi, said(now))


def test_a_transition_time_moves_only_with_the_status() -> None:
    since = stamp(1000)
    conditions = [
        {"type": "Ready", "status": "False", "reason": "PodNotExists", "lastTransitionTime": since}
    ]
    body = said(observed(vmi(status={"conditions": conditions}), pod(node="n1")))
    assert body["conditions"][0]["lastTransitionTime"] == since


def test_a_node_that_answers_again_leaves_ready_to_its_handler() -> None:
    unknown = {"type": "Ready", "status": "Unknown", "reason": "NodeUnresponsive"}
    now = observed(scheduled("Running", conditions=[unknown]), pod("Running", node="n1"))
    assert conditions_of(said(now)) == {"Ready": ("Unknown", "NodeUnresponsive")}


def test_finishing_ends_everything_at_once() -> None:
    now = observed(scheduled("Running"), ended_pod(1))
    body = finished(now, Finish(Phase.FAILED, "GuestCrashed", "It crashed."))
    assert (body["phase"], body["reason"], body["nodeName"]) == ("Failed", "GuestCrashed", "n1")
    assert conditions_of(body) == {"Ready": ("False", "GuestCrashed")}
    assert body["phaseTransitionTimestamps"][-1]["phase"] == "Failed"


@pytest.mark.parametrize(
    ("fields", "left"),
    situations(
        ("a field", [".status.phase"], {"nodeName", "conditions", "history"}),
        ("an entry of a list", ['.status.conditions[type="Ready"].status'], None),
        (
            "something not in it",
            [".status.interfaces"],
            {"phase", "nodeName", "conditions", "history"},
        ),
    ),
)
def test_without_what_another_owns(fields: list[str], left: Any) -> None:
    body = {
        "phase": "Scheduled",
        "nodeName": "n1",
        "history": 1,
        "conditions": [{"type": "Ready"}, {"type": "PodScheduled"}],
    }
    rest = without(body, fields)
    if left is None:
        assert rest["conditions"] == [{"type": "PodScheduled"}]
    else:
        assert set(rest) == left
    assert body["phase"] == "Scheduled"
