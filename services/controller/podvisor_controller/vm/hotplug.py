"""What of a machine's template reaches its running guest: volumes that may come and go, and the media of its CD-ROM drives. Pure.

Invariant: nothing else of an instance is ever changed, and what was attached to it alone stays until it is detached from it alone. A name is given to another volume only once the guest has let go of the
one before, for by the name alone launcher and guest could not tell them apart.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec
from msgspec.structs import replace
from podvisor_common.api import v1
from podvisor_common.api.v1 import names

from podvisor_controller.webhooks.defaults import default_disks
from podvisor_controller.webhooks.defaults_instance import instance_of


@dataclass(frozen=True, slots=True)
class Plugged:
    """The volumes and disks that an instance is to have now. `own` are the names of those that are not its machine's; `is_whole`:
    the others are all that its machine's template asks for."""

    volumes: list[v1.Volume]
    disks: list[v1.Disk]
    own: frozenset[str]
    is_whole: bool


def own_volumes(vmi: v1.VirtualMachineInstance) -> frozenset[str]:
    """The names of the volumes that were attached to the instance alone, and are there still."""
    text = vmi.metadata.annotation(names.EPHEMERAL_VOLUMES_ANNOTATION) or "[]"
    try:
        named = msgspec.json.decode(text, type=list[str])
    except msgspec.DecodeError:
        # Not as it is written here: whoever edited it has said of no volume that it is the instance's own.
        named = []
    return _names_of_pluggable(vmi.spec) & frozenset(named)


def own_volumes_annotation(own: Iterable[str]) -> dict[str, str]:
    """The annotation that says so of these; none where there are none."""
    named = sorted(own)
    return (
        {names.EPHEMERAL_VOLUMES_ANNOTATION: msgspec.json.encode(named).decode()} if named else {}
    )


def fixed_part(spec: v1.VirtualMachineInstanceSpec) -> v1.VirtualMachineInstanceSpec:
    """A specification without the volumes that may come and go, and without their disks."""
    may_go = _names_of_pluggable(spec)
    volumes = [volume for volume in spec.volumes or () if not volume.is_hotpluggable]
    devices = spec.domain.devices
    disks = [d for d in devices.disks or () if d.cdrom is not None or d.name not in may_go]
    domain = replace(spec.domain, devices=replace(devices, disks=disks or None))
    return replace(spec, volumes=volumes or None, domain=domain)


def has(vmi: v1.VirtualMachineInstance, plugged: Plugged) -> bool:
    """The instance has those volumes and disks, and says which are its own."""
    disks = vmi.spec.domain.devices.disks
    is_same = (vmi.spec.volumes or []) == plugged.volumes and (disks or []) == plugged.disks
    return is_same and own_volumes(vmi) == plugged.own


def plugged(vm: v1.VirtualMachine, vmi: v1.VirtualMachineInstance) -> Plugged:
    """What the instance of a machine is to have next: less than the template asks for while something has to leave first.

    A volume that is the instance's own becomes the machine's once the template asks for the same one.
    """
    had, wanted = vmi.spec, _wanted(vm, vmi)
    drives = {disk.name: disk for disk in had.domain.devices.disks or ()}
    disks = {disk.name: disk for disk in wanted.domain.devices.disks or ()}
    volumes = {volume.name: volume for volume in wanted.volumes or ()}
    shared = [v for v in had.volumes or () if _stays(v, volumes.get(v.name), drives, disks)]
    own = own_volumes(vmi) - {volume.name for volume in shared}
    kept = [v for v in had.volumes or () if v in shared or v.name in own]
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
    return Plugged([*kept, *added], [*left, *new], own, is_whole=live == added)


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
    named = {volume.name for volume in vmi.spec.volumes or ()}
    held = {e.name for e in vmi.status.volume_status or () if e.hotplug_volume is not None}
    return held - named


def _wanted(vm: v1.VirtualMachine, vmi: v1.VirtualMachineInstance) -> v1.VirtualMachineInstanceSpec:
    """The specification of the template, with what admission fills in of disks: as an instance would have it."""
    raw = instance_of(vm)["spec"]
    raw["architecture"] = vmi.spec.architecture
    default_disks(raw)
    return msgspec.convert(raw, v1.VirtualMachineInstanceSpec)


def _names_of_pluggable(spec: v1.VirtualMachineInstanceSpec) -> frozenset[str]:
    return frozenset(volume.name for volume in spec.volumes or () if volume.is_hotpluggable)
