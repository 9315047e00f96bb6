"""What is refused of restores, and of machines while they are being restored."""

from typing import Any

import pytest
from podvisor_controller.webhooks.validation import validate_virtual_machine
from podvisor_controller.webhooks.validation_restores import validate_restore

from tests.unit.api.machines import Json, machine

TARGET = {"apiGroup": "kubevirt.io", "kind": "VirtualMachine", "name": "myvm"}
LABEL = '{"op": "add", "path": "/metadata/labels/a", "value": "b"}'
NAME = '{"op": "replace", "path": "/metadata/name", "value": "b"}'


def restore(**spec: Any) -> Json:
    return {
        "metadata": {"name": "back"},
        "spec": {"target": TARGET, "virtualMachineSnapshotName": "before"} | spec,
    }


def test_a_good_restore_is_admitted() -> None:
    texts = {"example.com/Note": "any text"}
    overrides = [{"volumeName": "data", "restoreName": "mine", "annotations": texts}]
    assert validate_restore(restore(patches=[LABEL], volumeRestoreOverrides=overrides)) == []


@pytest.mark.parametrize(
    ("spec", "field", "message"),
    [
        (
            {"target": TARGET | {"kind": "Pod"}},
            "spec.target.kind",
            "invalid kind 'Pod': spec.target.kind must be VirtualMachine",
        ),
        (
            {"target": TARGET | {"apiGroup": "apps"}},
            "spec.target.apiGroup",
            "invalid apiGroup 'apps': spec.target.apiGroup must be kubevirt.io",
        ),
        (
            {"target": {"kind": "VirtualMachine", "name": "myvm"}},
            "spec.target.apiGroup",
            "missing apiGroup: spec.target.apiGroup must be kubevirt.io",
        ),
        (
            {"target": TARGET | {"name": "My"}},
            "spec.target.name",
            "spec.target.name 'My' is no name of a machine: at most 63 lower-case letters, digits, dashes and dots, and a"
            " letter or a digit first and last.",
        ),
        (
            {"virtualMachineSnapshotName": "W_B"},
            "spec.virtualMachineSnapshotName",
            "spec.virtualMachineSnapshotName 'W_B' is not the name of a VirtualMachineSnapshot.",
        ),
        (
            {"patches": [LABEL, NAME]},
            "spec.patches",
            "spec.patches[1]: patching is valid only for elements under /spec/, /metadata/labels/ or /metadata/annotations/",
        ),
        (
            {"patches": ["spec"]},
            "spec.patches",
            "spec.patches[0]: is no operation of JSON Patch (RFC 6902)",
        ),
        ({"patches": [LABEL] * 65}, "spec.patches", "spec.patches: at most 64 patches"),
        (
            {"patches": [LABEL.replace('"b"', f'"{"b" * (1 << 15)}"')]},
            "spec.patches",
            "spec.patches: at most 32768 bytes in all patches together",
        ),
        (
            {"volumeRestoreOverrides": [{"restoreName": "x"}]},
            "spec.volumeRestoreOverrides[0].volumeName",
            "spec.volumeRestoreOverrides[0]: must provide a volume name",
        ),
        (
            {"volumeRestoreOverrides": [{"volumeName": "x"}]},
            "spec.volumeRestoreOverrides[0]",
            "spec.volumeRestoreOverrides[0]: must provide at least one of restoreName, labels and annotations",
        ),
        (
            {"volumeRestoreOverrides": [{"volumeName": "x", "restoreName": "X"}]},
            "spec.volumeRestoreOverrides[0].restoreName",
            "spec.volumeRestoreOverrides[0].restoreName 'X' is no name of a claim.",
        ),
        (
            {
                "volumeRestoreOverrides": [
                    {"volumeName": "a", "restoreName": "x"},
                    {"volumeName": "b", "restoreName": "x"},
                ]
            },
            "spec.volumeRestoreOverrides[1].restoreName",
            "spec.volumeRestoreOverrides[1].restoreName 'x' is the name of another volume's claim.",
        ),
        (
            {
                "volumeRestoreOverrides": [
                    {"volumeName": "a", "restoreName": "x"},
                    {"volumeName": "a", "labels": {"b": "c"}},
                ]
            },
            "spec.volumeRestoreOverrides[1].volumeName",
            "spec.volumeRestoreOverrides[1].volumeName 'a' has an override already.",
        ),
        (
            {"volumeRestoreOverrides": [{"volumeName": "a", "labels": {"not ok": "x"}}]},
            "spec.volumeRestoreOverrides[0].labels",
            "spec.volumeRestoreOverrides[0].labels holds 'not ok', which is not the key of a label.",
        ),
        (
            {"volumeRestoreOverrides": [{"volumeName": "a", "labels": {"ok": "not ok"}}]},
            "spec.volumeRestoreOverrides[0].labels",
            "spec.volumeRestoreOverrides[0].labels holds 'not ok' for ok, which is not the value of a label.",
        ),
        (
            {
                "volumeRestoreOverrides": [
                    {"volumeName": "a", "annotations": {"a/b/c": "any thing"}}
                ]
            },
            "spec.volumeRestoreOverrides[0].annotations",
            "spec.volumeRestoreOverrides[0].annotations holds 'a/b/c', which is not the key of an annotation.",
        ),
    ],
)
def test_a_bad_restore(spec: Json, field: str, message: str) -> None:
    [cause] = validate_restore(restore(**spec))
    assert (cause.field, cause.message) == (field, message)


def test_the_restore_of_a_clone_leaves_out_what_the_clone_says() -> None:
    owner = {"kind": "VirtualMachineClone", "name": "copy", "uid": "u", "controller": True}
    owned = {"metadata": {"name": "back", "ownerReferences": [owner]}}
    assert validate_restore(restore(patches=[LABEL] * 512) | owned) == []
    [cause] = validate_restore(restore(patches=[LABEL] * 513) | owned)
    assert cause.message == "spec.patches: at most 512 patches"


def test_a_restore_cannot_be_changed_but_labelled_and_let_go() -> None:
    old = restore()
    labelled = old | {"metadata": {"name": "back", "finalizers": ["x"]}}
    assert validate_restore(labelled, old) == []
    [cause] = validate_restore(restore(patches=[LABEL]), old)
    assert (cause.field, cause.message) == ("spec", "spec is immutable after creation")


def test_a_machine_that_is_being_restored_does_not_start_and_may_be_restored() -> None:
    old = machine() | {"status": {"restoreInProgress": "back"}}
    strategy = old["spec"].get("runStrategy")
    other = "Halted" if strategy != "Halted" else "Always"
    changed = old | {"spec": old["spec"] | {"runStrategy": other}}
    [cause] = validate_virtual_machine(changed, old)
    assert cause.message == 'Cannot update VM runStrategy until restore "back" completes'
    template = old["spec"]["template"]
    hostname = template | {"spec": template["spec"] | {"hostname": "other"}}
    assert validate_virtual_machine(old | {"spec": old["spec"] | {"template": hostname}}, old) == []
