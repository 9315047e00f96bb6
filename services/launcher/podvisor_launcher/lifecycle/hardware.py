"""What the guest's hardware turned out to be: libvirt's words, and the sizes of the files and devices behind the disks.

Invariant: nothing is decided by it. The files are read without a lock and while QEMU uses them, and only where their size
stands; what cannot be read is not known, which stops nobody.
"""

from dataclasses import dataclass
from os import SEEK_END
from pathlib import Path

import structlog

from podvisor_launcher.domain import disk_elements as xml
from podvisor_launcher.domain.disks import ALIAS_PREFIX, Image, ResolvedDisk
from podvisor_launcher.domain.elements import Domain
from podvisor_launcher.domain.hotplug import is_handed_over
from podvisor_launcher.domain.xml import parse_xml

_log = structlog.stdlib.get_logger(__name__)

# https://gitlab.com/qemu-project/qemu/-/blob/master/docs/interop/qcow2.rst: a big-endian number of 8 bytes.
_QCOW2_SIZE_OFFSET = 24
_QCOW2_SIZE_BYTES = 8


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
class Hardware:
    """The machine as libvirt made it."""

    machine_type: str
    disks: tuple[Disk, ...]

    def disk(self, name: str) -> Disk | None:
        """The disk of that name in the manifest."""
        return next((disk for disk in self.disks if disk.name == name), None)


UNSEEN = Hardware("", ())


def hardware_of(description: str) -> Hardware:
    """The hardware of a domain by libvirt's description of it; reads the files and devices that it names."""
    domain = parse_xml(Domain, description)
    return Hardware(
        machine_type=domain.os.type.machine or "",
        disks=tuple(
            _disk(disk, disk.alias.name.removeprefix(ALIAS_PREFIX))
            for disk in domain.devices.disks
            if disk.alias is not None and disk.target.dev
        ),
    )


def _disk(disk: xml.Disk, name: str) -> Disk:
    image = _image(disk.source, disk.driver.type if disk.driver is not None else None)
    if image is None:
        return Disk(name, disk.target.dev, 0)
    below = disk.backing_store
    backing = None
    if below is not None and below.format is not None:
        backing = _image(below.source, below.format.type)
    resolved = ResolvedDisk(image, backing, read_only=disk.read_only)
    return Disk(name, disk.target.dev, _capacity_bytes(image, disk.target.dev), resolved)


def _image(source: xml.DiskSource | None, format_: str | None) -> Image | None:
    path = (source.file or source.dev) if source is not None else None
    if source is None or not path:
        return None
    return Image(
        path, format_ or "raw", is_block=source.dev is not None, fd_group=source.fdgroup or ""
    )


def _capacity_bytes(image: Image, target: str) -> int:
    if is_handed_over(image.path):
        return 0
    try:
        with Path(image.path).open("rb") as file:
            if image.format != "qcow2":
                return file.seek(0, SEEK_END)  # where a device ends, its status does not say
            file.seek(_QCOW2_SIZE_OFFSET)
            return int.from_bytes(file.read(_QCOW2_SIZE_BYTES))
    except OSError as error:
        _log.warning("the size of a disk cannot be told", disk=target, error=error.strerror)
        return 0
