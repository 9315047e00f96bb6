"""Trees of files that are shared with a guest: what is refused, and the field that says so."""

from typing import Any

import pytest
from podvisor_controller.webhooks.validation import validate_virtual_machine

from tests.unit.api.machines import Json, machine

FIELD = "spec.template.spec.domain.devices.filesystems"
SOURCES: dict[str, Json] = {
    "claim": {"persistentVolumeClaim": {"claimName": "c"}},
    "data": {"dataVolume": {"name": "d"}},
    "config": {"configMap": {"name": "m"}},
    "secret": {"secret": {"secretName": "s"}},
    "facts": {"downwardAPI": {"fields": [{"path": "x", "fieldRef": {"fieldPath": "metadata.name"}}]}},
    "account": {"serviceAccount": {"serviceAccountName": "a"}},
}  # fmt: skip


def sharing(filesystems: list[Json], **volumes: Json) -> Json:
    """The good machine with these, and volumes by name beside its own."""
    obj = machine()
    spec = obj["spec"]["template"]["spec"]
    spec["domain"]["devices"]["filesystems"] = filesystems
    spec["volumes"] += [{"name": name, **source} for name, source in volumes.items()]
    return obj


def causes(filesystems: list[Json], **volumes: Json) -> dict[str, str]:
    found: dict[str, str] = {}
    for cause in validate_virtual_machine(sharing(filesystems, **volumes)):
        field = cause.field.removeprefix(FIELD)
        found[field] = "\n".join([*filter(None, [found.get(field)]), cause.message])
    return found


@pytest.mark.parametrize("name", SOURCES)
def test_every_kind_of_volume_with_files_can_be_shared(name: str) -> None:
    assert causes([{"name": name, "virtiofs": {}}], **{name: SOURCES[name]}) == {}


def test_several_at_once() -> None:
    assert causes([{"name": name, "virtiofs": {}} for name in SOURCES], **SOURCES) == {}


@pytest.mark.parametrize(
    ("filesystem", "field", "message"),
    [
        ({"name": "none", "virtiofs": {}}, "[0].name", "'none' not found: there is no volume"),
        ({"name": "claim"}, "[0].virtiofs", "is required"),
        ({"name": "root", "virtiofs": {}}, "[0].name", "'root' is a disk as well"),
        ({"name": "empty", "virtiofs": {}}, "[0].name", "without files to share; it must be one"),
        ({"name": "copy", "virtiofs": {}}, "[0].name", "without files to share"),
        ({"name": "plugged", "virtiofs": {}}, "[0].name", "'plugged' is hotpluggable"),
        ({"name": "a" * 37, "virtiofs": {}}, "[0].name", "has 37 bytes"),
    ],
)
def test_bad_file_systems(filesystem: Json, field: str, message: str) -> None:
    volumes: dict[str, Any] = {
        **SOURCES,
        "empty": {"emptyDisk": {"capacity": "1Gi"}},
        "copy": {"ephemeral": {"persistentVolumeClaim": {"claimName": "e"}}},
        "plugged": {"persistentVolumeClaim": {"claimName": "p", "hotpluggable": True}},
        "a" * 37: {"configMap": {"name": "long"}},
    }
    assert message in causes([filesystem], **volumes).get(field, "")


def test_a_name_of_36_bytes_is_none_too_long() -> None:
    name = "a" * 36
    assert causes([{"name": name, "virtiofs": {}}], **{name: SOURCES["claim"]}) == {}


def test_each_has_a_name_of_its_own() -> None:
    twice = [{"name": "claim", "virtiofs": {}}] * 2
    message = causes(twice, **SOURCES)["[1].name"]
    assert message == f"{FIELD}[0] and {FIELD}[1] must not have the same Name ('claim')."


def test_there_can_be_so_many() -> None:
    names = [f"c{number}" for number in range(65)]
    filesystems = [{"name": name, "virtiofs": {}} for name in names]
    found = causes(filesystems, **dict.fromkeys(names, SOURCES["config"]))
    assert found == {"": f"{FIELD} has 65 entries; there can be 64."}
