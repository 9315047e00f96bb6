"""Disks that come and go while the machine runs: where one is put, and how the medium of a drive is changed.

Invariant: pure. A volume that was handed over has a path that nobody opens; it tells such a disk from all others, whoever
started the machine.
"""

from collections.abc import Collection, Iterator
from itertools import count

from podvisor.domain.v1 import domain_pb2 as pb
from podvisor_common.launcher_pod import FD_SETS_DIRECTORY

from podvisor_launcher.domain import disk_elements as xml
from podvisor_launcher.domain.disks import (
    ALIAS_PREFIX,
    BUS_NAMES,
    DiskOptions,
    Image,
    ResolvedDisk,
    build_disk,
    device_letters,
    source_of,
)
from podvisor_launcher.domain.elements import Controller, Domain
from podvisor_launcher.domain.errors import UnbuildableSpec
from podvisor_launcher.domain.pci import bus_of, device_address
from podvisor_launcher.domain.place_elements import Address
from podvisor_launcher.domain.virtio import TRANSITIONAL, is_transitional

HANDED_OVER = "/run/podvisor/handed-over"
# QEMU takes what follows the directory of its sets for the number of one. libvirt knows no such thing and wants the path to exist.
_FIRST_FD_SET = 1000  # libvirt counts its own from 0
_COLD_BUSES = {pb.DISK_BUS_SATA}


def is_handed_over(path: str) -> bool:
    """Whether what is behind a disk was handed over as an open file."""
    return path.startswith((f"{HANDED_OVER}/", f"{FD_SETS_DIRECTORY}/"))


def file_of(disk: str, format_: str, fd_group: str) -> Image:
    """An image that was handed over, and is open by the name `fd_group`."""
    return Image(f"{HANDED_OVER}/{disk}", format_, fd_group=fd_group)


def device_of(live: Domain) -> Image:
    """A block device that was handed over, by a set of open files that no disk has."""
    taken = fd_sets_of(live)
    number = _FIRST_FD_SET
    while number in taken:
        number += 1
    return Image(f"{FD_SETS_DIRECTORY}/{number}", "raw", is_block=True)


def fd_sets_of(live: Domain) -> set[int]:
    """The sets of open files that disks have."""
    begin = f"{FD_SETS_DIRECTORY}/"
    return {int(path.removeprefix(begin)) for path in _paths(live) if path.startswith(begin)}


def missing_controller(disk: pb.DiskSpec, live: Domain) -> Controller | None:
    """What the machine needs before it can have `disk`."""
    has_one = any(each.type == "scsi" for each in live.devices.controllers)
    if disk.bus != pb.DISK_BUS_SCSI or has_one:
        return None
    model = TRANSITIONAL if is_transitional(live) else "virtio-scsi"
    return Controller(type="scsi", index=0, model=model)


def io_thread_for(disk: pb.DiskSpec, live: Domain) -> int | None:
    """The I/O thread of its own that `disk` asks for: one that no other disk has, or the next that the machine does not have
    yet. The machine keeps it when the disk goes."""
    if not disk.dedicated_io_thread:
        return None
    drivers = [each.driver for each in live.devices.disks if each.driver is not None]
    taken = {driver.iothread for driver in drivers}
    taken |= {
        each.id for driver in drivers if driver.iothreads for each in driver.iothreads.threads
    }
    return next(number for number in count(1) if number not in taken)


def has_io_thread(number: int, live: Domain) -> bool:
    """Whether the machine has it: they are numbered from 1, and none is taken away."""
    return number <= (live.io_threads or 0)


def build_plugged(
    disk: pb.DiskSpec, resolved: ResolvedDisk, live: Domain, io_thread: int | None = None
) -> xml.Disk:
    """`disk` at a free place of the running machine; behind which root port, libvirt says. Raises UnbuildableSpec."""
    if disk.bus in _COLD_BUSES:
        raise UnbuildableSpec(
            f'disk "{disk.name}": bus {BUS_NAMES[disk.bus][0]} takes no disks while the machine runs; scsi and virtio do'
        )
    bus, prefix = BUS_NAMES[disk.bus]
    names = {each.target.dev for each in live.devices.disks}
    target = next(name for name in _names(prefix) if name not in names)
    place = xml.DiskTarget(dev=target, bus=bus)
    options = DiskOptions(io_thread=io_thread, transitional=is_transitional(live))
    return build_disk(disk, resolved, place, _address(disk, live), options)


def with_medium(drive: xml.Disk, image: Image | None) -> xml.Disk:
    """The CD-ROM drive with another medium, or none. Of all else libvirt would say that it cannot be changed."""
    known = drive.driver or xml.DiskDriver()
    return xml.Disk(
        type="block" if image is not None and image.is_block else "file",
        device=drive.device,
        driver=xml.DiskDriver(
            name="qemu",
            type=image.format if image is not None else "raw",
            cache=known.cache,
            error_policy=known.error_policy,
            io=known.io,
        ),
        source=source_of(image) if image is not None else None,
        backing_store=xml.BackingStore() if image is not None else None,
        target=xml.DiskTarget(dev=drive.target.dev, bus=drive.target.bus),
        read_only=True,
        shareable=False,
        serial=drive.serial,
        alias=drive.alias,
        address=drive.address,
    )


def disk_named(live: Domain, name: str) -> xml.Disk | None:
    """The disk of that name in the manifest."""
    alias = ALIAS_PREFIX + name
    return next(
        (d for d in live.devices.disks if d.alias is not None and d.alias.name == alias), None
    )


def _paths(live: Domain) -> Iterator[str]:
    for disk in live.devices.disks:
        if disk.source is not None:
            yield disk.source.file or disk.source.dev or ""


def _names(prefix: str) -> Iterator[str]:
    number = 0
    while True:
        yield prefix + device_letters(number)
        number += 1


def _address(disk: pb.DiskSpec, live: Domain) -> Address | None:
    if disk.pci_address:
        return device_address(bus_of(disk.pci_address))
    if disk.bus != pb.DISK_BUS_SCSI:
        return None
    return Address(type="drive", controller="0", bus="0", target="0", unit=_free(_units(live)))


def _units(live: Domain) -> set[str]:
    return {
        each.address.unit or ""
        for each in live.devices.disks
        if each.target.bus == "scsi" and each.address is not None
    }


def _free(taken: Collection[str]) -> str:
    number = 0
    while str(number) in taken:
        number += 1
    return str(number)
