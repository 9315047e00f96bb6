"""Which volumes in a container a launcher's user must be let at, and how; and which are handed over to a launcher.

Invariant: pure. What the guest does not write to, and has files, is left as it is: it may be somebody else's.
"""

from dataclasses import dataclass

from podvisor.domain.v1 import domain_pb2
from podvisor_common.api import core
from podvisor_common.api.v1 import names
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


def is_written(disk: domain_pb2.DiskSpec) -> bool:
    """Whether the guest writes to the volume itself."""
    return disk.HasField("volume") and not disk.read_only and not disk.volume.ephemeral


def accesses_of(spec: domain_pb2.DomainSpec) -> tuple[Access, ...]:
    """What the launcher of `spec` must be let at, in the order of the disks."""
    found: list[Access] = []
    for disk in spec.disks:
        if not disk.HasField("volume") or disk.volume.handed_over:
            continue
        source = disk.volume
        if not source.file:
            found.append(Device(disk.name, source.path, read_only=not is_written(disk)))
        elif is_written(disk):
            found.append(Image(disk.name, source.path, source.file, source.create))
    return tuple(found)


def can_make_no_device(holder: core.Pod) -> bool:
    """Whether a device below the pod's `/dev` is one that the kubelet put there.

    The handler opens it as root. Whoever may create pods, or change what runs in one, must not get at the node's disks by that: so
    there is one container, whose processes are nobody's root and cannot become it, and what is mounted are claims and scratch space.
    """
    spec = holder.spec
    containers = spec.containers or ()
    if len(containers) != 1 or spec.init_containers or spec.ephemeral_containers:
        return False
    known = {"name", "emptyDir", "persistentVolumeClaim"}
    if not all(set(volume) <= known for volume in spec.volumes or ()):
        return False
    confined, of_pod = (
        containers[0].security_context,
        spec.security_context or core.SecurityContext(),
    )
    if confined is None or confined.capabilities is None:
        return False
    user = confined.run_as_user if confined.run_as_user is not None else of_pod.run_as_user
    return (
        user == names.LAUNCHER_UID
        and not confined.privileged
        and confined.allow_privilege_escalation is False
        and not confined.capabilities.add
        and confined.capabilities.drop == ("ALL",)
    )


def hand_over_of(disk: domain_pb2.DiskSpec, holder: core.Pod, epoch: int) -> HandOver | None:
    """How the volume of `disk` gets from the pod `holder` to a launcher. None if it does not, or while the pod holds something
    else than the launcher was told of."""
    if not disk.volume.handed_over or not can_make_no_device(holder):
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
