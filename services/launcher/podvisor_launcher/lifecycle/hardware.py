"""What the guest's hardware turned out to be: libvirt's words, and the sizes of the files behind the disks.

Invariant: nothing is decided by it. The files are read without a lock and while QEMU uses them, and only where their size
stands; what cannot be read is not known, which stops nobody.
"""

from dataclasses import dataclass
from pathlib import Path

import structlog

from podvisor_launcher.domain import disk_elements as xml
from podvisor_launcher.domain.disks import ALIAS_PREFIX
from podvisor_launcher.domain.elements import Domain
from podvisor_launcher.domain.xml import parse_xml

_log = structlog.stdlib.get_logger(__name__)

# https://gitlab.com/qemu-project/qemu/-/blob/master/docs/interop/qcow2.rst: a big-endian number of 8 bytes.
_QCOW2_SIZE_OFFSET = 24
_QCOW2_SIZE_BYTES = 8


@dataclass(frozen=True, slots=True)
class Disk:
    """One block device: its name in the manifest and in libvirt, and what the guest sees of it."""

    name: str
    target: str
    capacity_bytes: int  # 0 when it cannot be told


@dataclass(frozen=True, slots=True)
class Hardware:
    """The machine as libvirt made it."""

    machine_type: str
    disks: tuple[Disk, ...]


UNSEEN = Hardware("", ())


def hardware_of(description: str) -> Hardware:
    """The hardware of a domain by libvirt's description of it; reads the files that it names."""
    domain = parse_xml(Domain, description)
    return Hardware(
        machine_type=domain.os.type.machine or "",
        disks=tuple(
            Disk(disk.alias.name.removeprefix(ALIAS_PREFIX), disk.target.dev, _capacity_bytes(disk))
            for disk in domain.devices.disks
            if disk.alias is not None and disk.target.dev
        ),
    )


def _capacity_bytes(disk: xml.Disk) -> int:
    source, driver = disk.source, disk.driver
    if source is None or source.file is None or driver is None:
        return 0
    try:
        if driver.type != "qcow2":
            return Path(source.file).stat().st_size
        with Path(source.file).open("rb") as image:
            image.seek(_QCOW2_SIZE_OFFSET)
            return int.from_bytes(image.read(_QCOW2_SIZE_BYTES))
    except OSError as error:
        _log.warning(
            "the size of a disk cannot be told", disk=disk.target.dev, error=error.strerror
        )
        return 0
