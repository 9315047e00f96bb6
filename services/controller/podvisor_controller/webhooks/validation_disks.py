"""What is wrong with a machine's disks, and with the order it boots from. Pure."""

from collections import Counter
from collections.abc import Iterator

from podvisor_common import pci_addresses
from podvisor_common.api import v1
from podvisor_common.api.unsupported import DISK_TARGETS

from podvisor_controller.webhooks.disk_buses import default_bus
from podvisor_controller.webhooks.validation_disk_options import option_causes
from podvisor_controller.webhooks.validation_fields import (
    LABEL_RULE,
    Cause,
    CauseReason,
    invalid,
    is_dns_label,
    quoted,
    raw_at,
)

_BUSES = ("virtio", "sata", "scsi", "usb")
_NO_BUSES = {"arm64": ("sata",)}
_HOTPLUG_BUSES = ("scsi", "virtio")
# What the emulator counts with.
_MOST_BOOT_ORDER = 2**31 - 1
# What the one SATA controller has, and what there are slots for besides controllers and interfaces.
_MOST_DISKS = {"sata": 6, "virtio": 100}

Target = v1.DiskTarget | v1.CDRomTarget | v1.LunTarget


def disk_causes(
    spec: v1.VirtualMachineInstanceSpec, raw: dict[str, object], path: str
) -> Iterator[Cause]:
    """Checks `domain.devices.disks`, each for itself, against the volumes and against one another."""
    volumes = {volume.name: volume for volume in spec.volumes or ()}
    first_use: dict[str, int] = {}
    addresses: dict[str, str] = {}
    buses: Counter[str] = Counter()
    base = f"{path}.domain.devices.disks"
    for index, disk in enumerate(spec.domain.devices.disks or ()):
        field = f"{base}[{index}]"
        if disk.name in first_use:
            other = f"{base}[{first_use[disk.name]}]"
            message = f"{other} and {field} must not have the same Name ({quoted(disk.name)})."
            yield Cause(f"{field}.name", message, CauseReason.DUPLICATE)
            continue
        first_use[disk.name] = index
        volume = volumes.get(disk.name)
        name, target = _target_of(disk)
        bus = target.bus or default_bus(
            name, spec.architecture, hotpluggable=volume is not None and volume.is_hotpluggable
        )
        buses[bus] += 1
        yield from _name_causes(disk, volume, field)
        yield from _target_causes(raw_at(raw, "domain", "devices", "disks", index), field)
        yield from _bus_causes(name, target, spec.architecture, f"{field}.{name}")
        yield from _volume_causes(name, bus, volume, f"{field}.{name}")
        yield from _address_causes(disk, bus, addresses, field)
        yield from option_causes(disk, bus, field)
    for bus, most in _MOST_DISKS.items():
        if buses[bus] > most:
            yield invalid(base, f"has {buses[bus]} disks on bus {bus}, which takes {most}.")


def empty_drive_causes(spec: v1.VirtualMachineInstanceSpec, path: str) -> Iterator[Cause]:
    """CD-ROM drives without a volume: in v1alpha1 every disk names one, so that the name is wrong where there is none."""
    volumes = {volume.name for volume in spec.volumes or ()}
    for index, disk in enumerate(spec.domain.devices.disks or ()):
        if disk.cdrom is not None and disk.name not in volumes:
            yield _not_found(disk, f"{path}.domain.devices.disks[{index}]")


def _target_of(disk: v1.Disk) -> tuple[str, Target]:
    """How the disk is attached. A disk that does not say it is a hard disk."""
    if disk.disk is not None:
        return "disk", disk.disk
    if disk.cdrom is not None:
        return "cdrom", disk.cdrom
    if disk.lun is not None:
        return "lun", disk.lun
    return "disk", v1.DiskTarget()


def _name_causes(disk: v1.Disk, volume: v1.Volume | None, field: str) -> Iterator[Cause]:
    """The name is one, and there is a volume of it. A CD-ROM drive may be empty."""
    if not is_dns_label(disk.name):
        yield invalid(f"{field}.name", f"{quoted(disk.name)}: {LABEL_RULE}.")
    elif volume is None and disk.cdrom is None:
        yield _not_found(disk, field)


def _not_found(disk: v1.Disk, field: str) -> Cause:
    text = f"{quoted(disk.name)} not found: there is no volume of that name."
    return invalid(f"{field}.name", text, CauseReason.NOT_FOUND)


def _target_causes(raw: dict[str, object], field: str) -> Iterator[Cause]:
    targets = [name for name in DISK_TARGETS if raw.get(name) is not None]
    if len(targets) > 1:
        yield invalid(field, f"must have only a single target, not {' and '.join(targets)}.")


def _bus_causes(name: str, target: Target, architecture: str, field: str) -> Iterator[Cause]:
    """The bus is one that such a device can be on; none is always good."""
    bus = target.bus
    if not bus:
        return
    if bus == "ide":
        yield invalid(f"{field}.bus", "is ide: IDE bus is not supported")
    elif bus not in _BUSES:
        yield invalid(
            f"{field}.bus",
            f"is set with an unrecognized bus {quoted(bus)}, must be one of: {', '.join(_BUSES)}",
            CauseReason.NOT_SUPPORTED,
        )
    elif bus in _NO_BUSES.get(architecture, ()):
        text = f"is {bus}, which machines of architecture {architecture} do not have"
        yield invalid(f"{field}.bus", text, CauseReason.NOT_SUPPORTED)
    elif name == "cdrom" and bus == "virtio":
        yield invalid(f"{field}.bus", "is virtio, which is invalid for a CD-ROM drive")
    elif name == "lun" and bus != "scsi":
        yield invalid(f"{field}.bus", f"is {bus}, which is invalid for a lun: it must be scsi")
    elif name == "disk" and bus == "sata" and target.readonly:
        yield invalid(f"{field}.readonly", "is true: hard disks on bus sata cannot be read-only")


def _volume_causes(name: str, bus: str, volume: v1.Volume | None, field: str) -> Iterator[Cause]:
    """The device can have that volume behind it."""
    if volume is None:
        return
    is_claim = volume.persistent_volume_claim is not None or volume.data_volume is not None
    if name == "lun" and not is_claim:
        text = "can only be mapped to a DataVolume or PersistentVolumeClaim volume."
        yield invalid(field, text)
    if name == "disk" and volume.is_hotpluggable and bus in _BUSES and bus not in _HOTPLUG_BUSES:
        text = f"is {bus}: a disk with a hotpluggable volume must be on bus {' or '.join(_HOTPLUG_BUSES)}"
        yield invalid(f"{field}.bus", text)


def _address_causes(
    disk: v1.Disk, bus: str, first_use: dict[str, str], field: str
) -> Iterator[Cause]:
    """The PCI address is well formed, the disk on virtio, and no other disk there. `first_use` gets to know it."""
    address = disk.disk.pci_address if disk.disk is not None else ""
    if not address:
        return
    field = f"{field}.disk.pciAddress"
    other = first_use.setdefault(address.lower(), field)
    if pci_addresses.bus_of(address) is None:
        yield invalid(field, f"{quoted(address)} cannot be had: it must be {pci_addresses.RANGE}.")
    elif bus != "virtio":
        yield invalid(field, f"can be given to disks on bus virtio only, not on {bus}.")
    elif other != field:
        yield invalid(field, f"{quoted(address)} is that of {other}.", CauseReason.DUPLICATE)


def boot_order_causes(spec: v1.VirtualMachineInstanceSpec, path: str) -> Iterator[Cause]:
    """Boot orders are positive and unique among disks and interfaces."""
    devices = spec.domain.devices
    places = [
        (f"{path}.domain.devices.disks[{i}]", d.boot_order)
        for i, d in enumerate(devices.disks or ())
    ]
    places += [
        (f"{path}.domain.devices.interfaces[{i}]", n.boot_order)
        for i, n in enumerate(devices.interfaces or ())
    ]
    first_use: dict[int, str] = {}
    for field, order in places:
        if order is None:
            continue
        if order < 1:
            yield invalid(f"{field}.bootOrder", "must have a boot order > 0, if supplied")
        elif order > _MOST_BOOT_ORDER:
            text = f"{order} must be less than or equal to {_MOST_BOOT_ORDER}."
            yield invalid(f"{field}.bootOrder", text)
        elif order in first_use:
            text = f"{order} is already set for {first_use[order]}."
            yield invalid(f"{field}.bootOrder", text, CauseReason.DUPLICATE)
        else:
            first_use[order] = field
