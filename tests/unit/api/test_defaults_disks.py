"""Admission gives volumes their disks, and disks their buses, by what they are and where."""

import pytest

from tests.unit.api.admitted import Json, defaulted, instance


def test_cdrom_is_read_only_and_bus_depends_on_architecture() -> None:
    domain = {"devices": {"disks": [{"name": "a", "cdrom": {}}, {"name": "b"}]}}
    result = defaulted(instance(architecture="arm64", domain=domain))
    assert result["spec"]["domain"]["devices"]["disks"] == [
        {"name": "a", "cdrom": {"bus": "scsi", "readonly": True, "tray": "closed"}},
        {"name": "b", "disk": {"bus": "virtio"}},
    ]


SOURCES: list[Json] = [
    {"cloudInitConfigDrive": {"userData": "x"}},
    {"persistentVolumeClaim": {"claimName": "a"}},
    {"dataVolume": {"name": "a"}},
    {"ephemeral": {"persistentVolumeClaim": {"claimName": "a"}}},
    {"emptyDisk": {"capacity": "1Gi"}},
    {"hostDisk": {"path": "/a.img", "type": "Disk"}},
    {"configMap": {"name": "a"}},
    {"secret": {"secretName": "a"}},
    {"downwardAPI": {"fields": []}},
    {"serviceAccount": {"serviceAccountName": "a"}},
    {"sysprep": {"secret": {"name": "a"}}},
]


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: next(iter(source)))
def test_a_volume_without_a_disk_gets_one(source: Json) -> None:
    result = defaulted(instance(volumes=[{"name": "a", **source}]))["spec"]
    assert result["domain"]["devices"]["disks"] == [{"name": "a", "disk": {"bus": "sata"}}]
    assert result["volumes"] == [{"name": "a", **source}]


@pytest.mark.parametrize("architecture", ["amd64", "arm64"])
@pytest.mark.parametrize("source", ["persistentVolumeClaim", "dataVolume"])
def test_what_may_go_is_where_it_can_leave(architecture: str, source: str) -> None:
    volumes = [{"name": name, source: {"hotpluggable": True}} for name in ("a", "b", "c")]
    disks = [{"name": "a"}, {"name": "b", "disk": {"bus": "virtio"}}, {"name": "c", "lun": {}}]
    spec = {"domain": {"devices": {"disks": disks}}, "volumes": volumes}
    result = defaulted(instance(architecture=architecture, **spec))["spec"]
    assert result["domain"]["devices"]["disks"] == [
        {"name": "a", "disk": {"bus": "scsi"}},
        {"name": "b", "disk": {"bus": "virtio"}},
        {"name": "c", "lun": {"bus": "scsi"}},
    ]


def test_a_lun_is_on_scsi() -> None:
    disks = [{"name": "a", "lun": {}}, {"name": "b", "lun": {"bus": "virtio"}}]
    result = defaulted(instance(domain={"devices": {"disks": disks}}))["spec"]
    assert result["domain"]["devices"]["disks"] == [
        {"name": "a", "lun": {"bus": "scsi"}},
        {"name": "b", "lun": {"bus": "virtio"}},
    ]
