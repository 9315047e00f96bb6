"""What a guest has for a disk and must not change stays as it is to the last bit, whatever the guest writes to what it sees."""

import hashlib
import json

from tests.support.cluster import Cluster, Json, on_node
from tests.support.disks import all_disks, read, with_disk
from tests.support.machine import Machine, vm
from tests.support.storage import local_volume

MIB = 1 << 20
SIZE = 24 * MIB
_IMAGE = "/run/podvisor/images/root/disk/disk.qcow2"
_OBJECTS = (
    {"kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"colour": "blue"}},
    {"kind": "Secret", "metadata": {"name": "keys"}, "stringData": {"key": "value"}},
)
# A disk on bus sata cannot be read-only, so that a guest writes to a copy of its own.
_FILES: dict[str, Json] = {
    "settings-scsi": {"configMap": {"name": "settings"}},
    "settings-sata": {"configMap": {"name": "settings"}},
    "keys-virtio": {"secret": {"secretName": "keys"}},
    "keys-usb": {"secret": {"secretName": "keys"}},
}


async def test_a_guest_that_writes_to_all_that_it_sees(cluster: Cluster) -> None:
    """The container's image, claims below ephemeral disks, a ConfigMap and a Secret are the same while it runs and after
    it, and so is what the next instance reads."""
    for manifest in _OBJECTS:
        await cluster.apply({"apiVersion": "v1", **manifest})
    async with (
        local_volume(cluster, "file", 2 * SIZE) as file,
        local_volume(cluster, "block", SIZE, "Block") as block,
    ):
        image = f"{file.path}/disk.img"
        await on_node(
            "sh", "-c", f"head -c {SIZE} /dev/urandom >{image}; dd if={image} of={block.path} bs=1M"
        )
        await cluster.apply(_vandal())
        machine = Machine(cluster, "vandal")
        await machine.console_shows("vandal login:")
        before = await _state(machine, image, block.path)
        disks = await all_disks(machine, ["file", "block", *_FILES])
        untouched = {disk: await read(machine, disk, 512) for disk in ("file", "block")}

        devices = " ".join(disk.device for disk in disks.values())
        noise = "dd if=/dev/urandom of=/dev/$d bs=1M conv=fsync"
        await machine.ssh(f"for d in {devices}; do {noise}; done 2>/dev/null; sync", timeout_s=90)
        for disk in ("file", "block"):
            assert await read(machine, disk, 512) != untouched[disk]
        assert await _state(machine, image, block.path) == before

        first = await machine.running()
        await cluster.kubectl("delete", "vmi", "vandal", "--timeout=30s")
        await machine.running(not_uid=first["metadata"]["uid"])
        await machine.console_shows("vandal login:")
        assert await _state(machine, image, block.path) == before
        for disk in ("file", "block"):
            assert await read(machine, disk, 512) == untouched[disk]


def _vandal() -> Json:
    manifest = vm("vandal")
    for name in ("file", "block"):
        source = {"ephemeral": {"persistentVolumeClaim": {"claimName": name}}}
        with_disk(manifest, name, source)
    for name, source in _FILES.items():
        with_disk(manifest, name, source, {"disk": {"bus": name.rpartition("-")[2]}})
    return manifest


async def _state(machine: Machine, image: str, device: str) -> dict[str, str]:
    """Digests of everything that the guest has a view of, by what it is."""
    processes = await machine.processes()
    (launcher,) = (pid for pid, command in processes.items() if "podvisor_launcher" in command)
    paths = (f"/proc/{launcher}/root{_IMAGE}", image, device)
    sums = (await on_node("sha256sum", *paths)).stdout.splitlines()
    state = {
        what: line.split()[0] for what, line in zip(("image", "file", "block"), sums, strict=True)
    }
    for kind, name in (("configmap", "settings"), ("secret", "keys")):
        found = await machine.cluster.get(kind, name)
        state[kind] = hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()
    return state
