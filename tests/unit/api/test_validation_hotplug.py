"""What podvisor itself may change of an instance's specification, and what it may not."""

import copy
from typing import Any

import pytest
from podvisor_controller.webhooks.validation import validate_virtual_machine_instance_update

from tests.unit.api.machines import Json, instance

DRIVE = {"name": "drive", "cdrom": {"bus": "sata", "readonly": True, "tray": "closed"}}


def plugged(name: str = "data", claim: str = "data", **source: Any) -> Json:
    body = {"claimName": claim, "hotpluggable": True} | source
    return {"name": name, "persistentVolumeClaim": body}


def disk(name: str = "data", **target: Any) -> Json:
    return {"name": name, **(target or {"disk": {"bus": "scsi"}})}


def an_instance(*volumes: Json, disks: tuple[Json, ...] = (), **changes: Any) -> Json:
    """An instance with an empty drive and more volumes and disks."""
    obj = instance()
    spec = obj["spec"]
    spec["volumes"] += volumes
    spec["domain"]["devices"]["disks"] += [DRIVE, *disks]
    obj["status"] = changes.pop("status", {})
    spec |= changes
    return obj


def causes_of(old: Json, new: Json) -> list[str]:
    before = copy.deepcopy((old, new))
    causes = validate_virtual_machine_instance_update(new, old, privileged=True, may_plug=True)
    assert (old, new) == before
    return [cause.message for cause in causes]


EMPTY = an_instance()
PLUGGED = an_instance(plugged(), disks=(disk(),))
LOADED = an_instance(plugged("drive"))
FIXED = an_instance(plugged(hotpluggable=False), disks=(disk(),))
LEAVING = {"volumeStatus": [{"name": "data", "hotplugVolume": {"attachPodName": "p"}}]}


def without_root() -> Json:
    obj = copy.deepcopy(EMPTY)
    del obj["spec"]["volumes"][0], obj["spec"]["domain"]["devices"]["disks"][0]
    return obj


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param(EMPTY, PLUGGED, id="a volume comes"),
        pytest.param(PLUGGED, EMPTY, id="a volume goes"),
        pytest.param(EMPTY, LOADED, id="a medium is put in"),
        pytest.param(LOADED, EMPTY, id="a medium is taken out"),
        pytest.param(
            EMPTY,
            an_instance(
                {"name": "data", "dataVolume": {"name": "data", "hotpluggable": True}},
                disks=(disk(lun={"bus": "scsi"}),),
            ),
            id="a unit of a DataVolume comes",
        ),
        pytest.param(
            PLUGGED,
            an_instance(plugged("other", "other"), disks=(disk("other", disk={"bus": "virtio"}),)),
            id="one goes and another comes",
        ),
        pytest.param(PLUGGED, an_instance(plugged(), disks=(disk(),), status=LEAVING), id="status"),
        pytest.param(EMPTY, an_instance(terminationGracePeriodSeconds=0), id="time to end"),
        pytest.param(
            an_instance(volumes=[{"name": "root"}]),
            an_instance(volumes=[{"name": "root"}, plugged()], disks=(disk(),)),
            id="one comes to what would not be admitted any more",
        ),
    ],
)
def test_what_may_come_and_go(old: Json, new: Json) -> None:
    assert causes_of(old, new) == []


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        pytest.param(EMPTY, an_instance(hostname="x"), "is restricted to", id="another field"),
        pytest.param(
            EMPTY,
            an_instance(terminationGracePeriodSeconds=-1),
            "terminationGracePeriodSeconds must be between 0",
            id="less than no time to end",
        ),
        pytest.param(EMPTY, FIXED, "is restricted to", id="a fixed volume comes"),
        pytest.param(FIXED, EMPTY, "is restricted to", id="a fixed volume goes"),
        pytest.param(FIXED, PLUGGED, "is restricted to", id="a fixed volume may go"),
        pytest.param(PLUGGED, FIXED, "is restricted to", id="a volume may not go any more"),
        pytest.param(EMPTY, without_root(), "is restricted to", id="the root disk goes"),
        pytest.param(
            EMPTY,
            an_instance(plugged("new"), disks=({**DRIVE, "name": "new"},)),
            "is restricted to",
            id="a drive comes",
        ),
        pytest.param(
            PLUGGED,
            an_instance(plugged(claim="other"), disks=(disk(),)),
            "must be detached before another volume has its name",
            id="another claim",
        ),
        pytest.param(
            PLUGGED,
            an_instance(plugged(), disks=(disk(disk={"bus": "virtio"}),)),
            "must be detached before its disk is another one",
            id="another bus",
        ),
        pytest.param(
            an_instance(status=LEAVING),
            an_instance(plugged(), disks=(disk(),), status=LEAVING),
            "'data' is still being detached",
            id="what has its name is leaving",
        ),
        pytest.param(
            EMPTY,
            an_instance(plugged(), disks=(disk(disk={"bus": "sata"}),)),
            "must be on bus scsi or virtio",
            id="a bus on which nothing comes",
        ),
        pytest.param(
            PLUGGED,
            an_instance(plugged(), plugged("too"), disks=(disk(), disk("too"))),
            "can be behind one disk only",
            id="a claim twice",
        ),
        pytest.param(EMPTY, an_instance(plugged()) | {"spec": 1}, "Expected", id="nonsense"),
    ],
)
def test_what_may_not(old: Json, new: Json, words: str) -> None:
    [message, *_] = causes_of(old, new)
    assert words in message


def test_who_may() -> None:
    for privileged in (False, True):
        [cause] = validate_virtual_machine_instance_update(PLUGGED, EMPTY, privileged=privileged)
        assert cause.message == "update of VMI object is restricted"
