"""What a new specification changes about a machine that runs already."""

from podvisor.domain.v1 import domain_pb2 as pb

from podvisor_launcher.domain.disks import comes_and_goes, fixed_disks

# Fields that take effect without a restart, or describe the request rather than the machine.
_LIVE = {"generation", "grace_period_s"}
_LIVE_INTERFACE = ("dhcp", "dhcpv6", "link_down")
# What a volume has may grow, and the rest matters only where an image is made.
_LIVE_VOLUME = ("capacity_bytes", "create", "tolerated_shortfall_percent", "reserve_bytes")
# Read by the guest from an image made before its start; a new value waits for the next one.
_OF_MEDIUM = ("volume", "hotpluggable", "read_only")


def restart_required(running: pb.DomainSpec, wanted: pb.DomainSpec) -> list[str]:
    """Paths of the fields that differ and take effect only with the next start, in the order of their declaration.
    Holds names of fields, disks and interfaces, never a value."""
    paths = []
    for field in pb.DomainSpec.DESCRIPTOR.fields:
        if field.name in _LIVE:
            continue
        old, new = getattr(running, field.name), getattr(wanted, field.name)
        if field.name == "disks":
            paths += _changed_devices(field.name, fixed_disks(running), fixed_disks(wanted))
        elif field.name == "interfaces":
            paths += _changed_interfaces(running, wanted)
        elif old != new:
            paths.append(field.name)
    return paths


def _changed_interfaces(running: pb.DomainSpec, wanted: pb.DomainSpec) -> list[str]:
    """One that may come and go counts only where it stays."""
    before, after = ({each.name for each in spec.interfaces} for spec in (running, wanted))
    old = [each for each in running.interfaces if not each.is_pluggable or each.name in after]
    new = [each for each in wanted.interfaces if not each.is_pluggable or each.name in before]
    return _changed_devices("interfaces", old, new)


def _changed_devices(
    field: str,
    old: list[pb.DiskSpec] | list[pb.InterfaceSpec],
    new: list[pb.DiskSpec] | list[pb.InterfaceSpec],
) -> list[str]:
    before, after = ({each.name: _fixed_part(each) for each in devices} for devices in (old, new))
    names = [*before, *(name for name in after if name not in before)]
    changed = [name for name in names if before.get(name) != after.get(name)]
    if not changed and list(before) != list(after):
        return [field]  # the same devices in another order
    return [f"{field}[{name}]" for name in changed]


def _fixed_part(device: pb.DiskSpec | pb.InterfaceSpec) -> pb.DiskSpec | pb.InterfaceSpec:
    if isinstance(device, pb.DiskSpec):
        return _fixed_part_of_disk(device)
    copy = pb.InterfaceSpec()
    copy.CopyFrom(device)
    for name in _LIVE_INTERFACE:
        copy.ClearField(name)  # type: ignore[arg-type]
    return copy


def _fixed_part_of_disk(disk: pb.DiskSpec) -> pb.DiskSpec:
    copy = pb.DiskSpec()
    copy.CopyFrom(disk)
    if _takes_media(disk):
        for field in _OF_MEDIUM:
            copy.ClearField(field)  # type: ignore[arg-type]
        return copy
    # What is told of other devices is read once, when the guest is new.
    if disk.HasField("cloud_init"):
        copy.cloud_init.ClearField("tagged_devices")
    if not disk.HasField("volume"):
        return copy
    for name in _LIVE_VOLUME:
        copy.volume.ClearField(name)  # type: ignore[arg-type]
    return copy


def _takes_media(disk: pb.DiskSpec) -> bool:
    """Whether the disk is a CD-ROM drive that is empty, or has a medium that came while the guest ran."""
    is_empty = disk.WhichOneof("source") is None
    return disk.device == pb.DISK_DEVICE_CDROM and (is_empty or disk.volume.handed_over)


def adopt_live_fields(running: pb.DomainSpec, wanted: pb.DomainSpec) -> pb.DomainSpec:
    """The specification of the running machine with all of `wanted` that takes effect at once."""
    adopted = pb.DomainSpec()
    adopted.CopyFrom(running)
    adopted.generation = wanted.generation
    adopted.grace_period_s = wanted.grace_period_s
    _adopt_interfaces(adopted, running, wanted)
    _adopt_disks(adopted, running, wanted)
    return adopted


def _adopt_interfaces(
    adopted: pb.DomainSpec, running: pb.DomainSpec, wanted: pb.DomainSpec
) -> None:
    del adopted.interfaces[:]
    named = {each.name: each for each in wanted.interfaces}
    for interface in running.interfaces:
        other = named.pop(interface.name, None)
        if other is None and interface.is_pluggable:
            continue
        kept = adopted.interfaces.add()
        kept.CopyFrom(interface)
        _adopt_leases(kept, other or pb.InterfaceSpec())
        if other is not None:
            kept.link_down = other.link_down
    adopted.interfaces.extend(each for each in named.values() if each.is_pluggable)


def _adopt_leases(interface: pb.InterfaceSpec, other: pb.InterfaceSpec) -> None:
    interface.ClearField("dhcp")
    interface.ClearField("dhcpv6")
    if other.HasField("dhcp"):
        interface.dhcp.CopyFrom(other.dhcp)
    if other.HasField("dhcpv6"):
        interface.dhcpv6.CopyFrom(other.dhcpv6)


def _adopt_disks(adopted: pb.DomainSpec, running: pb.DomainSpec, wanted: pb.DomainSpec) -> None:
    del adopted.disks[:]
    adopted.disks.extend(fixed_disks(running))
    named = {each.name: each for each in wanted.disks}
    volumes = {each.name: each.volume for each in wanted.disks if each.HasField("volume")}
    for disk in adopted.disks:
        other = named.get(disk.name)
        if other is not None and _takes_media(disk) and _takes_media(other):
            for field in _OF_MEDIUM:
                disk.ClearField(field)  # type: ignore[arg-type]
                if field != "volume":
                    setattr(disk, field, getattr(other, field))
            if other.HasField("volume"):
                disk.volume.CopyFrom(other.volume)
            continue
        volume = volumes.get(disk.name)
        # Another volume by the same name waits for the next start, and so does its size.
        if volume is None or (volume.path, volume.file) != (disk.volume.path, disk.volume.file):
            continue
        for name in _LIVE_VOLUME:
            setattr(disk.volume, name, getattr(volume, name))
    known = {disk.name for disk in adopted.disks}
    adopted.disks.extend(
        disk for disk in wanted.disks if comes_and_goes(disk) and disk.name not in known
    )
