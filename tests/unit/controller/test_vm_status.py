"""What the status of a machine says, as tables of situations."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest
from podvisor_common.api import v1
from podvisor_common.api.meta import Condition
from podvisor_common.api.v1 import names
from podvisor_controller.status_patch import patch_of
from podvisor_controller.vm.observed import Observed
from podvisor_controller.vm.status import printable_status, status_of

from tests.unit.controller.builders import (
    NOW,
    Json,
    failed_before,
    instance,
    situations,
    stamp,
    vm,
    vm_observed,
    vmi,
)

DELETED = {"deletionTimestamp": stamp(1)}
LATER = NOW + timedelta(seconds=5)


def strangers() -> v1.VirtualMachineInstance:
    """An instance of the machine's name that something else manages."""
    owner = {
        "kind": "VirtualMachineInstanceReplicaSet",
        "name": "x",
        "uid": "x",
        "controller": True,
    }
    return vmi(metadata={"ownerReferences": [owner]})


def once_done(**changes: Any) -> v1.VirtualMachine:
    return vm("Once", status={"runStrategy": "Once"}, **changes)


def trouble(type_: str, reason: str) -> Json:
    return {"conditions": [{"type": type_, "status": "False", "reason": reason}]}


PAUSED = {"conditions": [{"type": "Paused", "status": "True"}]}
PAUSED_OUT_OF_REACH = {
    "conditions": [
        {"type": "Paused", "status": "True"},
        {"type": "Ready", "status": "False", "reason": "NodeUnresponsive"},
    ]
}


@pytest.mark.parametrize(
    ("now", "word"),
    situations(
        ("being deleted", vm_observed(vm(metadata=DELETED), instance("Running")), "Terminating"),
        ("stopping", vm_observed(vm("Halted"), instance("Running", metadata=DELETED)), "Stopping"),
        ("paused", vm_observed(vm(), instance("Running", status=PAUSED)), "Paused"),
        ("running", vm_observed(vm(), instance("Running")), "Running"),
        (
            "no node fits",
            vm_observed(vm(), instance(status=trouble("PodScheduled", "Unschedulable"))),
            "ErrorUnschedulable",
        ),
        (
            "image missing",
            vm_observed(vm(), instance(status=trouble("Synchronized", "ErrImagePull"))),
            "ErrImagePull",
        ),
        (
            "image still missing",
            vm_observed(vm(), instance(status=trouble("Synchronized", "ImagePullBackOff"))),
            "ImagePullBackOff",
        ),
        (
            "claim missing",
            vm_observed(vm(), instance(status=trouble("Synchronized", "FailedPvcNotFound"))),
            "ErrorPvcNotFound",
        ),
        ("starting", vm_observed(vm(), instance("Scheduled")), "Starting"),
        ("about to start", vm_observed(vm()), "Starting"),
        (
            "waits after a failure",
            vm_observed(vm(status=failed_before(2, retry_in_s=9))),
            "CrashLoopBackOff",
        ),
        ("has just failed to start", vm_observed(vm(), instance("Failed")), "CrashLoopBackOff"),
        (
            "about to try once more",
            vm_observed(vm(status=failed_before(2, retry_in_s=-1)), instance("Failed")),
            "CrashLoopBackOff",
        ),
        ("halted", vm_observed(vm("Halted")), "Stopped"),
        ("once, ended", vm_observed(once_done(), instance("Succeeded")), "Stopped"),
        ("once, gone", vm_observed(once_done()), "Stopped"),
        ("cannot start", vm_observed(vm(), strangers()), "Stopped"),
        ("nobody knows", vm_observed(vm(), instance("Unknown")), "Unknown"),
        (
            "its node does not answer",
            vm_observed(vm(), instance("Running", status=trouble("Ready", "NodeUnresponsive"))),
            "Unknown",
        ),
        (
            "it was paused, and its node does not answer",
            vm_observed(vm(), instance("Running", status=PAUSED_OUT_OF_REACH)),
            "Unknown",
        ),
    ),
)
def test_printable_status(now: Any, word: str) -> None:
    assert printable_status(now) == word


def together(phase: str, *conditions: tuple[str, str, str], **metadata: Any) -> Observed:
    """A machine whose instance says all of that at once."""
    told = [{"type": t, "status": status, "reason": reason} for t, status, reason in conditions]
    return vm_observed(vm(), instance(phase, status={"conditions": told}, metadata=metadata))


NOT_PULLED = ("Synchronized", "False", "ErrImagePull")
NOT_PLACED = ("PodScheduled", "False", "Unschedulable")
NOT_BOUND = ("Provisioning", "True", "WaitingForVolumeBinding")
STANDS_STILL = ("Paused", "True", "PausedByUser")


@pytest.mark.parametrize(
    ("now", "word"),
    situations(
        ("going before paused", together("Running", STANDS_STILL, **DELETED), "Stopping"),
        ("paused before running", together("Running", STANDS_STILL), "Paused"),
        ("running before what is wrong", together("Running", NOT_PULLED, NOT_PLACED), "Running"),
        (
            "no node before no image",
            together("Scheduling", NOT_PULLED, NOT_PLACED),
            "ErrorUnschedulable",
        ),
        (
            "no node before a claim that is not bound",
            together("Scheduling", NOT_BOUND, NOT_PLACED),
            "ErrorUnschedulable",
        ),
        (
            "a claim that is not bound before no image",
            together("Scheduling", NOT_PULLED, NOT_BOUND),
            "WaitingForVolumeBinding",
        ),
        (
            "a claim that is not bound before starting",
            together("Scheduling", NOT_BOUND),
            "WaitingForVolumeBinding",
        ),
        ("no image before starting", together("Scheduled", NOT_PULLED), "ErrImagePull"),
    ),
)
def test_the_first_word_that_applies_is_said(now: Observed, word: str) -> None:
    assert printable_status(now) == word


def running(**metadata: Any) -> v1.VirtualMachineInstance:
    conditions = [
        {"type": "Ready", "status": "True", "lastTransitionTime": stamp(5)},
        {"type": "LiveMigratable", "status": "False", "reason": "DisksNotLiveMigratable"},
    ]
    status = {
        "conditions": conditions,
        "nodeName": "n1",
        "interfaces": [{"name": "default", "ipAddress": "10.1.2.3"}],
    }
    annotations = {names.VM_GENERATION_ANNOTATION: "2"}
    return instance("Running", status=status, metadata={"annotations": annotations, **metadata})


def said(now: Observed) -> v1.VirtualMachineStatus:
    """The status, where there is something to say."""
    status = status_of(now)
    assert status is not None
    return status


def conditions_of(status: v1.VirtualMachineStatus) -> list[Condition]:
    return status.conditions or []


def test_a_running_machine_mirrors_its_instance() -> None:
    status = said(vm_observed(vm(), running()))
    assert (status.created, status.ready, status.phase) == (True, True, "Running")
    assert (status.node_name, (status.interfaces or [])[0].ip_address) == ("n1", "10.1.2.3")
    assert (status.observed_generation, status.desired_generation) == (2, 3)
    assert status.run_strategy == "Always"
    assert [c.type for c in conditions_of(status)] == ["Ready", "LiveMigratable"]


def test_a_machine_whose_guest_has_ended_has_no_address() -> None:
    ended = running()
    phase = msgspec.structs.replace(ended.status, phase="Succeeded")
    status = said(vm_observed(once_done(), msgspec.structs.replace(ended, status=phase)))
    assert (status.created, status.node_name, status.interfaces) == (True, "", None)


@pytest.mark.parametrize(
    ("now", "expected"),
    situations(
        ("no instance", vm_observed(vm("Halted")), [("Ready", "False", "VMINotExists")]),
        (
            "stopping, and its guest runs still",
            vm_observed(vm("Halted"), running(**DELETED)),
            [
                ("Ready", "False", "PodTerminating"),
                ("LiveMigratable", "False", "DisksNotLiveMigratable"),
            ],
        ),
        (
            "its instance may not be deleted",
            vm_observed(vm("Halted"), running(), undeletable="denied", retry_at=LATER),
            [
                ("Ready", "True", ""),
                ("LiveMigratable", "False", "DisksNotLiveMigratable"),
                ("Failure", "True", "FailedDelete"),
            ],
        ),
        (
            "an instance without a word on it",
            vm_observed(vm(), instance("Scheduled")),
            [("Ready", "False", "VMIConditionMissing")],
        ),
        (
            "refused",
            vm_observed(vm(), failure="denied", retry_at=LATER),
            [("Ready", "False", "VMINotExists"), ("Failure", "True", "FailedCreate")],
        ),
        (
            "refused, and halted since",
            vm_observed(vm("Halted"), failure="denied", retry_at=LATER),
            [("Ready", "False", "VMINotExists")],
        ),
        (
            "somebody else's instance",
            vm_observed(vm(), strangers()),
            [("Ready", "False", "VMINotExists"), ("Failure", "True", "FailedCreate")],
        ),
    ),
)
def test_conditions(now: Any, expected: Any) -> None:
    conditions = conditions_of(said(now))
    assert [(c.type, c.status, c.reason) for c in conditions] == expected


def test_somebody_elses_instance_is_not_said_to_be_missing() -> None:
    for condition in conditions_of(said(vm_observed(vm(), strangers()))):
        assert "exists and does not belong to this machine" in condition.message


def test_a_new_instance_is_mentioned_once_it_is_bound() -> None:
    fresh = {"creationTimestamp": stamp(0)}
    now = vm_observed(vm(), instance(metadata=fresh))
    assert status_of(now) is None
    assert now.look_again_in_s == 2
    assert status_of(vm_observed(vm(), instance("Scheduled", metadata=fresh))) is not None
    assert status_of(vm_observed(vm(), instance(metadata=fresh), at=NOW + timedelta(seconds=3)))


def test_once_is_recorded_with_its_instance() -> None:
    assert said(vm_observed(vm("Once"), failure="denied")).run_strategy == ""
    assert said(vm_observed(vm("Once"), instance("Scheduled"))).run_strategy == "Once"
    assert said(vm_observed(once_done())).run_strategy == "Once"


def test_what_snapshots_and_restores_say_of_a_machine_stays() -> None:
    machine = vm(status={"snapshotInProgress": "before", "restoreInProgress": "back"})
    patch = patch_of(machine.status, said(vm_observed(machine, running())))
    assert not {"snapshotInProgress", "restoreInProgress"} & set(patch)


def test_termination_is_said_once() -> None:
    terminating = vm(metadata=DELETED, status={"printableStatus": "Terminating"})
    assert status_of(vm_observed(vm(metadata=DELETED), running())) is not None
    assert status_of(vm_observed(terminating, running())) is None


def test_the_patch_is_the_least() -> None:
    current = said(vm_observed(vm(), running()))
    assert patch_of(current, current) == {}
    later = [
        msgspec.structs.replace(c, last_transition_time=stamp(0)) for c in conditions_of(current)
    ]
    assert patch_of(current, msgspec.structs.replace(current, conditions=later)) == {}
    halted = said(vm_observed(vm("Halted")))
    patch = patch_of(current, halted)
    assert patch["nodeName"] is None
    assert patch["interfaces"] is None
    assert patch["created"] is None
    assert patch["printableStatus"] == "Stopped"
    assert "desiredGeneration" not in patch
    assert patch_of(v1.VirtualMachineStatus(), current)["printableStatus"] == "Running"
