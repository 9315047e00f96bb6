"""What a machine needs next, as tables of situations."""

from datetime import timedelta
from typing import Any

import pytest
from podvisor_common.api import v1
from podvisor_common.api.v1 import names
from podvisor_controller.vm.observed import Observed, backoff_s
from podvisor_controller.vm.plan import CreateInstance, FollowGeneration, plan

from tests.unit.controller.builders import (
    NOW,
    VM_UID,
    failed_before,
    instance,
    ran,
    situations,
    spec_body,
    stamp,
    vm,
    vm_observed,
)

DELETED = {"deletionTimestamp": stamp(1)}
LATER = NOW + timedelta(seconds=5)


def test_the_instance_is_the_machines() -> None:
    [create] = plan(vm_observed(vm()))
    assert isinstance(create, CreateInstance)
    metadata = create.manifest["metadata"]
    assert (metadata["namespace"], metadata["name"]) == ("shop", "myvm")
    assert metadata["labels"] == {"app": "demo"}
    [owner] = metadata["ownerReferences"]
    assert (owner["uid"], owner["controller"], owner["blockOwnerDeletion"]) == (VM_UID, True, True)
    assert metadata["annotations"][names.VM_GENERATION_ANNOTATION] == "3"


@pytest.mark.parametrize(
    ("count", "has_run", "least_s", "most_s"),
    situations(
        ("first failed start", 1, False, 10, 15),
        ("second failed start", 2, False, 40, 60),
        ("fifth failed start", 5, False, 250, 300),
        ("sixth failed start", 6, False, 300, 300),
        ("first early crash", 1, True, 0, 0),
        ("second early crash", 2, True, 10, 15),
    ),
)
def test_backoff(count: Any, has_run: bool, least_s: int, most_s: int) -> None:
    assert backoff_s(count, has_run=has_run, spread=0.0) == least_s
    assert backoff_s(count, has_run=has_run, spread=1.0) == most_s


def test_machines_that_fail_at_once_do_not_start_again_at_once() -> None:
    retries = {
        failure.retry_after_timestamp
        for n in range(20)
        if (
            failure := vm_observed(vm(), instance("Failed", metadata={"uid": str(n)})).start_failure
        )
    }
    assert len(retries) > 3


@pytest.mark.parametrize(
    ("now", "count"),
    situations(
        ("never failed", vm_observed(vm(), instance("Running")), None),
        ("failed to start", vm_observed(vm(), instance("Failed")), 1),
        (
            "failed again",
            vm_observed(vm(status=failed_before(1, uid="old")), instance("Failed")),
            2,
        ),
        ("the same failure", vm_observed(vm(status=failed_before(1)), instance("Failed")), 1),
        (
            "starting after a failure",
            vm_observed(vm(status=failed_before(1, uid="old")), instance("Scheduled")),
            1,
        ),
        (
            "ran briefly after a failure",
            vm_observed(
                vm(status=failed_before(1, uid="old")), ran("Failed", began_ago=9, ended_ago=2)
            ),
            2,
        ),
        (
            "ran long after a failure",
            vm_observed(
                vm(status=failed_before(1, uid="old")), ran("Failed", began_ago=50, ended_ago=2)
            ),
            None,
        ),
        (
            "shut down after a failure",
            vm_observed(vm(status=failed_before(1, uid="old")), instance("Succeeded")),
            None,
        ),
        (
            "destroyed because it was to go",
            vm_observed(vm(), instance("Failed", metadata=DELETED)),
            None,
        ),
        ("once does not count", vm_observed(vm("Once"), instance("Failed")), None),
    ),
)
def test_failures_in_a_row(now: Any, count: Any) -> None:
    failure = now.start_failure
    assert (failure.consecutive_fail_count if failure else None) == count


def edited(**spec: Any) -> v1.VirtualMachineInstanceTemplateSpec:
    """The template of vm() without its labels, and with other fields."""
    return vm(spec={"template": {"spec": spec_body(**spec)}}).spec.template


def follows(generation: str) -> v1.VirtualMachineInstance:
    """A running instance that follows that generation."""
    return instance(
        "Running", metadata={"annotations": {names.VM_GENERATION_ANNOTATION: generation}}
    )


@pytest.mark.parametrize(
    ("now", "expected", "needs_restart"),
    situations(
        ("unchanged", vm_observed(vm(), follows("3")), [], False),
        ("changed, not known what", vm_observed(vm(), follows("2")), [], None),
        (
            "changed beside the template",
            vm_observed(vm(), follows("2"), made_from=vm().spec.template),
            [FollowGeneration(3)],
            False,
        ),
        (
            "template changed",
            vm_observed(vm(), follows("2"), made_from=edited(hostname="x")),
            [],
            True,
        ),
        (
            "labels of the template changed",
            vm_observed(vm(), follows("2"), made_from=edited()),
            [],
            False,
        ),
        ("nothing runs", vm_observed(vm("Halted")), [], False),
    ),
)
def test_what_the_instance_follows(
    now: Observed, expected: list[Any], needs_restart: bool | None
) -> None:
    assert plan(now) == expected
    assert now.needs_restart is needs_restart
