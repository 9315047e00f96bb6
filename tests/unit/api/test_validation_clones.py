"""What is refused of clones."""

from typing import Any

import pytest
from podvisor_controller.webhooks.validation_clones import validate_clone

from tests.unit.api.machines import Json

SOURCE = {"apiGroup": "kubevirt.io", "kind": "VirtualMachine", "name": "myvm"}
KEPT = {"apiGroup": "snapshot.kubevirt.io", "kind": "VirtualMachineSnapshot", "name": "before"}
TARGET = {"kind": "VirtualMachine", "name": "twin"}


def clone(**spec: Any) -> Json:
    return {"metadata": {"name": "copy"}, "spec": {"source": SOURCE} | spec}


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"source": KEPT, "target": SOURCE},
        {"target": TARGET},
        {"target": TARGET | {"apiGroup": "kubevirt.io"}},
        {"labelFilters": ["*", "!a/b*"], "annotationFilters": []},
        {"newMacAddresses": {"default": "02:00:00:00:00:01", "other": ""}},
        {"template": {"labelFilters": ["a"]}},
    ],
)
def test_a_good_clone_is_admitted(spec: Json) -> None:
    assert validate_clone(clone(**spec)) == []


@pytest.mark.parametrize(
    ("spec", "field", "message"),
    [
        (
            {"source": SOURCE | {"kind": "Pod"}},
            "spec.source.kind",
            "invalid kind 'Pod': spec.source.kind must be VirtualMachine or VirtualMachineSnapshot",
        ),
        (
            {"source": KEPT | {"apiGroup": "kubevirt.io"}},
            "spec.source.apiGroup",
            "invalid apiGroup 'kubevirt.io': spec.source.apiGroup must be snapshot.kubevirt.io",
        ),
        (
            {"source": SOURCE | {"name": "A_B"}},
            "spec.source.name",
            "spec.source.name 'A_B' is no name of an object: lower-case letters, digits, dashes and dots, and a letter or a digit"
            " first and last.",
        ),
        (
            {"source": KEPT | {"name": "A_B"}},
            "spec.source.name",
            "spec.source.name 'A_B' is no name of an object: lower-case letters, digits, dashes and dots, and a letter or a digit"
            " first and last.",
        ),
        (
            {"target": TARGET | {"name": "A_B"}},
            "spec.target.name",
            "spec.target.name 'A_B' is no name of a machine: at most 63 lower-case letters, digits, dashes and dots, and a letter"
            " or a digit first and last.",
        ),
        (
            {"target": TARGET | {"kind": "VirtualMachineInstance"}},
            "spec.target.kind",
            "invalid kind 'VirtualMachineInstance': spec.target.kind must be VirtualMachine",
        ),
        (
            {"target": TARGET | {"name": "myvm"}},
            "spec.target.name",
            "Target name cannot be equal to source name when both are VirtualMachines",
        ),
        (
            {"labelFilters": ["a", "!"]},
            "spec.labelFilters[1]",
            "spec.labelFilters[1] must name a key: * stands for all of them.",
        ),
        (
            {"template": {"annotationFilters": ["a!b"]}},
            "spec.template.annotationFilters[0]",
            "spec.template.annotationFilters[0] 'a!b' can have a ! only at the beginning.",
        ),
        (
            {"annotationFilters": ["a*b"]},
            "spec.annotationFilters[0]",
            "spec.annotationFilters[0] 'a*b' can have a * only at the end.",
        ),
        (
            {"newMacAddresses": {"default": "01:00"}},
            "spec.newMacAddresses.default",
            "spec.newMacAddresses.default '01:00': malformed MAC address.",
        ),
        (
            {"patches": ['{"op": "remove", "path": "/status"}']},
            "spec.patches",
            "spec.patches[0]: patching is valid only for elements under /spec/, /metadata/labels/ or /metadata/annotations/",
        ),
    ],
)
def test_a_bad_clone(spec: Json, field: str, message: str) -> None:
    [cause] = validate_clone(clone(**spec))
    assert (cause.field, cause.message) == (field, message)


def test_a_clone_cannot_be_changed() -> None:
    assert validate_clone(clone() | {"metadata": {"labels": {"a": "b"}}}, clone()) == []
    [cause] = validate_clone(clone(target=TARGET), clone())
    assert cause.message == "spec is immutable after creation"
