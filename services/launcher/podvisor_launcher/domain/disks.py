"""The disks of a machine: bus, name, address, and how QEMU handles what is behind them.

Invariants: QEMU guesses no format, and no chain of images is read out of an image. What libvirt or QEMU would refuse is
refused here, by a sentence that names the disk.
"""

import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from podvisor.domain.v1 import domain_pb2 as pb

from podvisor_launcher.domain import disk_elements as xml
from podvisor_launcher.domain.errors import UnbuildableSpec
from podvisor_launcher.domain.pci import PciBus, bus_of, device_address
from podvisor_launcher.domain.place_elements import Address, Alias, Boot
from podvisor_launcher.domain.virtio import TRANSITIONAL

# libvirt keeps aliases that begin like this; what follows is the device's name in the manifest.
ALIAS_PREFIX = "ua-"
_SATA_PORTS = 6

BUS_NAMES = {
    pb.DISK_BUS_VIRTIO: ("virtio", "vd"),
    pb.DISK_BUS_SATA: ("sata", "sd"),
    pb.DISK_BUS_SCSI: ("scsi", "sd"),
    pb.DISK_BUS_USB: ("usb", "sd"),
}
_DEVICES = {
    pb.DISK_DEVICE_DISK: "disk",
    pb.DISK_DEVICE_CDROM: "cdrom",
    pb.DISK_DEVICE_LUN: "lun",
}
_CACHES = {
    pb.DISK_CACHE_NONE: "none",
    pb.DISK_CACHE_WRITETHROUGH: "writethrough",
    pb.DISK_CACHE_WRITEBACK: "writeback",
}
_IO_MODES = {pb.DISK_IO_NATIVE: "native", pb.DISK_IO_THREADS: "threads"}
# Of reads as of writes; but libvirt knows `enospace` of writes alone, and the guest is told of every error of a read.
_ERROR_POLICIES = {
    pb.DISK_ERROR_POLICY_UNSPECIFIED: "stop",
    pb.DISK_ERROR_POLICY_STOP: "stop",
    pb.DISK_ERROR_POLICY_IGNORE: "ignore",
    pb.DISK_ERROR_POLICY_REPORT: "report",
    pb.DISK_ERROR_POLICY_ENOSPACE: "enospace",
}
_MAY_HOLD_A_SYSTEM = {"container_disk", "volume"}
_MADE_BY_THE_LAUNCHER = {"cloud_init", "files"}


@dataclass(frozen=True, slots=True)
class Image:
    """A file or block device and what is in it."""

    path: str
    format: str
    is_block: bool = False
    fd_group: str = ""  # the file is open by that name, and its path is for people


@dataclass(frozen=True, slots=True)
class ResolvedDisk:
    """The file behind a disk of the specification."""

    image: Image
    backing: Image | None = None  # the image below, when `image` is an overlay
    read_only: bool = False
    direct: bool = False  # it can be opened past the node's page cache
    logical_block_bytes: int = 0  # of what is behind it, where the guest shall see that
    physical_block_bytes: int = 0


@dataclass(frozen=True, slots=True)
class DiskOptions:
    """How a disk is handled beside what it says itself."""

    boot_order: int | None = None
    io_thread: int | None = None  # the number of the one that handles its requests
    io_pool: int = 0  # so many, from the first on, handle them
    queues: int | None = None
    transitional: bool = False


_NO_OPTIONS = DiskOptions()


def has_changing_volume(disk: pb.DiskSpec) -> bool:
    """Whether what is behind the disk comes when the machine runs, and may go."""
    return disk.hotpluggable or disk.volume.handed_over


def comes_and_goes(disk: pb.DiskSpec) -> bool:
    """Whether the disk itself does. A CD-ROM drive never does: what comes and goes is the medium."""
    return not _is_cdrom(disk) and has_changing_volume(disk)


def fixed_disks(spec: pb.DomainSpec) -> list[pb.DiskSpec]:
    """The disks that the machine starts with."""
    return [disk for disk in spec.disks if not comes_and_goes(disk)]


def io_threads(spec: pb.DomainSpec) -> int:
    """How many I/O threads the machine starts with: those that disks share, and after them one for every disk that asks for its
    own."""
    own = sum(disk.dedicated_io_thread for disk in fixed_disks(spec))
    return spec.io_threads.shared + spec.io_threads.pool + own


def check_disk(disk: pb.DiskSpec) -> None:
    """Raise UnbuildableSpec when no machine can ever have `disk`, whatever is behind it."""
    for is_wrong, words in (
        (disk.bus not in BUS_NAMES, "unknown bus"),
        (disk.device not in _DEVICES, "unknown device"),
        (_is_cdrom(disk) and _is_virtio(disk), "a CD-ROM drive cannot be on bus virtio"),
        (_is_lun(disk) and disk.bus != pb.DISK_BUS_SCSI, "a LUN can be on bus scsi only"),
        (_is_lun(disk) and _is_a_file(disk), "a LUN needs a block device, this is a file"),
        (disk.WhichOneof("source") is None and not _is_cdrom(disk), "no source that is known here"),
        (bool(disk.pci_address) and not _is_virtio(disk), "only bus virtio has PCI addresses"),
        (
            disk.dedicated_io_thread and not _is_virtio(disk),
            "only bus virtio has I/O threads for a disk alone",
        ),
    ):
        if is_wrong:
            raise UnbuildableSpec(f'disk "{disk.name}": {words}')


def build_disks(
    spec: pb.DomainSpec, disks: Mapping[str, ResolvedDisk], bus: PciBus
) -> tuple[xml.Disk, ...]:
    """The disks that the machine starts with; a CD-ROM drive without an entry in `disks` is empty. Raises
    UnbuildableSpec and TooManyDevices."""
    boot = _boot_orders(spec)
    used: dict[str, int] = {}  # devices so far, by prefix of their names
    units: dict[str, int] = {}  # devices so far, by bus
    threads = _Threads(spec)
    vcpus = spec.cpu.sockets * spec.cpu.cores * spec.cpu.threads
    built = []
    for disk in fixed_disks(spec):
        bus_name, prefix = BUS_NAMES[disk.bus]
        number = used[prefix] = used.get(prefix, -1) + 1
        unit = units[bus_name] = units.get(bus_name, -1) + 1
        if bus_name == "sata" and unit >= _SATA_PORTS:
            raise UnbuildableSpec(f'disk "{disk.name}": bus sata has only {_SATA_PORTS} ports')
        target = xml.DiskTarget(
            dev=prefix + device_letters(number),
            bus=bus_name,
            tray="open" if disk.tray_open and _is_cdrom(disk) else None,
        )
        built.append(
            build_disk(
                disk,
                disks.get(disk.name) if _is_cdrom(disk) else disks[disk.name],
                target,
                _address(disk, unit, bus),
                DiskOptions(
                    boot_order=boot.get(disk.name),
                    io_thread=threads.next_for(disk),
                    io_pool=threads.pool_for(disk),
                    queues=vcpus if spec.block_multi_queue and _is_virtio(disk) else None,
                    transitional=spec.virtio_transitional,
                ),
            )
        )
    return tuple(built)


class _Threads:
    """Numbers of I/O threads, given out in the order of disks."""

    def __init__(self, spec: pb.DomainSpec) -> None:
        self._shared, self._pool = spec.io_threads.shared, spec.io_threads.pool
        self._sharers = 0
        self._own = self._shared + self._pool

    def next_for(self, disk: pb.DiskSpec) -> int | None:
        """The one thread of a disk."""
        if disk.dedicated_io_thread:
            self._own += 1
            return self._own
        if not self._shared or not _is_virtio(disk):
            return None
        self._sharers += 1
        return (self._sharers - 1) % self._shared + 1

    def pool_for(self, disk: pb.DiskSpec) -> int:
        """How many threads a disk has all of."""
        return self._pool if _is_virtio(disk) and not disk.dedicated_io_thread else 0


def build_disk(
    disk: pb.DiskSpec,
    resolved: ResolvedDisk | None,
    target: xml.DiskTarget,
    address: Address | None,
    options: DiskOptions = _NO_OPTIONS,
) -> xml.Disk:
    """One disk at its place; `resolved` is None for an empty CD-ROM drive. Raises UnbuildableSpec."""
    image = resolved.image if resolved is not None else None
    if _is_lun(disk) and (image is None or not image.is_block):
        raise UnbuildableSpec(f'disk "{disk.name}": a LUN needs a block device, this is a file')
    read_only = resolved is None or _is_read_only(disk, resolved)
    return xml.Disk(
        type=_type_of(image),
        device=_DEVICES[disk.device],
        model=TRANSITIONAL if options.transitional and _is_virtio(disk) else None,
        driver=_driver(disk, resolved, options, read_only=read_only),
        source=source_of(image) if image is not None else None,
        backing_store=_backing_store(resolved.backing) if resolved is not None else None,
        block_io=_block_io(disk, resolved),
        target=target,
        read_only=read_only,
        shareable=_is_shared(disk, read_only),
        # A LUN answers for itself.
        serial=None if _is_lun(disk) else disk.serial or None,
        boot=Boot(order=options.boot_order) if options.boot_order else None,
        alias=Alias(name=ALIAS_PREFIX + disk.name),
        address=address,
    )


def _driver(
    disk: pb.DiskSpec, resolved: ResolvedDisk | None, options: DiskOptions, *, read_only: bool
) -> xml.DiskDriver:
    policy = _ERROR_POLICIES[disk.error_policy]
    if resolved is None:
        return xml.DiskDriver(name="qemu", type="raw", error_policy=policy)
    if _is_shared(disk, read_only) and resolved.image.format != "raw":
        raise UnbuildableSpec(f'disk "{disk.name}": only raw images can be shareable')
    cache = _cache(disk, resolved, read_only=read_only)
    return xml.DiskDriver(
        name="qemu",
        type=resolved.image.format,
        cache=cache,
        error_policy=policy,
        io=_io(disk, resolved, cache),
        iothread=options.io_thread,
        queues=options.queues,
        discard=None if read_only else "unmap",
        iothreads=_pool(options.io_pool),
    )


def _pool(threads: int) -> xml.DiskIoThreads | None:
    numbers = tuple(xml.DiskIoThread(id=number) for number in range(1, threads + 1))
    return xml.DiskIoThreads(threads=numbers) if numbers else None


def _cache(disk: pb.DiskSpec, resolved: ResolvedDisk, *, read_only: bool) -> str | None:
    cache = _CACHES.get(disk.cache) or _default_cache(disk, resolved, read_only=read_only)
    if _is_shared(disk, read_only) and cache != "none":
        # What one machine writes would not be seen by the other.
        raise UnbuildableSpec(f'disk "{disk.name}": a shareable disk needs cache "none"')
    if cache == "none" and not resolved.direct:
        raise UnbuildableSpec(
            f'disk "{disk.name}": cache "none" needs direct I/O, which its file system does not do'
        )
    return cache


def _default_cache(disk: pb.DiskSpec, resolved: ResolvedDisk, *, read_only: bool) -> str | None:
    source = disk.WhichOneof("source")
    if resolved.backing is not None or source == "empty":
        # It lives no longer than its pod, and a pod does not survive its node: flushing it buys nothing.
        return "unsafe"
    if _is_shared(disk, read_only):
        return "none"
    if source == "volume":
        return "none" if resolved.direct else "writethrough"
    return None  # only read: the machines of a node share what its page cache holds


def _io(disk: pb.DiskSpec, resolved: ResolvedDisk, cache: str | None) -> str | None:
    asked = _IO_MODES.get(disk.io)
    if asked == "native" and cache != "none":
        raise UnbuildableSpec(f'disk "{disk.name}": I/O mode "native" needs cache "none"')
    if asked is None and cache == "none" and resolved.image.is_block:
        return "native"  # in a file it would block wherever space has to be allocated
    return asked


def _block_io(disk: pb.DiskSpec, resolved: ResolvedDisk | None) -> xml.BlockIo | None:
    if _is_lun(disk):
        return None
    if disk.HasField("block_sizes"):
        sizes = disk.block_sizes
        return xml.BlockIo(
            logical_block_size=sizes.logical_bytes or None,
            physical_block_size=sizes.physical_bytes or None,
            discard_granularity=sizes.discard_granularity_bytes or None,
        )
    if resolved is None or not resolved.logical_block_bytes:
        return None
    return xml.BlockIo(
        logical_block_size=resolved.logical_block_bytes,
        physical_block_size=resolved.physical_block_bytes or None,
    )


def _is_read_only(disk: pb.DiskSpec, resolved: ResolvedDisk) -> bool:
    if _is_cdrom(disk) or not resolved.read_only:
        return _is_cdrom(disk)
    if disk.bus != pb.DISK_BUS_SATA:
        return True
    if disk.WhichOneof("source") in _MADE_BY_THE_LAUNCHER:
        return False  # SATA has no hard disks that are read-only, and the image is this machine's alone
    raise UnbuildableSpec(f'disk "{disk.name}": a hard disk on bus sata cannot be read-only')


def _is_shared(disk: pb.DiskSpec, read_only: bool) -> bool:
    return disk.shareable and not read_only


def _is_cdrom(disk: pb.DiskSpec) -> bool:
    return disk.device == pb.DISK_DEVICE_CDROM


def _is_lun(disk: pb.DiskSpec) -> bool:
    return disk.device == pb.DISK_DEVICE_LUN


def _is_virtio(disk: pb.DiskSpec) -> bool:
    return disk.bus == pb.DISK_BUS_VIRTIO


def _is_a_file(disk: pb.DiskSpec) -> bool:
    """Whether the specification alone says so."""
    source = disk.WhichOneof("source")
    return source is not None and (
        source != "volume" or bool(disk.volume.file) or disk.volume.ephemeral
    )


def _type_of(image: Image | None) -> str:
    return "block" if image is not None and image.is_block else "file"


def source_of(image: Image) -> xml.DiskSource:
    if image.is_block:
        return xml.DiskSource(dev=image.path)
    return xml.DiskSource(file=image.path, fdgroup=image.fd_group or None)


def _backing_store(backing: Image | None) -> xml.BackingStore:
    """The chain is declared to its end, so that neither libvirt nor QEMU reads it out of an image."""
    if backing is None:
        return xml.BackingStore()
    return xml.BackingStore(
        type=_type_of(backing),
        format=xml.ImageFormat(type=backing.format),
        source=source_of(backing),
        end=xml.BackingStoreEnd(),
    )


def _boot_orders(spec: pb.DomainSpec) -> dict[str, int]:
    """What the specification says; where it says nothing at all, the first disk that can hold a system."""
    orders = {each.name: each.boot_order for each in spec.disks if each.boot_order}
    if orders or any(each.boot_order for each in spec.interfaces):
        return orders
    bootable: Iterable[str] = (
        each.name for each in fixed_disks(spec) if each.WhichOneof("source") in _MAY_HOLD_A_SYSTEM
    )
    return dict.fromkeys(list(bootable)[:1], 1)


def _address(disk: pb.DiskSpec, unit: int, bus: PciBus) -> Address | None:
    if disk.pci_address:
        return device_address(bus_of(disk.pci_address))
    if _is_virtio(disk):
        return bus.next_address()
    if disk.bus == pb.DISK_BUS_USB:
        return None  # a USB device has a port, and libvirt counts those from 1 in order
    return Address(type="drive", controller="0", bus="0", target="0", unit=str(unit))


def device_letters(number: int) -> str:
    """0 -> a, 25 -> z, 26 -> aa: how Linux names disks."""
    name = ""
    number += 1
    while number:
        number, digit = divmod(number - 1, 26)
        name = string.ascii_lowercase[digit] + name
    return name
