"""Disks of a manifest → DiskSpecs: what the guest takes each for and how the node handles it.

Invariant: pure. Where the content comes from is sources.py's.
"""

from collections.abc import Iterator
from typing import TypeVar

from podvisor.domain.v1 import domain_pb2
from podvisor_common.api import core, v1

from podvisor_handler.vmi.errors import SpecRefused
from podvisor_handler.vmi.sources import Facts, facts_of, set_source

_T = TypeVar("_T")

_FIELD = "spec.domain.devices.disks"
_BUSES = {
    "virtio": domain_pb2.DISK_BUS_VIRTIO,
    "sata": domain_pb2.DISK_BUS_SATA,
    "scsi": domain_pb2.DISK_BUS_SCSI,
    "usb": domain_pb2.DISK_BUS_USB,
}
_DEFAULT_BUS = "sata"
_CACHES = {
    "": domain_pb2.DISK_CACHE_UNSPECIFIED,
    "none": domain_pb2.DISK_CACHE_NONE,
    "writethrough": domain_pb2.DISK_CACHE_WRITETHROUGH,
    "writeback": domain_pb2.DISK_CACHE_WRITEBACK,
}
_IO = {
    "": domain_pb2.DISK_IO_UNSPECIFIED,
    "native": domain_pb2.DISK_IO_NATIVE,
    "threads": domain_pb2.DISK_IO_THREADS,
}
_ERROR_POLICIES = {
    "": domain_pb2.DISK_ERROR_POLICY_UNSPECIFIED,
    "stop": domain_pb2.DISK_ERROR_POLICY_STOP,
    "ignore": domain_pb2.DISK_ERROR_POLICY_IGNORE,
    "report": domain_pb2.DISK_ERROR_POLICY_REPORT,
    "enospace": domain_pb2.DISK_ERROR_POLICY_ENOSPACE,
}
_BLOCK_SIZE_LIMIT_BYTES = 1 << 31


def build_disks(vmi: v1.VirtualMachineInstance, pod: core.Pod) -> list[domain_pb2.DiskSpec]:
    """The block devices in the manifest's order. Raises SpecRefused.

    One that may come and go and cannot be had is left out: the machine does without it, as refused_disks() tells.
    """
    disks, may_go = [], _hotpluggable_claims(vmi)
    for name, disk in _each_disk(vmi, pod):
        if isinstance(disk, domain_pb2.DiskSpec):
            disks.append(disk)
        elif name not in may_go:
            raise disk
    return disks


def refused_disks(vmi: v1.VirtualMachineInstance, pod: core.Pod) -> dict[str, str]:
    """Why disks that may come and go are no part of the machine, by their names."""
    wanted = hotpluggable_volumes(vmi)
    return {
        name: str(disk)
        for name, disk in (_each_disk(vmi, pod) if wanted else ())
        if isinstance(disk, SpecRefused) and name in wanted
    }


def hotpluggable_volumes(vmi: v1.VirtualMachineInstance) -> list[str]:
    """The volumes that may come and go and are wanted, each held by a pod of its own."""
    leaving = leaving_volumes(vmi)
    return [name for name in _hotpluggable_claims(vmi) if name not in leaving]


def leaving_volumes(vmi: v1.VirtualMachineInstance) -> list[str]:
    """The volumes that are not in the manifest any more, or there with another claim, while the controller says that a pod
    holds them still."""
    wanted = _hotpluggable_claims(vmi)
    found = []
    for volume in vmi.status.volume_status or ():
        info, claim = volume.persistent_volume_claim_info, wanted.get(volume.name)
        if volume.hotplug_volume is None:
            continue
        if claim is None or (info is not None and info.claim_name != claim):
            found.append(volume.name)
    return found


def _hotpluggable_claims(vmi: v1.VirtualMachineInstance) -> dict[str, str]:
    return {v.name: v.claim_name for v in vmi.spec.volumes or () if v.is_hotpluggable}


def _each_disk(
    vmi: v1.VirtualMachineInstance, pod: core.Pod
) -> Iterator[tuple[str, domain_pb2.DiskSpec | SpecRefused]]:
    facts = facts_of(vmi, pod)
    volumes = {volume.name: volume for volume in vmi.spec.volumes or ()}
    leaving = leaving_volumes(vmi)
    for disk in vmi.spec.domain.devices.disks or ():
        if disk.name in leaving and volumes.pop(disk.name, None) is not None and disk.cdrom is None:
            continue  # until the guest has let go of what it had by that name; a drive is empty meanwhile
        try:
            yield disk.name, _disk(disk, volumes.get(disk.name), facts)
        except SpecRefused as error:
            yield disk.name, error


def _disk(disk: v1.Disk, volume: v1.Volume | None, facts: Facts) -> domain_pb2.DiskSpec:
    if volume is None and disk.cdrom is None:
        raise SpecRefused(f"spec.volumes: there is no volume for the disk {disk.name!r}")
    spec = _device(disk)
    if volume is not None:
        spec.hotpluggable = volume.is_hotpluggable
        set_source(spec, volume, facts)
    if spec.device == domain_pb2.DISK_DEVICE_LUN and not _is_block_device(spec):
        raise SpecRefused(f"{_FIELD}: disk {disk.name!r} is a lun, which needs a block volume")
    return spec


def _device(disk: v1.Disk) -> domain_pb2.DiskSpec:
    spec = domain_pb2.DiskSpec(
        name=disk.name,
        boot_order=disk.boot_order or 0,
        serial=disk.serial,
        cache=_known(_CACHES, "cache", disk, disk.cache),
        io=_known(_IO, "io", disk, disk.io),
        error_policy=_known(_ERROR_POLICIES, "errorPolicy", disk, disk.error_policy),
        shareable=disk.shareable is True,
        dedicated_io_thread=disk.dedicated_io_thread is True,
    )
    bus = _set_target(spec, disk)
    spec.bus = _known(_BUSES, "bus", disk, bus)
    if disk.block_size is not None:
        _set_block_size(spec, disk, disk.block_size)
    return spec


def _set_target(spec: domain_pb2.DiskSpec, disk: v1.Disk) -> str:
    """Sets what the guest takes the device for. Returns the bus."""
    if disk.cdrom is not None:
        spec.device = domain_pb2.DISK_DEVICE_CDROM
        spec.read_only = True  # a drive writes nothing, whatever `readonly` says
        spec.tray_open = disk.cdrom.tray == "open"
        return disk.cdrom.bus or _DEFAULT_BUS
    if disk.lun is not None:
        spec.device = domain_pb2.DISK_DEVICE_LUN
        spec.read_only = disk.lun.readonly
        return disk.lun.bus or "scsi"
    target = disk.disk or v1.DiskTarget()
    spec.device = domain_pb2.DISK_DEVICE_DISK
    spec.read_only = target.readonly
    spec.pci_address = target.pci_address
    return target.bus or _DEFAULT_BUS


def _set_block_size(spec: domain_pb2.DiskSpec, disk: v1.Disk, size: v1.BlockSize) -> None:
    if size.match_volume is not None:
        spec.match_volume_block_sizes = size.match_volume.enabled is not False
    if size.custom is None:
        return
    given = (size.custom.logical, size.custom.physical, size.custom.discard_granularity or 0)
    if not all(0 <= each < _BLOCK_SIZE_LIMIT_BYTES for each in given):
        raise SpecRefused(f"{_FIELD}: disk {disk.name!r} has a blockSize that no disk has")
    spec.block_sizes.logical_bytes = given[0]
    spec.block_sizes.physical_bytes = given[1]
    spec.block_sizes.discard_granularity_bytes = given[2]


def _known(values: dict[str, _T], field: str, disk: v1.Disk, given: str) -> _T:
    if given not in values:
        raise SpecRefused(f"{_FIELD}: disk {disk.name!r} has an unknown {field} {given!r}")
    return values[given]


def _is_block_device(spec: domain_pb2.DiskSpec) -> bool:
    return spec.HasField("volume") and not spec.volume.file and not spec.volume.ephemeral
