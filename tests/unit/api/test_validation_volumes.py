"""Each bad value in a volume has its own error, which names the field and says what to do."""

from typing import Any

import pytest
from podvisor_controller.webhooks.permitted import Permitted
from podvisor_controller.webhooks.validation import (
    validate_virtual_machine,
    validate_virtual_machine_instance,
)

from tests.unit.api.machines import Json, changed, instance, is_refused, machine
from tests.unit.controller.builders import situations

CLAIM: Json = {"persistentVolumeClaim": {"claimName": "data"}}
READ: Json = {"persistentVolumeClaim": {"claimName": "data", "readOnly": True}}
COPIED: Json = {"ephemeral": CLAIM}
IMAGE: Json = {"hostDisk": {"path": "/data/a.img", "type": "Disk"}}
HOST_DISK = Permitted(feature_gates=frozenset({"HostDisk"}))


@pytest.mark.parametrize(
    ("path", "value", "field", "message"),
    [
        ("volumes/1/name", "root", "volumes[1].name", "must not have the same Name ('root')"),
        ("volumes/1", {"name": "seed"}, "volumes[1]", "must have exactly one source, not none"),
        (
            "volumes/1/containerDisk",
            {"image": "x"},
            "volumes[1]",
            "not containerDisk and cloudInitNoCloud",
        ),
        (
            "volumes/1",
            {"name": "seed", "memoryDump": {}},
            "volumes[1].memoryDump",
            "is not supported yet",
        ),
        (
            "volumes/0/containerDisk/image",
            "",
            "volumes[0].containerDisk.image",
            "must name an image",
        ),
        (
            "volumes/0/containerDisk/image",
            "A:B:C",
            "volumes[0].containerDisk.image",
            "not a valid image reference",
        ),
        (
            "volumes/0/containerDisk/path",
            "../x",
            "volumes[0].containerDisk.path",
            "must be an absolute path",
        ),
        (
            "volumes/0/containerDisk/path",
            "/",
            "volumes[0].containerDisk.path",
            "must be an absolute path",
        ),
        (
            "volumes/0/containerDisk/imagePullPolicy",
            "x",
            "volumes[0].containerDisk.imagePullPolicy",
            "one of: Always",
        ),
        (
            "volumes/0/containerDisk/imagePullSecret",
            "_",
            "volumes[0].containerDisk.imagePullSecret",
            "not a name",
        ),
        ("volumes/0/name", 7, "volumes[0].name", "Expected `str`, got `int`"),
    ],
)
def test_bad_volume(path: str, value: Any, field: str, message: str) -> None:
    is_refused(path, value, field, message)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("volumes/0/containerDisk/image", "kubevirt/cirros-registry-disk-demo:devel"),
        ("volumes/0/containerDisk/image", "registry.local:5000/a/b_c@sha256:" + "0" * 64),
        ("volumes/0/containerDisk/image", "localhost/x"),
        ("volumes/0/containerDisk/path", "/disk/x.qcow2"),
    ],
)
def test_unusual_and_good(path: str, value: Any) -> None:
    assert validate_virtual_machine(changed(path, value)) == []


@pytest.mark.parametrize(
    ("source", "field", "message"),
    situations(
        (
            "claim without a name",
            {"persistentVolumeClaim": {"claimName": ""}},
            "persistentVolumeClaim.claimName",
            "is empty: it must name a PersistentVolumeClaim",
        ),
        (
            "claim of no name",
            {"persistentVolumeClaim": {"claimName": "A b"}},
            "persistentVolumeClaim.claimName",
            "'A b' is not the name of a PersistentVolumeClaim",
        ),
        (
            "data volume without a name",
            {"dataVolume": {"name": ""}},
            "dataVolume.name",
            "is empty: it must name a DataVolume",
        ),
        (
            "copy of nothing",
            {"ephemeral": {}},
            "ephemeral.persistentVolumeClaim",
            "is missing: it must name a claim",
        ),
        (
            "copy of a claim without a name",
            {"ephemeral": {"persistentVolumeClaim": {"claimName": ""}}},
            "ephemeral.persistentVolumeClaim.claimName",
            "is empty",
        ),
        ("no capacity", {"emptyDisk": {}}, "emptyDisk", "missing required field `capacity`"),
        ("no quantity", {"emptyDisk": {"capacity": "x"}}, "emptyDisk.capacity", "not a quantity"),
        ("nothing", {"emptyDisk": {"capacity": 0}}, "emptyDisk.capacity", "equal to 512"),
        ("less", {"emptyDisk": {"capacity": "-1Gi"}}, "emptyDisk.capacity", "equal to 0"),
        ("half a byte", {"emptyDisk": {"capacity": "500m"}}, "emptyDisk.capacity", "equal to 512"),
        ("too much", {"emptyDisk": {"capacity": "65Ti"}}, "emptyDisk.capacity", "equal to 64Ti"),
    ),
)
def test_bad_source(source: Json, field: str, message: str) -> None:
    is_refused("volumes/1", {"name": "seed", **source}, f"volumes[1].{field}", message)


@pytest.mark.parametrize(
    ("change", "field", "message"),
    situations(
        ("no path", {"path": ""}, "path", "is required"),
        ("relative path", {"path": "a.img"}, "path", "must be an absolute path to a file"),
        ("path up", {"path": "/data/../a.img"}, "path", "without relative elements"),
        ("path to a directory", {"path": "/data/"}, "path", "must be an absolute path to a file"),
        ("long path", {"path": "/" + "a" * 4095}, "path", "must be an absolute path to a file"),
        ("no type", {"type": ""}, "type", "must be one of: Disk, DiskOrCreate"),
        ("other type", {"type": "File"}, "type", "'File' must be one of"),
        ("capacity of what is there", {"capacity": "1Gi"}, "capacity", "must not be given"),
        ("no capacity", {"type": "DiskOrCreate"}, "capacity", "is required with type DiskOrCreate"),
        (
            "capacity of nothing",
            {"type": "DiskOrCreate", "capacity": "0"},
            "capacity",
            "must be greater than or equal to 512",
        ),
    ),
)
def test_bad_host_disk(change: Json, field: str, message: str) -> None:
    obj = changed("volumes/1", {"name": "seed", "hostDisk": IMAGE["hostDisk"] | change})
    [cause] = validate_virtual_machine(obj, permitted=HOST_DISK)
    assert cause.field == f"spec.template.spec.volumes[1].hostDisk.{field}"
    assert message in cause.message


def test_host_disk_needs_its_gate() -> None:
    obj = changed("volumes/1", {"name": "seed", **IMAGE})
    [cause] = validate_virtual_machine(obj)
    assert cause.field == "spec.template.spec.volumes[1].hostDisk"
    assert "needs the feature gate HostDisk" in cause.message
    assert validate_virtual_machine(obj, permitted=HOST_DISK) == []
    created = {"path": "/a", "type": "DiskOrCreate", "capacity": "1Gi", "shared": True}
    obj = changed("volumes/1", {"name": "seed", "hostDisk": created})
    assert validate_virtual_machine(obj, permitted=HOST_DISK) == []


@pytest.mark.parametrize(
    ("first", "second", "field"),
    situations(
        ("written twice", CLAIM, CLAIM, "persistentVolumeClaim.claimName"),
        ("written and read", CLAIM, READ, "persistentVolumeClaim.claimName"),
        ("read and written", READ, CLAIM, "persistentVolumeClaim.claimName"),
        ("written and copied", CLAIM, COPIED, "ephemeral.persistentVolumeClaim.claimName"),
        ("claim of a data volume", CLAIM, {"dataVolume": {"name": "data"}}, "dataVolume.name"),
        ("image of a node", IMAGE, IMAGE, "hostDisk.path"),
    ),
)
def test_what_is_written_to_is_behind_one_disk(first: Json, second: Json, field: str) -> None:
    obj = machine()
    volumes = [{"name": "root", **first}, {"name": "seed", **second}]
    obj["spec"]["template"]["spec"]["volumes"] = volumes
    [cause] = validate_virtual_machine(obj, permitted=HOST_DISK)
    assert cause.field == f"spec.template.spec.volumes[1].{field}"
    assert "that is written to can be behind one disk only" in cause.message


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (READ, READ),
        (READ, COPIED),
        (COPIED, COPIED),
        (CLAIM, {"dataVolume": {"name": "other"}}),
        ({"emptyDisk": {"capacity": 512}}, {"emptyDisk": {"capacity": "64Ti"}}),
    ],
)
def test_what_is_only_read_can_be_behind_two(first: Json, second: Json) -> None:
    obj = machine()
    volumes = [{"name": "root", **first}, {"name": "seed", **second}]
    obj["spec"]["template"]["spec"]["volumes"] = volumes
    assert validate_virtual_machine(obj) == []


@pytest.mark.parametrize(
    ("value", "named"),
    [("root", "root"), ("data,", ""), ("data,ghost", "ghost"), ("data;host", "data;host")],
)
def test_only_images_of_claims_and_nodes_can_be_said_to_be_raw(value: str, named: str) -> None:
    obj = instance()
    obj["spec"]["volumes"] += [{"name": "data", **CLAIM}, {"name": "host", **IMAGE}]
    obj["metadata"]["annotations"] = {"podvisor.io/raw-volumes": value}
    [cause] = validate_virtual_machine_instance(obj, permitted=HOST_DISK)
    assert cause.field == "metadata.annotations[podvisor.io/raw-volumes]"
    assert f"names '{named}', which is no volume with a PersistentVolumeClaim" in cause.message
    of_machine = machine()
    of_machine["spec"]["template"] = {"metadata": obj["metadata"], "spec": obj["spec"]}
    [cause] = validate_virtual_machine(of_machine, permitted=HOST_DISK)
    assert cause.field == "spec.template.metadata.annotations[podvisor.io/raw-volumes]"
    obj["metadata"]["annotations"] = {"podvisor.io/raw-volumes": "data, host"}
    assert validate_virtual_machine_instance(obj, permitted=HOST_DISK) == []
