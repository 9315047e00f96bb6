"""Volumes of a manifest → where the content of disks comes from.

Invariant: pure. Which claims are devices is what the pod says, how large they are what the controller says, who says both of
claims that another pod holds; the paths are those that podvisor_common.launcher_pod names.
"""

from dataclasses import dataclass
from pathlib import PurePosixPath

from podvisor.domain.v1 import domain_pb2
from podvisor_common.api import core, v1
from podvisor_common.api.quantity import Quantity, QuantityError, quantity_to_int
from podvisor_common.api.v1 import names
from podvisor_common.launcher_pod import (
    DEVICES_DIRECTORY,
    DISK_IMAGE,
    FILES_DIRECTORY,
    IMAGES_DIRECTORY,
    VOLUMES_DIRECTORY,
)

from podvisor_handler.vmi.cloud_init import data_source
from podvisor_handler.vmi.errors import SpecRefused

COMPUTE_CONTAINER = "compute"
# What KubeVirt calls images of files that the manifest gives no label, and those with an answer file.
_FILES_LABEL = "cfgdata"
_SYSPREP_LABEL = "unattendCD"
_ANSWER_FILES = ("autounattend.xml", "unattend.xml")
_DEFAULT_TOLERATED_SHORTFALL_PERCENT = 10
_DEFAULT_RESERVE_BYTES = 131_072
_NUMBER_LIMIT = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Facts:
    """What sources depend on beyond their volume."""

    vmi: v1.VirtualMachineInstance
    block_devices: frozenset[str]  # volumes that are devices in the pod
    capacities_bytes: dict[str, int]  # of claims, as far as they are known
    volume_modes: dict[str, str]  # the same
    raw_volumes: frozenset[str]
    tolerated_shortfall_percent: int
    reserve_bytes: int


def facts_of(vmi: v1.VirtualMachineInstance, pod: core.Pod) -> Facts:
    """The facts for all volumes of `vmi` in `pod`."""
    said = vmi.metadata.annotation(names.RAW_VOLUMES_ANNOTATION) or ""
    shortfall = pod.metadata.annotation(names.PVC_TOLERATED_SHORTFALL_ANNOTATION)
    reserve = pod.metadata.annotation(names.PVC_RESERVE_ANNOTATION)
    return Facts(
        vmi=vmi,
        block_devices=_block_devices(pod),
        capacities_bytes=_capacities(vmi),
        volume_modes={
            volume.name: volume.persistent_volume_claim_info.volume_mode
            for volume in vmi.status.volume_status or ()
            if volume.persistent_volume_claim_info is not None
        },
        raw_volumes=frozenset(name.strip() for name in said.split(",")),
        tolerated_shortfall_percent=min(
            100, _number(shortfall, _DEFAULT_TOLERATED_SHORTFALL_PERCENT)
        ),
        reserve_bytes=_number(reserve, _DEFAULT_RESERVE_BYTES),
    )


def set_source(spec: domain_pb2.DiskSpec, volume: v1.Volume, facts: Facts) -> None:
    """Completes the disk `spec` by the content of `volume`. Raises SpecRefused."""
    name = volume.name
    if volume.container_disk is not None:
        spec.container_disk.image_root = f"{IMAGES_DIRECTORY}/{name}"
        spec.container_disk.path = volume.container_disk.path
    elif (given := volume.cloud_init_no_cloud or volume.cloud_init_config_drive) is not None:
        spec.cloud_init.CopyFrom(data_source(facts.vmi, name, given))
    elif volume.claim_name:
        _set_claim(spec, volume, facts)
    elif volume.host_disk is not None:
        _set_host_disk(spec, name, volume.host_disk, facts)
    elif volume.empty_disk is not None:
        spec.empty.capacity_bytes = _bytes(name, "emptyDisk.capacity", volume.empty_disk.capacity)
    elif (files := _files(volume)) is not None:
        spec.files.CopyFrom(files)
    else:
        raise SpecRefused(f"spec.volumes: the volume {name!r} has no source that is supported")


def _set_claim(spec: domain_pb2.DiskSpec, volume: v1.Volume, facts: Facts) -> None:
    name, claim = volume.name, volume.persistent_volume_claim
    is_ephemeral = volume.ephemeral is not None
    spec.read_only = spec.read_only or (claim is not None and claim.read_only)
    is_handed_over = volume.is_hotpluggable
    is_device = _is_held_device(spec, facts) if is_handed_over else name in facts.block_devices
    directory = DEVICES_DIRECTORY if is_device else VOLUMES_DIRECTORY
    source = domain_pb2.VolumeDiskSource(
        path="" if is_handed_over else f"{directory}/{name}",
        handed_over=is_handed_over,
        file="" if is_device else DISK_IMAGE,
        ephemeral=is_ephemeral,
        capacity_bytes=facts.capacities_bytes.get(name, 0),
        create=not is_device and not is_ephemeral and not spec.read_only,
    )
    _set_volume(spec, source, facts)


def _is_held_device(spec: domain_pb2.DiskSpec, facts: Facts) -> bool:
    """Of a claim that another pod holds. One that nothing is known of yet is taken for what the disk needs."""
    mode = facts.volume_modes.get(spec.name)
    return mode == "Block" or (not mode and spec.device == domain_pb2.DISK_DEVICE_LUN)


def _set_host_disk(spec: domain_pb2.DiskSpec, name: str, disk: v1.HostDisk, facts: Facts) -> None:
    image = PurePosixPath(disk.path).name
    if not image or image == "..":
        raise SpecRefused(f"spec.volumes: the volume {name!r} names no image by its hostDisk.path")
    source = domain_pb2.VolumeDiskSource(
        path=f"{VOLUMES_DIRECTORY}/{name}",
        file=image,
        capacity_bytes=_bytes(name, "hostDisk.capacity", disk.capacity or 0),
        create=disk.type == "DiskOrCreate" and not spec.read_only,
    )
    spec.shareable = spec.shareable or disk.shared is True
    _set_volume(spec, source, facts)


def _set_volume(
    spec: domain_pb2.DiskSpec, source: domain_pb2.VolumeDiskSource, facts: Facts
) -> None:
    source.assume_raw = spec.name in facts.raw_volumes
    source.tolerated_shortfall_percent = facts.tolerated_shortfall_percent
    source.reserve_bytes = facts.reserve_bytes
    spec.volume.CopyFrom(source)


def _files(volume: v1.Volume) -> domain_pb2.FilesSource | None:
    directory = f"{FILES_DIRECTORY}/{volume.name}"
    keyed = volume.config_map or volume.secret
    if keyed is not None:
        return domain_pb2.FilesSource(
            directory=directory,
            label=keyed.volume_label or _FILES_LABEL,
            optional=keyed.optional is True,
        )
    if volume.downward_api is not None:
        return domain_pb2.FilesSource(
            directory=directory,
            label=volume.downward_api.volume_label or _FILES_LABEL,
            optional=not volume.downward_api.fields,
        )
    if volume.service_account is not None:
        return domain_pb2.FilesSource(directory=directory, label=_FILES_LABEL)
    if volume.sysprep is not None:
        return domain_pb2.FilesSource(
            directory=directory, label=_SYSPREP_LABEL, required=_ANSWER_FILES
        )
    return None


def _block_devices(pod: core.Pod) -> frozenset[str]:
    paths = {
        device.device_path
        for container in pod.spec.containers or ()
        if container.name == COMPUTE_CONTAINER
        for device in container.volume_devices or ()
    }
    prefix = f"{DEVICES_DIRECTORY}/"
    return frozenset(path.removeprefix(prefix) for path in paths if path.startswith(prefix))


def _capacities(vmi: v1.VirtualMachineInstance) -> dict[str, int]:
    """What is no amount is not known: nothing in the manifest could be changed about it."""
    known = {}
    for volume in vmi.status.volume_status or ():
        info = volume.persistent_volume_claim_info
        capacity = ((info.capacity if info is not None else None) or {}).get("storage")
        try:
            known[volume.name] = max(0, quantity_to_int(capacity or 0))
        except QuantityError:
            continue
    return known


def _bytes(volume: str, field: str, amount: Quantity) -> int:
    try:
        size_bytes = quantity_to_int(amount)
    except QuantityError as error:
        raise SpecRefused(f"spec.volumes: the volume {volume!r}: {field}: {error}") from error
    if size_bytes < 0:
        raise SpecRefused(f"spec.volumes: the volume {volume!r}: {field} is less than nothing")
    return size_bytes


def _number(said: str | None, default: int) -> int:
    if said is None or not said.isdecimal() or len(said) > len(str(_NUMBER_LIMIT)):
        return default
    return min(int(said), _NUMBER_LIMIT)
