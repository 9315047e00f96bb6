"""Which volumes in a container a launcher's user must be let at, and how; and which are handed over to a launcher.

Invariant: pure. What the guest does not write to, and has files, is left as it is: it may be somebody else's.
"""

from dataclasses import dataclass

from podvisor.domain.v1 import domain_pb2
from podvisor_common.api import core
from podvisor_common.launcher_pod import DEVICES_DIRECTORY, VOLUMES_DIRECTORY


@dataclass(frozen=True, slots=True)
class Image:
    """An image in a mounted directory."""

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


@dataclass(frozen=True, slots=True)
class HandOver:
    """A volume that a pod holds, for a launcher that waits for it."""

    access: Access  # in the container that holds it
    read_only: bool
    capacity_bytes: int  # 0: not known
    holder: str  # uid of the pod that holds it
    epoch: int  # of the launcher's process


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


def hand_over_of(disk: domain_pb2.DiskSpec, holder: core.Pod, epoch: int) -> HandOver | None:
    """How the volume of `disk` gets from the pod `holder` to a launcher. None if it does not, or while the pod holds something
    else than the launcher was told of."""
    if not disk.volume.handed_over:
        return None
    source = disk.volume
    device = f"{DEVICES_DIRECTORY}/{disk.name}"
    devices = {
        found.device_path
        for container in holder.spec.containers or ()
        for found in container.volume_devices or ()
    }
    if (device in devices) == bool(source.file):
        return None
    access: Access = Device(disk.name, device, disk.read_only)
    if source.file:
        access = Image(disk.name, f"{VOLUMES_DIRECTORY}/{disk.name}", source.file, source.create)
    return HandOver(access, disk.read_only, source.capacity_bytes, holder.metadata.uid, epoch)
