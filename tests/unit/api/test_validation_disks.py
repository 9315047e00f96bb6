"""Each bad value in a disk has its own error, and what is unusual about a disk and good gets in."""

from typing import Any

import pytest
from podvisor_controller.webhooks.validation import validate_virtual_machine

from tests.unit.api.machines import Json, changed, is_refused, machine
from tests.unit.controller.builders import situations

DISKS = "domain.devices.disks"
DISK = "domain/devices/disks/0"
CLAIM = {"persistentVolumeClaim": {"claimName": "data"}}
PLUGGED = {"persistentVolumeClaim": {"claimName": "data", "hotpluggable": True}}


def sized(bus: str, **custom: int) -> Json:
    return {"name": "root", "disk": {"bus": bus}, "blockSize": {"custom": custom}}


@pytest.mark.parametrize(
    ("path", "value", "field", "message"),
    situations(
        ("cache", f"{DISK}/cache", "directsync", f"{DISKS}[0].cache", "one of: none, writethrough"),
        ("io", f"{DISK}/io", "io_uring", f"{DISKS}[0].io", "must be one of: native, threads"),
        ("policy", f"{DISK}/errorPolicy", "x", f"{DISKS}[0].errorPolicy", "one of: stop, ignore"),
        (
            "tray",
            "domain/devices/disks/1",
            {"name": "seed", "cdrom": {"tray": "ajar"}},
            f"{DISKS}[1].cdrom.tray",
            "'ajar' must be one of: open, closed",
        ),
        ("tag", f"{DISK}/tag", "a\nb", f"{DISKS}[0].tag", "control characters"),
        (
            "native requests through a cache",
            DISK,
            {"name": "root", "cache": "writeback", "io": "native"},
            f"{DISKS}[0].io",
            "is native, which needs cache none, not writeback",
        ),
        (
            "shared through a cache",
            DISK,
            {"name": "root", "cache": "writethrough", "shareable": True},
            f"{DISKS}[0].shareable",
            "which needs cache none, not writethrough",
        ),
        (
            "thread of its own on the bus by default",
            DISK,
            {"name": "root", "dedicatedIOThread": True},
            f"{DISKS}[0].dedicatedIOThread",
            "which disks on bus virtio can have, not one on sata",
        ),
        (
            "address on another bus",
            DISK,
            {"name": "root", "disk": {"bus": "scsi", "pciAddress": "0000:81:00.0"}},
            f"{DISKS}[0].disk.pciAddress",
            "on bus virtio only, not on scsi",
        ),
        (
            "malformed address",
            f"{DISK}/disk/pciAddress",
            "0000:81:20.0",
            f"{DISKS}[0].disk.pciAddress",
            "'0000:81:20.0' cannot be had",
        ),
        (
            "one address twice",
            "domain/devices/disks",
            [
                {"name": "root", "disk": {"bus": "virtio", "pciAddress": "0000:0A:00.0"}},
                {"name": "seed", "disk": {"bus": "virtio", "pciAddress": "0000:0a:00.0"}},
            ],
            f"{DISKS}[1].disk.pciAddress",
            "is that of spec.template.spec.domain.devices.disks[0].disk.pciAddress",
        ),
        (
            "lun of an image",
            DISK,
            {"name": "root", "lun": {}},
            f"{DISKS}[0].lun",
            "can only be mapped to a DataVolume or PersistentVolumeClaim volume",
        ),
        (
            "lun on another bus",
            DISK,
            {"name": "root", "lun": {"bus": "virtio"}},
            f"{DISKS}[0].lun.bus",
            "is virtio, which is invalid for a lun: it must be scsi",
        ),
        ("no block size", f"{DISK}/blockSize", {}, f"{DISKS}[0].blockSize", "exactly one of"),
        (
            "two block sizes",
            f"{DISK}/blockSize",
            {"custom": {"logical": 512, "physical": 512}, "matchVolume": {}},
            f"{DISKS}[0].blockSize",
            "must have exactly one of custom and matchVolume, not both",
        ),
        (
            "block size below a sector",
            DISK,
            sized("virtio", logical=256, physical=512),
            f"{DISKS}[0].blockSize.custom.logical",
            "must be a power of 2 between 512 and 2097152",
        ),
        (
            "huge block size",
            DISK,
            sized("virtio", logical=512, physical=2**22),
            f"{DISKS}[0].blockSize.custom.physical",
            "must be a power of 2 between 512 and 2097152",
        ),
        (
            "odd block size",
            DISK,
            sized("virtio", logical=1536, physical=4096),
            f"{DISKS}[0].blockSize.custom.logical",
            "must be a power of 2",
        ),
        (
            "negative block size",
            DISK,
            sized("virtio", logical=-512, physical=512),
            f"{DISKS}[0].blockSize.custom.logical",
            "must be a power of 2",
        ),
        (
            "logical above physical",
            DISK,
            sized("virtio", logical=4096, physical=512),
            f"{DISKS}[0].blockSize.custom.logical",
            "the same or less than the physical size of 512",
        ),
        (
            "large sectors on sata",
            DISK,
            sized("sata", logical=4096, physical=4096),
            f"{DISKS}[0].blockSize.custom.logical",
            "which must be 512 for a disk on bus sata",
        ),
        (
            "granularity between sectors",
            DISK,
            sized("virtio", logical=4096, physical=4096, discardGranularity=512),
            f"{DISKS}[0].blockSize.custom.discardGranularity",
            "must be a multiple of the logical size of 4096",
        ),
        (
            "negative granularity",
            DISK,
            sized("virtio", logical=512, physical=512, discardGranularity=-512),
            f"{DISKS}[0].blockSize.custom.discardGranularity",
            "must be a multiple",
        ),
    ),
)
def test_bad_disk(path: str, value: Any, field: str, message: str) -> None:
    is_refused(path, value, field, message)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (DISK, {"name": "root", "cache": "none", "io": "native", "shareable": True}),
        (DISK, {"name": "root", "io": "native", "shareable": True}),
        (DISK, {"name": "root", "cache": "writeback", "io": "threads", "errorPolicy": "enospace"}),
        (DISK, {"name": "root", "cache": "writeback", "shareable": False}),
        (DISK, {"name": "root", "dedicatedIOThread": False}),
        (DISK, {"name": "root", "disk": {"bus": "virtio"}, "dedicatedIOThread": True}),
        (f"{DISK}/disk/pciAddress", "0000:e0:00.0"),
        (f"{DISK}/tag", "größe 1"),
        (f"{DISK}/blockSize", {"matchVolume": {}}),
        (f"{DISK}/blockSize", {"matchVolume": {"enabled": False}}),
        (
            f"{DISK}/blockSize",
            {"matchVolume": {"enabled": False}, "custom": {"logical": 512, "physical": 512}},
        ),
        (DISK, sized("virtio", logical=4096, physical=2**21, discardGranularity=8192)),
        (DISK, sized("virtio", logical=512, physical=512, discardGranularity=0)),
        (DISK, sized("sata", logical=512, physical=4096)),
        ("domain/devices/disks/1", {"name": "seed", "cdrom": {"bus": "usb", "tray": "open"}}),
        ("domain/devices/disks/1", {"name": "nothing", "cdrom": {}}),
    ],
)
def test_unusual_and_good(path: str, value: Any) -> None:
    assert validate_virtual_machine(changed(path, value)) == []


def with_data(disk: Json, source: Json, **spec: str) -> Json:
    """The good machine with one more disk and its volume."""
    obj = machine()
    template = obj["spec"]["template"]["spec"]
    template["domain"]["devices"]["disks"].append({"name": "data", **disk})
    template["volumes"].append({"name": "data", **source})
    template |= spec
    return obj


@pytest.mark.parametrize(
    ("disk", "source"),
    situations(
        ("lun of a claim", {"lun": {}}, CLAIM),
        ("lun of a data volume", {"lun": {"bus": "scsi"}}, {"dataVolume": {"name": "data"}}),
        ("hard disk that may go", {"disk": {"bus": "virtio"}}, PLUGGED),
        ("hard disk that may go, on no bus", {"disk": {}}, PLUGGED),
        ("disk that says nothing and may go", {}, PLUGGED),
        ("lun that may go", {"lun": {}}, {"dataVolume": {"name": "d", "hotpluggable": True}}),
        ("CD that may go", {"cdrom": {"bus": "sata"}}, PLUGGED),
    ),
)
def test_disk_and_volume_go_together(disk: Json, source: Json) -> None:
    assert validate_virtual_machine(with_data(disk, source)) == []


@pytest.mark.parametrize("bus", ["sata", "usb"])
def test_a_disk_that_may_go_is_on_a_bus_it_can_leave(bus: str) -> None:
    [cause] = validate_virtual_machine(with_data({"disk": {"bus": bus}}, PLUGGED))
    assert cause.field == "spec.template.spec.domain.devices.disks[2].disk.bus"
    assert "a disk with a hotpluggable volume must be on bus scsi or virtio" in cause.message


def test_arm64_has_no_sata() -> None:
    obj = with_data({"cdrom": {"bus": "sata"}}, CLAIM, architecture="arm64")
    [cause] = validate_virtual_machine(obj)
    assert cause.field == "spec.template.spec.domain.devices.disks[2].cdrom.bus"
    assert "which machines of architecture arm64 do not have" in cause.message
    assert validate_virtual_machine(with_data({"cdrom": {}}, CLAIM, architecture="arm64")) == []


def test_a_lun_takes_no_place_on_sata() -> None:
    obj = machine()
    template = obj["spec"]["template"]["spec"]
    kinds = ["disk"] * 6 + ["lun"]
    names = [f"d{number}" for number in range(len(kinds))]
    template["domain"]["devices"]["disks"] = [
        {"name": name, kind: {}} for name, kind in zip(names, kinds, strict=True)
    ]
    template["volumes"] = [
        {"name": name, "persistentVolumeClaim": {"claimName": name}} for name in names
    ]
    assert validate_virtual_machine(obj) == []
