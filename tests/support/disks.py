"""Disks of machines under test: put into manifests, and looked at from inside the guest."""

import shlex
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.support.cluster import Json
from tests.support.machine import Machine

# The serial number of a virtio disk, of a SCSI or SATA disk (page 0x80 without its header), or of the USB device around it.
_SERIAL = """
serial() {
  cat /sys/block/$1/serial 2>/dev/null && return
  s=$(tail -c +5 /sys/block/$1/device/vpd_pg80 2>/dev/null | tr -d '\\000 ')
  p=$(readlink -f /sys/block/$1/device)
  while [ -z "$s" ] && [ "$p" != / ]; do s=$(cat $p/serial 2>/dev/null); p=${p%/*}; p=${p:-/}; done
  echo $s
}
"""
_LIST = (
    _SERIAL
    + "for d in $(ls /sys/block | grep -E '^(vd|sd|sr)'); do"
    + ' echo "$d $(cat /sys/block/$d/size) $(cat /sys/block/$d/ro) $(serial $d)"; done'
)


def with_disk(
    manifest: Json, name: str, source: Mapping[str, Any], disk: Mapping[str, Any] | None = None
) -> Json:
    """Add a volume and its disk to a machine's or an instance's manifest; on bus virtio unless `disk` says otherwise."""
    spec = manifest["spec"].get("template", manifest)["spec"]
    spec["volumes"].append({"name": name, **source})
    seen_as = disk if disk is not None else {"disk": {"bus": "virtio"}}
    spec["domain"]["devices"]["disks"].append({"name": name, "serial": name, **seen_as})
    return manifest


def claimed(claim: str, **options: Any) -> Json:
    """A volume that is a PersistentVolumeClaim."""
    return {"persistentVolumeClaim": {"claimName": claim, **options}}


@dataclass(frozen=True, slots=True)
class GuestDisk:
    """A block device as its guest sees it."""

    device: str
    size_bytes: int
    read_only: bool
    serial: str


async def guest_disks(machine: Machine) -> dict[str, GuestDisk]:
    """The guest's block devices by their serial numbers; those without one by the names of their devices."""
    disks = {}
    for line in (await machine.ssh(_LIST)).stdout.splitlines():
        device, sectors, read_only, *serial = line.split()
        found = GuestDisk(device, int(sectors) * 512, read_only == "1", "".join(serial))
        disks[found.serial or device] = found
    return disks


async def all_disks(
    machine: Machine, serials: Iterable[str], *, within_s: float = 40
) -> dict[str, GuestDisk]:
    """The guest's block devices once those are among them: its drivers for some buses come after the prompt."""
    disks: dict[str, GuestDisk] = {}
    deadline_s = time.monotonic() + within_s
    while missing := set(serials) - set(disks):
        assert time.monotonic() < deadline_s, f"{machine.name}: no {missing} among {disks}"
        disks = await guest_disks(machine)
    return disks


async def write(machine: Machine, serial: str, text: str, *, at_mib: int = 1) -> None:
    """Have the guest write `text` to a disk, and have it on stable storage before this returns."""
    disk = (await guest_disks(machine))[serial]
    await machine.ssh(
        f"printf %s {shlex.quote(text)} | dd of=/dev/{disk.device} bs=1M seek={at_mib} conv=notrunc,fsync"
    )


async def read(machine: Machine, serial: str, length: int, *, at_mib: int = 1) -> str:
    """What stands on a disk, as the guest reads it."""
    disk = (await guest_disks(machine))[serial]
    done = await machine.ssh(
        f"dd if=/dev/{disk.device} bs=1M skip={at_mib} count=1 2>/dev/null | head -c {length} | tr '\\000' '.'"
    )
    return done.stdout
