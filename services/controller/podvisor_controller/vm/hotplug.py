"""What of a machine's template reaches its running guest: volumes that may come and go, and the media of its CD-ROM drives. Pure.

Invariant: nothing else of an instance is ever changed. A name is given to another volume only once the guest has let go of the
one before, for by the name alone launcher and guest could not tell them apart.
"""

from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec.structs import replace
from podvisor_common.api import v1

from podvisor_controller.webhooks.defaults import default_disks
from podvisor_controller.webhooks.defaults_instance import instance_of


@dataclass(frozen=True, slots=True)
class Plugged:
    """The volumes and disks that an instance is to have now. `is_whole`: they are all that its machine's template asks for."""

    volumes: list[v1.Volume]
    disks: list[v1.Disk]
    is_whole: bool


def volume_lists(volumes: list[v1.Volume], disks: list[v1.Disk]) -> dict[str, Any]:
    """The specification in a patch that gives a machine these. Both lists as a whole: a merge patch knows no other way."""
    return {
        "volumes": msgspec.to_builtins(volumes),
        "domain": {"devices": {"disks": msgspec.to_builtins(disks)}},
    }


def fixed_part(spec: v1.VirtualMachineInstanceSpec) -> v1.VirtualMachineInstanceSpec:
    """What of a specification a guest gets with its next start only."""
    may_go = _names_of_pluggable(spec)
    volumes = [volume for volume in spec.volumes or () if not volume.is_hotpluggable]
    devices = spec.domain.devices
    disks = [d for d in devices.disks or () if d.cdrom is not None or d.name not in may_go]
    domain = replace(spec.domain, devices=replace(devices, disks=disks or None))
    return replace(spec, volumes=volumes or None, domain=domain)


def has(vmi: v1.VirtualMachineInstance, plugged: Plugged) -> bool:
    """The instance has those volumes and disks."""
    disks = vmi.spec.domain.devices.disks
    return (vmi.spec.volumes or []) == plugged.volumes and (disks or []) == plugged.disks


def plugged(vm: v1.VirtualMachine, vmi: v1.VirtualMachineInstance) -> Plugged:
    """What the instance of a machine is to have next: less than the template asks for while something has to leave first."""
    had, wanted = vmi.spec, _wanted(vm, vmi)
    drives = {disk.name: disk for disk in had.domain.devices.disks or ()}
    disks = {disk.name: disk for disk in wanted.domain.devices.disks or ()}
    volumes = {volume.name: volume for volume in wanted.volumes or ()}
    kept = [v for v in had.volumes or () if _stays(v, volumes.get(v.name), drives, disks)]
    taken = {volume.name for volume in had.volumes or ()}
    live = [
        v
        for v in volumes.values()
        if v.is_hotpluggable and v not in kept and _is_live(v, taken, drives, disks)
    ]
    added = [v for v in live if v.name not in taken and v.name not in _leaving(vmi)]
    here = {volume.name for volume in kept}
    may_go = _names_of_pluggable(had)
    left = [d for d in drives.values() if d.cdrom is not None or d.name not in may_go - here]
    new = [disks[volume.name] for volume in added if disks[volume.name].cdrom is None]
    return Plugged([*kept, *added], [*left, *new], is_whole=live == added)


def _stays(
    volume: v1.Volume,
    wanted: v1.Volume | None,
    had: dict[str, v1.Disk],
    disks: dict[str, v1.Disk],
) -> bool:
    """A volume of the instance stays what it is. One that has become a fixed part of the template is that from the next start on."""
    if not volume.is_hotpluggable or (wanted is not None and not wanted.is_hotpluggable):
        return True
    if wanted != volume:
        return False
    one, other = had.get(volume.name), disks.get(volume.name)
    is_drive = any(disk is not None and disk.cdrom is not None for disk in (one, other))
    return is_drive or one == other


def _is_live(
    volume: v1.Volume, taken: set[str], drives: dict[str, v1.Disk], disks: dict[str, v1.Disk]
) -> bool:
    """A volume can be attached to the running guest, if need be after another one of its name has left."""
    drive, disk = drives.get(volume.name), disks.get(volume.name)
    if disk is not None and disk.cdrom is not None:
        return drive is not None and drive.cdrom is not None
    return disk is not None and (drive is None or (drive.cdrom is None and volume.name in taken))


def _leaving(vmi: v1.VirtualMachineInstance) -> set[str]:
    """The names of volumes that have left the manifest, and that are still held for the guest."""
    names = {volume.name for volume in vmi.spec.volumes or ()}
    held = {e.name for e in vmi.status.volume_status or () if e.hotplug_volume is not None}
    return held - names


def _wanted(vm: v1.VirtualMachine, vmi: v1.VirtualMachineInstance) -> v1.VirtualMachineInstanceSpec:
    """The specification of the template, with what admission fills in of disks: as an instance would have it."""
    raw = instance_of(vm)["spec"]
    raw["architecture"] = vmi.spec.architecture
    default_disks(raw)
    return msgspec.convert(raw, v1.VirtualMachineInstanceSpec)


def _names_of_pluggable(spec: v1.VirtualMachineInstanceSpec) -> set[str]:
    return {volume.name for volume in spec.volumes or () if volume.is_hotpluggable}
