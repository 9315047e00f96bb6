"""Requests to attach and detach volumes: what they make of a machine's template. Pure.

Invariant: a request is over once the template is as it asks, whoever made it so, and one that cannot be carried out is dropped with
a reason, never kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from msgspec import structs
from podvisor_common.api import v1

Request = v1.VirtualMachineVolumeRequest

_SCSI = "scsi"
_BUSES = (_SCSI, "virtio")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What requests come to: the volumes and disks of the template, the requests that are not over yet, and why others are
    not carried out, as sentences. `is_change`: the template is not so yet."""

    volumes: list[v1.Volume]
    disks: list[v1.Disk]
    rest: list[Request]
    refusals: list[str]
    is_change: bool


class _Refused(Exception):
    """The request cannot be carried out. The text says why."""


@dataclass(slots=True)
class _Template:
    volumes: dict[str, v1.Volume]
    disks: dict[str, v1.Disk]

    @classmethod
    def of(cls, spec: v1.VirtualMachineInstanceSpec) -> Self:
        """The one that a specification says."""
        volumes, disks = spec.volumes or (), spec.domain.devices.disks or ()
        return cls({v.name: v for v in volumes}, {d.name: d for d in disks})


def outcome_of(
    spec: v1.VirtualMachineInstanceSpec,
    requests: Sequence[Request],
    *,
    refusal: str = "",
    one_by_one: bool = False,
) -> Outcome:
    """What `requests` make of a template's specification, in their order. `refusal`: the API server takes no such template.

    With `one_by_one` it is the first alone that is looked at, and that one is refused; the others wait for their turn.
    """
    if one_by_one:
        first = outcome_of(spec, requests[:1], refusal=refusal)
        return replace(first, rest=[*first.rest, *requests[1:]])
    volumes, disks = list(spec.volumes or ()), list(spec.domain.devices.disks or ())
    template = _Template.of(spec)
    rest, refusals = [], []
    for request in requests:
        try:
            if _carry_out(request, template):
                rest.append(request)
        except _Refused as refused:
            refusals.append(str(refused))
    made_volumes, made_disks = list(template.volumes.values()), list(template.disks.values())
    # What was detached and attached again stands last, and is the same.
    if template == _Template.of(spec):
        return Outcome(volumes, disks, [], refusals, is_change=False)
    if refusal:
        return Outcome(volumes, disks, [], [*refusals, refusal], is_change=False)
    return Outcome(made_volumes, made_disks, rest, refusals, is_change=True)


def _carry_out(request: Request, template: _Template) -> bool:
    """Change the template. Whether there was anything to carry out: a dry run has been checked where it was asked for."""
    add, remove = request.add_volume_options, request.remove_volume_options
    if add is not None and remove is None:
        if add.dry_run:
            return False
        _add(add, template)
    elif remove is not None and add is None:
        if remove.dry_run:
            return False
        _remove(remove.name, template)
    else:
        raise _Refused("A volume request must have either addVolumeOptions or removeVolumeOptions.")
    return True


def _add(options: v1.AddVolumeOptions, template: _Template) -> None:
    name, title = options.name, f'Volume "{options.name}" is not attached:'
    volume = _volume_of(options, title)
    known = template.volumes.get(name)
    if known is not None:
        if known.is_hotpluggable and known.claim_name == volume.claim_name:
            return
        raise _Refused(f"{title} there is another volume of that name.")
    drive = template.disks.get(name)
    if drive is None:
        template.disks[name] = _disk_of(options, title)
    elif drive.cdrom is None:
        raise _Refused(f"{title} there is a disk of that name.")
    template.volumes[name] = volume


def _remove(name: str, template: _Template) -> None:
    volume, disk = template.volumes.get(name), template.disks.get(name)
    if volume is None:
        return
    if not volume.is_hotpluggable:
        raise _Refused(f'Volume "{name}" is not detached: it is not hotpluggable.')
    del template.volumes[name]
    if disk is not None and disk.cdrom is None:
        del template.disks[name]


def _volume_of(options: v1.AddVolumeOptions, title: str) -> v1.Volume:
    source = options.volume_source or v1.HotplugVolumeSource()
    claim, data_volume = source.persistent_volume_claim, source.data_volume
    if (claim is None) == (data_volume is None):
        text = "volumeSource must be exactly one of persistentVolumeClaim and dataVolume."
        raise _Refused(f"{title} {text}")
    volume = v1.Volume(
        name=options.name,
        persistent_volume_claim=structs.replace(claim, hotpluggable=True)
        if claim is not None
        else None,
        data_volume=structs.replace(data_volume, hotpluggable=True)
        if data_volume is not None
        else None,
    )
    if not volume.claim_name:
        raise _Refused(f"{title} volumeSource names no claim.")
    return volume


def _disk_of(options: v1.AddVolumeOptions, title: str) -> v1.Disk:
    """The disk as it is asked for; on bus scsi, and with the volume's name for a serial number, unless that says otherwise."""
    disk = options.disk or v1.Disk(name=options.name)
    if disk.cdrom is not None:
        raise _Refused(f"{title} the machine has no CD-ROM drive of that name.")
    target = disk.lun or disk.disk or v1.DiskTarget()
    buses = _BUSES if disk.lun is None else (_SCSI,)
    bus = target.bus or _SCSI
    if bus not in buses:
        raise _Refused(f"{title} its disk is on bus {bus}, and must be on {' or '.join(buses)}.")
    disk = structs.replace(disk, name=options.name, serial=disk.serial or options.name)
    if disk.lun is not None:
        return structs.replace(disk, lun=structs.replace(disk.lun, bus=bus))
    return structs.replace(disk, disk=structs.replace(disk.disk or v1.DiskTarget(), bus=bus))
