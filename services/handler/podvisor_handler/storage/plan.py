"""Which volumes in a launcher's container its user must be let at, and how.

Invariant: pure. What the guest does not write to, and has files, is left as it is: it may be somebody else's.
"""

from dataclasses import dataclass

from podvisor.domain.v1 import domain_pb2


@dataclass(frozen=True, slots=True)
class Image:
    """An image in a mounted directory that the guest writes to."""

    volume: str
    directory: str  # absolute, in the container
    file: str
    create: bool  # an empty one may be made where there is none


@dataclass(frozen=True, slots=True)
class Device:
    """A block device."""

    volume: str
    path: str  # absolute, in the container
    read_only: bool


Access = Image | Device


def accesses_of(spec: domain_pb2.DomainSpec) -> tuple[Access, ...]:
    """What the launcher of `spec` must be let at, in the order of the disks."""
    found: list[Access] = []
    for disk in spec.disks:
        if not disk.HasField("volume") or disk.volume.handed_over:
            continue
        source, is_read = disk.volume, disk.read_only or disk.volume.ephemeral
        if not source.file:
            found.append(Device(disk.name, source.path, is_read))
        elif not is_read:
            found.append(Image(disk.name, source.path, source.file, source.create))
    return tuple(found)
