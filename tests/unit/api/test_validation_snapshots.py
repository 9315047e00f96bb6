"""What is refused of snapshots, and of machines while a snapshot of them is in progress."""

from typing import Any

import pytest
from podvisor_controller.webhooks.validation import validate_virtual_machine
from podvisor_controller.webhooks.validation_snapshots import validate_snapshot

from tests.unit.api.machines import Json, changed, machine

SOURCE = {"apiGroup": "kubevirt.io", "kind": "VirtualMachine", "name": "myvm"}


def snapshot(**spec: Any) -> Json:
    return {"metadata": {"name": "before"}, "spec": {"source": SOURCE} | spec}


@pytest.mark.parametrize("deadline", [None, "0", "0s", "90s", "1h30m"])
def test_a_good_snapshot_is_admitted(deadline: str | None) -> None:
    assert validate_snapshot(snapshot(failureDeadline=deadline)) == []


@pytest.mark.parametrize(
    ("spec", "field", "message"),
    [
        (
            {"source": SOURCE | {"kind": "VirtualMachineInstance"}},
            "spec.source.kind",
            "invalid kind 'VirtualMachineInstance': spec.source.kind must be VirtualMachine",
        ),
        (
            {"source": SOURCE | {"apiGroup": "apps"}},
            "spec.source.apiGroup",
            "invalid apiGroup 'apps': spec.source.apiGroup must be kubevirt.io",
        ),
        (
            {"source": {"kind": "VirtualMachine", "name": "myvm"}},
            "spec.source.apiGroup",
            "missing apiGroup: spec.source.apiGroup must be kubevirt.io",
        ),
        (
            {"failureDeadline": "soon"},
            "spec.failureDeadline",
            "spec.failureDeadline cannot be: 'soon' is no duration such as 90s, 5m or 1h30m.",
        ),
        (
            {"source": SOURCE | {"name": "W_B"}},
            "spec.source.name",
            "spec.source.name 'W_B' is not the name of a VirtualMachine.",
        ),
        ({"source": 7}, "spec.source", "spec.source Expected `object`, got `int`"),
    ],
)
def test_a_bad_snapshot(spec: Json, field: str, message: str) -> None:
    [cause] = validate_snapshot(snapshot(**spec))
    assert (cause.field, cause.message) == (field, message)


def test_a_snapshot_cannot_be_changed_but_labelled_and_let_go() -> None:
    old = snapshot()
    labelled = old | {"metadata": {"name": "before", "labels": {"a": "b"}, "finalizers": ["x"]}}
    assert validate_snapshot(labelled, old) == []
    [cause] = validate_snapshot(snapshot(failureDeadline="1m"), old)
    assert (cause.field, cause.message) == ("spec", "spec is immutable after creation")


def locked(**spec: Any) -> Json:
    """A machine that a snapshot is being taken of; `spec` is merged over its specification."""
    return with_spec(machine() | {"status": {"snapshotInProgress": "before"}}, **spec)


def with_spec(obj: Json, **spec: Any) -> Json:
    return obj | {"spec": obj["spec"] | spec}


def refusals(obj: Json, old: Json) -> list[tuple[str, str]]:
    return [(cause.field, cause.message) for cause in validate_virtual_machine(obj, old)]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("volumes", [{"name": "root", "containerDisk": {"image": "quay.io/disks/cirros:2.0"}}]),
        ("domain/devices/disks", [{"name": "root", "disk": {"bus": "sata"}}]),
    ],
)
def test_disks_and_volumes_stay_while_a_snapshot_is_in_progress(path: str, value: Any) -> None:
    new = changed(path, value)
    text = 'Cannot update vm disks or volumes until snapshot "before" completes'
    assert ("spec", text) in refusals(new, locked())
    assert ("spec", text) not in refusals(new, machine())


def test_a_machine_is_neither_started_nor_stopped_while_a_snapshot_is_in_progress() -> None:
    text = 'Cannot update vm running state until snapshot "before" completes'
    assert refusals(locked(runStrategy="Halted"), locked()) == [("spec", text)]


def test_the_same_strategy_may_be_said_in_other_words() -> None:
    new = locked(running=True)
    del new["spec"]["runStrategy"]
    assert refusals(new, locked()) == []


def test_the_rest_of_a_machine_may_change_while_a_snapshot_is_in_progress() -> None:
    assert refusals(changed("terminationGracePeriodSeconds", 77), locked()) == []
