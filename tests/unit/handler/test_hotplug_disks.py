"""What disks of volumes that may come and go mean: VirtualMachineInstance → DiskSpecs."""

from typing import Any

import pytest
from podvisor.domain.v1 import domain_pb2
from podvisor_handler.vmi.disks import build_disks, refused_disks

from tests.unit.handler.builders import pod, vmi
from tests.unit.handler.test_domain_disks import CLAIM, all_built, built

HOTPLUGGABLE = {"persistentVolumeClaim": {"claimName": "c", "hotpluggable": True}}


@pytest.mark.parametrize(
    "source",
    [
        {"persistentVolumeClaim": {"claimName": "c", "hotpluggable": True}},
        {"dataVolume": {"name": "c", "hotpluggable": True}},
    ],
)
@pytest.mark.parametrize(
    ("target", "mode", "image", "create"),
    [
        ({"disk": {}}, "Filesystem", "disk.img", True),
        ({"disk": {"readonly": True}}, "Filesystem", "disk.img", False),
        ({"disk": {}}, "Block", "", False),
        ({"disk": {}}, "", "disk.img", True),
        ({"lun": {}}, "Block", "", False),
        ({"lun": {}}, "", "", False),
        ({"cdrom": {}}, "Filesystem", "disk.img", False),
    ],
    ids=["files", "only read", "device", "unknown", "unit", "unknown unit", "drive"],
)
def test_what_may_come_and_go_is_handed_over(
    source: dict[str, Any], target: dict[str, Any], mode: str, image: str, create: bool
) -> None:
    info = {"claimName": "c", "volumeMode": mode, "capacity": {"storage": "1Gi"}}
    status = {"volumeStatus": [{"name": "d", "persistentVolumeClaimInfo": info}]}
    found = built(source, target, status=status)
    assert found.hotpluggable
    assert found.volume == domain_pb2.VolumeDiskSource(
        handed_over=True,
        file=image,
        create=create,
        capacity_bytes=1 << 30,
        tolerated_shortfall_percent=10,
        reserve_bytes=131_072,
    )


@pytest.mark.parametrize(("target", "is_left"), [({"disk": {}}, False), ({"cdrom": {}}, True)])
def test_one_volume_goes_before_another_comes_by_its_name(
    target: dict[str, Any], is_left: bool
) -> None:
    """A pod holds the old claim still. The disk comes back with the new one; a drive stays, empty."""
    old = {
        "name": "d",
        "hotplugVolume": {"attachPodName": "hp-volume-1", "attachPodUID": "u"},
        "persistentVolumeClaimInfo": {"claimName": "old", "volumeMode": "Filesystem"},
    }
    found = all_built(HOTPLUGGABLE, target, status={"volumeStatus": [old]})
    assert [(disk.name, disk.WhichOneof("source"), disk.hotpluggable) for disk in found] == (
        [("d", None, False)] if is_left else []
    )


def test_what_is_fixed_does_not_come_and_go() -> None:
    """What the controller says of a claim does not make a device of it: the pod is there already."""
    info = {"claimName": "c", "volumeMode": "Block"}
    status = {"volumeStatus": [{"name": "d", "persistentVolumeClaimInfo": info}]}
    found = built(CLAIM, {}, status=status)
    assert (found.hotpluggable, found.volume.handed_over) == (False, False)
    assert found.volume.file == "disk.img"


def test_the_machine_does_without_what_may_come_and_cannot_be_had() -> None:
    spec = {
        "domain": {
            "memory": {"guest": "64M"},
            "devices": {"disks": [{"name": "d", "lun": {}}, {"name": "e", "disk": {}}]},
        },
        "volumes": [{"name": "d", **HOTPLUGGABLE}, {"name": "e", **CLAIM}],
    }
    info = {"claimName": "c", "volumeMode": "Filesystem"}
    machine = vmi(
        spec=spec, status={"volumeStatus": [{"name": "d", "persistentVolumeClaimInfo": info}]}
    )
    assert [disk.name for disk in build_disks(machine, pod())] == ["e"]
    assert list(refused_disks(machine, pod())) == ["d"]
    assert "'d' is a lun, which needs a block volume" in refused_disks(machine, pod())["d"]
