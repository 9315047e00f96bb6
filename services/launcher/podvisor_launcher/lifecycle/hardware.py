"""What the guest's hardware turned out to be, in libvirt's words: the machine, its disks and their sizes, its interfaces.

Invariants: pure. No file is looked at, since one whose file system is gone would be waited for; a size that libvirt does not tell
is not known, which stops nobody.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from podvisor_launcher.domain import disk_elements as xml
from podvisor_launcher.domain import interface_elements as interface_xml
from podvisor_launcher.domain.disks import ALIAS_PREFIX, Image, ResolvedDisk
from podvisor_launcher.domain.elements import Domain
from podvisor_launcher.domain.hotplug import is_handed_over
from podvisor_launcher.domain.interfaces import has_link
from podvisor_launcher.domain.xml import parse_xml


@dataclass(frozen=True, slots=True)
class Disk:
    """One block device: its name in the manifest and in libvirt, what the guest sees of it, and what is behind it."""

    name: str
    target: str
    capacity_bytes: int  # 0 when it cannot be told
    resolved: ResolvedDisk | None = None  # None for a drive without a medium

    @property
    def is_handed_over(self) -> bool:
        """Whether what is behind it came as an open file, which has no path."""
        return self.resolved is not None and is_handed_over(self.resolved.image.path)


@dataclass(frozen=True, slots=True)
class Interface:
    """One network device: its name in the manifest, and what the guest sees of it."""

    name: str
    mac: str
    link_up: bool = True
    queues: int = 1


@dataclass(frozen=True, slots=True)
class Hardware:
    """The machine as libvirt made it."""

    machine_type: str
    disks: tuple[Disk, ...]
    interfaces: tuple[Interface, ...] = ()

    def disk(self, name: str) -> Disk | None:
        """The disk of that name in the manifest."""
        return next((disk for disk in self.disks if disk.name == name), None)


UNSEEN = Hardware("", ())


def hardware_of(description: str) -> Hardware:
    """The hardware of a domain by libvirt's description of it, which tells no sizes."""
    domain = parse_xml(Domain, description)
    return Hardware(
        machine_type=domain.os.type.machine or "",
        disks=tuple(
            _disk(disk, disk.alias.name.removeprefix(ALIAS_PREFIX))
            for disk in domain.devices.disks
            if disk.alias is not None and disk.target.dev
        ),
        interfaces=tuple(
            _interface(each, each.alias.name.removeprefix(ALIAS_PREFIX))
            for each in domain.devices.interfaces
            if each.alias is not None
        ),
    )


def with_sizes(hardware: Hardware, sizes: Mapping[str, int]) -> Hardware:
    """`hardware` with what its guest sees of the disks, in bytes, by their names in libvirt."""
    disks = [replace(disk, capacity_bytes=sizes.get(disk.target, 0)) for disk in hardware.disks]
    return replace(hardware, disks=tuple(disks))


def known_sizes(hardware: Hardware) -> dict[str, int]:
    """The sizes of the disks, as with_sizes() takes them."""
    return {disk.target: disk.capacity_bytes for disk in hardware.disks}


def _disk(disk: xml.Disk, name: str) -> Disk:
    image = _image(disk.source, disk.driver.type if disk.driver is not None else None)
    if image is None:
        return Disk(name, disk.target.dev, 0)
    below = disk.backing_store
    backing = None
    if below is not None and below.format is not None:
        backing = _image(below.source, below.format.type)
    resolved = ResolvedDisk(image, backing, read_only=disk.read_only)
    return Disk(name, disk.target.dev, 0, resolved)


def _interface(interface: interface_xml.Interface, name: str) -> Interface:
    driver = interface.driver
    return Interface(
        name,
        interface.mac.address if interface.mac is not None else "",
        link_up=has_link(interface),
        queues=(driver.queues if driver is not None else None) or 1,
    )


def _image(source: xml.DiskSource | None, format_: str | None) -> Image | None:
    path = (source.file or source.dev) if source is not None else None
    if source is None or not path:
        return None
    return Image(
        path, format_ or "raw", is_block=source.dev is not None, fd_group=source.fdgroup or ""
    )
