"""Volumes of a running machine, attached and detached as a person does it: by an edit of the machine's template."""

import asyncio
import json
from collections.abc import Callable

from tests.support.cluster import Cluster, Json
from tests.support.disks import GuestDisk, guest_disks
from tests.support.machine import Machine, vm


def roomy_vm(name: str) -> Json:
    """A machine with a 64-bit system: one without PAE has no room for devices that come later behind QEMU's AMD processors."""
    manifest = vm(name)
    spec = manifest["spec"]["template"]["spec"]
    spec["volumes"][0]["containerDisk"]["image"] = "podvisor/guest-amd64-bench:devel"
    spec["domain"]["resources"]["requests"]["memory"] = "128Mi"
    return manifest


def add_volume(spec: Json, volume: str, bus: str = "scsi") -> None:
    """Give the specification of a machine's instance a claim of the volume's name, which may come while the guest runs."""
    source = {"claimName": volume, "hotpluggable": True}
    spec["volumes"].append({"name": volume, "persistentVolumeClaim": source})
    disk = {"name": volume, "serial": volume, "disk": {"bus": bus}}
    spec["domain"]["devices"]["disks"].append(disk)


def remove_volume(spec: Json, volume: str) -> None:
    """Take a volume and its disk from the specification of a machine's instance."""
    devices = spec["domain"]["devices"]
    spec["volumes"] = [v for v in spec["volumes"] if v["name"] != volume]
    devices["disks"] = [d for d in devices["disks"] if d["name"] != volume]


async def edited(cluster: Cluster, name: str, change: Callable[[Json], None]) -> Json:
    """The merge patch of a machine by which the volumes and disks of its template change as a person would with `kubectl edit`."""
    found = await cluster.get("vm", name)
    assert found is not None
    spec = found["spec"]["template"]["spec"]
    change(spec)
    wanted = {
        "volumes": spec["volumes"],
        "domain": {"devices": {"disks": spec["domain"]["devices"]["disks"]}},
    }
    return {"spec": {"template": {"spec": wanted}}}


async def plug(cluster: Cluster, name: str, volume: str, bus: str = "scsi") -> None:
    """Give a machine a claim of the volume's name."""
    await _edit(cluster, name, lambda spec: add_volume(spec, volume, bus))


async def unplug(cluster: Cluster, name: str, volume: str) -> None:
    """Take a volume and its disk from a machine."""
    await _edit(cluster, name, lambda spec: remove_volume(spec, volume))


async def insert(cluster: Cluster, name: str, drive: str, claim: str) -> None:
    """Put a claim into a machine's CD-ROM drive, which is empty."""
    source = {"claimName": claim, "hotpluggable": True}
    volume = {"name": drive, "persistentVolumeClaim": source}
    await _edit(cluster, name, lambda spec: spec["volumes"].append(volume))


async def eject(cluster: Cluster, name: str, drive: str) -> None:
    """Empty a machine's CD-ROM drive, which stays."""

    def change(spec: Json) -> None:
        spec["volumes"] = [volume for volume in spec["volumes"] if volume["name"] != drive]

    await _edit(cluster, name, change)


async def _edit(cluster: Cluster, name: str, change: Callable[[Json], None]) -> None:
    patch = json.dumps(await edited(cluster, name, change))
    await cluster.kubectl("patch", "vm", name, "--type=merge", "-p", patch)


def said_of(state: Json | None, volume: str) -> Json:
    """What the instance's status says of a volume; empty when that is nothing."""
    entries = (state or {}).get("status", {}).get("volumeStatus", [])
    found: Json = next((entry for entry in entries if entry["name"] == volume), {})
    return found


async def reaches(cluster: Cluster, name: str, volume: str, phase: str) -> Json:
    """What is said of a volume once it has that phase; without one, once nothing is said of it."""
    state = await cluster.until(
        "vmi",
        name,
        lambda state: state is not None and said_of(state, volume).get("phase", "") == phase,
        within_s=60,
        what=f"volume {volume}: {phase or 'gone'}",
    )
    return said_of(state, volume)


async def rescan(machine: Machine) -> None:
    """Have the guest look for disks at its SCSI controllers."""
    every = 'for host in /sys/class/scsi_host/*/scan; do echo "- - -" > $host; done'
    await machine.ssh(every, check=False)


async def seen(machine: Machine, volume: str, *, within_s: float = 30) -> GuestDisk:
    """The volume's disk, once the guest has it: a driver that the guest loads after its prompt finds it then."""
    async with asyncio.timeout(within_s):
        while volume not in (disks := await guest_disks(machine)):
            await rescan(machine)
    return disks[volume]
