"""What is refused of exports."""

from typing import Any

import pytest
from podvisor_controller.webhooks.validation_exports import validate_export

from tests.unit.api.machines import Json

CLAIM = {"apiGroup": "", "kind": "PersistentVolumeClaim", "name": "data"}
MACHINE = {"apiGroup": "kubevirt.io", "kind": "VirtualMachine", "name": "myvm"}
SNAPSHOT = {
    "apiGroup": "snapshot.kubevirt.io",
    "kind": "VirtualMachineSnapshot",
    "name": "before",
}


def export(name: str = "copy", **spec: Any) -> Json:
    return {"metadata": {"name": name}, "spec": {"source": CLAIM} | spec}


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"source": {"kind": "PersistentVolumeClaim", "name": "my.data"}},
        {"source": MACHINE},
        {"source": SNAPSHOT},
        {"tokenSecretRef": "secret-copy", "ttlDuration": "1h30m"},
    ],
)
def test_a_good_export_is_admitted(spec: Json) -> None:
    assert validate_export(export(**spec)) == []


def test_a_long_name_is_admitted() -> None:
    assert validate_export(export("a" * 200)) == []


@pytest.mark.parametrize(
    ("spec", "field", "message"),
    [
        (
            {"source": CLAIM | {"kind": "DataVolume"}},
            "spec.source.kind",
            "invalid kind 'DataVolume': spec.source.kind must be one of PersistentVolumeClaim, VirtualMachine,"
            " VirtualMachineSnapshot",
        ),
        (
            {"source": CLAIM | {"apiGroup": "v1"}},
            "spec.source.apiGroup",
            "invalid apiGroup 'v1': spec.source.apiGroup of a PersistentVolumeClaim must be missing or blank",
        ),
        (
            {"source": {"kind": "VirtualMachine", "name": "myvm"}},
            "spec.source.apiGroup",
            "invalid apiGroup '': spec.source.apiGroup of a VirtualMachine must be kubevirt.io",
        ),
        (
            {"source": SNAPSHOT | {"apiGroup": "kubevirt.io"}},
            "spec.source.apiGroup",
            "invalid apiGroup 'kubevirt.io': spec.source.apiGroup of a VirtualMachineSnapshot must be"
            " snapshot.kubevirt.io",
        ),
        (
            {"source": CLAIM | {"name": "Data"}},
            "spec.source.name",
            "spec.source.name 'Data' is not the name of an object.",
        ),
        (
            {"tokenSecretRef": "../x"},
            "spec.tokenSecretRef",
            "spec.tokenSecretRef '../x' is not the name of a Secret.",
        ),
        (
            {"ttlDuration": "soon"},
            "spec.ttlDuration",
            "spec.ttlDuration cannot be: 'soon' is no duration such as 90s, 5m or 1h30m.",
        ),
        (
            {"ttlDuration": "0"},
            "spec.ttlDuration",
            "spec.ttlDuration must be longer than nothing.",
        ),
        ({"source": 7}, "spec.source", "spec.source Expected `object`, got `int`"),
    ],
)
def test_a_bad_export(spec: Json, field: str, message: str) -> None:
    [cause] = validate_export(export(**spec))
    assert (cause.field, cause.message) == (field, message)


def test_a_name_that_no_service_can_have() -> None:
    [cause] = validate_export(export("my.copy"))
    assert cause.field == "metadata.name"


def test_an_export_cannot_be_changed_but_labelled() -> None:
    old = export()
    assert validate_export(old | {"metadata": {"name": "copy", "labels": {"a": "b"}}}, old) == []
    [cause] = validate_export(export(ttlDuration="1m"), old)
    assert (cause.field, cause.message) == ("spec", "spec is immutable after creation")
