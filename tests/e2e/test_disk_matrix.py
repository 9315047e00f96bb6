"""Every source of a disk on every bus that may have it: the guest sees it with its serial number and its size, or boots from it."""

from typing import Any

import pytest

from tests.support.cluster import Cluster, Json
from tests.support.disks import GuestDisk, all_disks, claimed, with_disk
from tests.support.machine import Machine, vmi
from tests.support.storage import local_volume

MIB = 1 << 20
CLAIM_BYTES = 64 * MIB
EMPTY_BYTES = 32 * MIB
# Everything that fits on one ISO image: what is not the size of a claim or an empty disk.
ISO_BYTES = range(32 << 10, 2 * MIB)

SOURCES: dict[str, Json] = {
    "file": claimed("file"),
    "block": claimed("block"),
    "ephemeral": {"ephemeral": {"persistentVolumeClaim": {"claimName": "base"}}},
    "empty": {"emptyDisk": {"capacity": str(EMPTY_BYTES)}},
    "drive": {"cloudInitConfigDrive": {"userData": "#cloud-config\n"}},
    "configs": {"configMap": {"name": "settings"}},
    "secrets": {"secret": {"secretName": "keys"}},
    "facts": {
        "downwardAPI": {
            "fields": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]
        }
    },
    "account": {"serviceAccount": {"serviceAccountName": "default"}},
    "answers": {"sysprep": {"configMap": {"name": "answers"}}},
}
# A SATA controller has six ports, of which one is the system's.
LOTS = {
    "virtio": [[*SOURCES]],
    "scsi": [[*SOURCES]],
    "usb": [[*SOURCES]],
    "sata": [[*SOURCES][:5], [*SOURCES][5:]],
}
_MACHINES = [
    (bus, number, names) for bus, lots in LOTS.items() for number, names in enumerate(lots)
]


@pytest.mark.timeout(300)
async def test_every_source_on_every_bus(cluster: Cluster) -> None:
    """Two machines at a time: claims are shared by nobody who writes, so those that write come one after another."""
    await _make_objects(cluster)
    async with (
        local_volume(cluster, "file", CLAIM_BYTES),
        local_volume(cluster, "block", CLAIM_BYTES, "Block"),
        local_volume(cluster, "base", CLAIM_BYTES, "Block"),
    ):
        for bus, number, names in _MACHINES:
            name = f"{bus}-{number}"
            machine = Machine(cluster, name)
            await cluster.apply(_machine(name, bus, names))
            await machine.console_shows(rf"{name} login:", within_s=90)
            disks = await all_disks(machine, names)
            for source in names:
                _check(source, disks[source])
            await cluster.kubectl("delete", "vmi", name, "--timeout=40s")


def _machine(name: str, bus: str, sources: list[str]) -> Json:
    """A machine with its system and all these on one bus."""
    manifest: Json = vmi(name)
    devices = manifest["spec"]["domain"]["devices"]["disks"]
    devices[0] = {"name": "root", "serial": "root", "bootOrder": 1, "disk": {"bus": bus}}
    for source in sources:
        seen_as: dict[str, Any] = {"disk": {"bus": bus}}
        with_disk(manifest, source, SOURCES[source], seen_as)
    return manifest


def _check(source: str, disk: GuestDisk) -> None:
    match source:
        case "block" | "ephemeral":
            assert disk.size_bytes == CLAIM_BYTES, disk
        case "file":
            assert 0.9 * CLAIM_BYTES <= disk.size_bytes <= CLAIM_BYTES, disk
        case "empty":
            assert disk.size_bytes == EMPTY_BYTES, disk
        case _:
            assert disk.size_bytes in ISO_BYTES, (source, disk)


async def _make_objects(cluster: Cluster) -> None:
    for manifest in (
        {"kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"colour": "blue"}},
        {
            "kind": "ConfigMap",
            "metadata": {"name": "answers"},
            "data": {"autounattend.xml": "<a/>"},
        },
        {"kind": "Secret", "metadata": {"name": "keys"}, "stringData": {"key": "value"}},
    ):
        await cluster.apply({"apiVersion": "v1", **manifest})
