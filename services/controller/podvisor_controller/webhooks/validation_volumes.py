"""What is wrong with a machine's volumes. Pure."""

from collections.abc import Iterator, Mapping

from podvisor_common.api import v1
from podvisor_common.api.quantity import Quantity, parse_quantity
from podvisor_common.api.unsupported import VOLUME_SOURCES
from podvisor_common.api.v1 import names

from podvisor_controller.webhooks.permitted import Permitted
from podvisor_controller.webhooks.validation_cloud_init import cloud_init_causes
from podvisor_controller.webhooks.validation_fields import (
    FILE_PATH_RULE,
    LABEL_RULE,
    Cause,
    CauseReason,
    bad_quantity,
    invalid,
    is_dns_label,
    is_file_path,
    object_name_causes,
    quoted,
    raw_at,
)
from podvisor_controller.webhooks.validation_files import file_causes
from podvisor_controller.webhooks.validation_images import image_causes

_DISK, _DISK_OR_CREATE = "Disk", "DiskOrCreate"
# One sector, and more than any file system has room for.
_LEAST_CAPACITY = "512"
_MOST_CAPACITY = "64Ti"


def volume_causes(
    spec: v1.VirtualMachineInstanceSpec,
    raw: dict[str, object],
    path: str,
    permitted: Permitted,
) -> Iterator[Cause]:
    """Checks `volumes`: names, exactly one source each, the source itself, and what two volumes cannot share."""
    first_use: dict[str, int] = {}
    for index, volume in enumerate(spec.volumes or ()):
        field = f"{path}.volumes[{index}]"
        if volume.name in first_use:
            other = f"{path}.volumes[{first_use[volume.name]}]"
            message = f"{other} and {field} must not have the same Name ({quoted(volume.name)})."
            yield Cause(f"{field}.name", message, CauseReason.DUPLICATE)
            continue
        first_use[volume.name] = index
        if not is_dns_label(volume.name):
            yield invalid(f"{field}.name", f"{quoted(volume.name)}: {LABEL_RULE}.")
        item = raw_at(raw, "volumes", index)
        sources = [name for name in VOLUME_SOURCES if item.get(name) is not None]
        if len(sources) != 1:
            given = " and ".join(sources) if sources else "none"
            yield invalid(field, f"must have exactly one source, not {given}.")
        yield from _source_causes(volume, field, permitted)
    yield from _sharing_causes(spec.volumes or [], f"{path}.volumes")


def raw_volume_causes(
    annotations: Mapping[str, str], spec: v1.VirtualMachineInstanceSpec, field: str
) -> Iterator[Cause]:
    """Checks that what an annotation says to be raw is an image that could be anything else."""
    key = names.RAW_VOLUMES_ANNOTATION
    if not annotations.get(key):
        return
    volumes = {volume.name: volume for volume in spec.volumes or ()}
    for name in annotations[key].split(","):
        volume = volumes.get(name.strip())
        if volume is None or not (volume.claim_name or volume.host_disk is not None):
            text = f"names {quoted(name)}, which is no volume with a PersistentVolumeClaim or a hostDisk."
            yield invalid(f"{field}[{key}]", text, CauseReason.NOT_FOUND)


def _source_causes(volume: v1.Volume, field: str, permitted: Permitted) -> Iterator[Cause]:
    if volume.container_disk is not None:
        yield from _container_disk_causes(volume.container_disk, f"{field}.containerDisk")
    if volume.cloud_init_no_cloud is not None:
        yield from cloud_init_causes(volume.cloud_init_no_cloud, f"{field}.cloudInitNoCloud")
    if volume.cloud_init_config_drive is not None:
        where = f"{field}.cloudInitConfigDrive"
        yield from cloud_init_causes(volume.cloud_init_config_drive, where)
    if volume.data_volume is not None:
        name = volume.data_volume.name
        yield from object_name_causes(name, f"{field}.dataVolume.name", "DataVolume")
    claim = volume.persistent_volume_claim
    if claim is not None:
        where = f"{field}.persistentVolumeClaim.claimName"
        yield from object_name_causes(claim.claim_name, where, "PersistentVolumeClaim")
    if volume.ephemeral is not None:
        yield from _ephemeral_causes(volume.ephemeral, f"{field}.ephemeral")
    if volume.empty_disk is not None:
        yield from _capacity_causes(volume.empty_disk.capacity, f"{field}.emptyDisk.capacity")
    if volume.host_disk is not None:
        yield from _host_disk_causes(volume.host_disk, f"{field}.hostDisk", permitted)
    yield from file_causes(volume, field)


def _container_disk_causes(disk: v1.ContainerDisk, field: str) -> Iterator[Cause]:
    yield from image_causes(disk.image, disk.image_pull_policy, disk.image_pull_secret, field)
    if disk.path and not is_file_path(disk.path):
        yield invalid(f"{field}.path", f"{quoted(disk.path)} {FILE_PATH_RULE}.")


def _ephemeral_causes(ephemeral: v1.Ephemeral, field: str) -> Iterator[Cause]:
    claim = ephemeral.persistent_volume_claim
    field = f"{field}.persistentVolumeClaim"
    if claim is None:
        yield invalid(field, "is missing: it must name a claim.", CauseReason.REQUIRED)
    else:
        where = f"{field}.claimName"
        yield from object_name_causes(claim.claim_name, where, "PersistentVolumeClaim")


def _capacity_causes(capacity: Quantity, field: str) -> Iterator[Cause]:
    cause = bad_quantity(field, capacity)
    if cause is not None:
        yield cause
    elif parse_quantity(capacity) < parse_quantity(_LEAST_CAPACITY):
        text = f"{quoted(capacity)}: must be greater than or equal to {_LEAST_CAPACITY}, which is one sector."
        yield invalid(field, text)
    elif parse_quantity(capacity) > parse_quantity(_MOST_CAPACITY):
        yield invalid(field, f"{quoted(capacity)}: must be less than or equal to {_MOST_CAPACITY}.")


def _host_disk_causes(disk: v1.HostDisk, field: str, permitted: Permitted) -> Iterator[Cause]:
    if names.HOST_DISK_GATE not in permitted.feature_gates:
        text = f"needs the feature gate {names.HOST_DISK_GATE}, which is not enabled in the KubeVirt object."
        yield invalid(field, text, CauseReason.NOT_SUPPORTED)
    if not disk.path:
        yield invalid(f"{field}.path", "is required.", CauseReason.REQUIRED)
    elif not is_file_path(disk.path):
        yield invalid(f"{field}.path", f"{quoted(disk.path)} {FILE_PATH_RULE}.")
    if disk.type not in (_DISK, _DISK_OR_CREATE):
        text = f"{quoted(disk.type)} must be one of: {_DISK}, {_DISK_OR_CREATE}"
        yield invalid(f"{field}.type", text, CauseReason.NOT_SUPPORTED)
    elif disk.type == _DISK_OR_CREATE and disk.capacity is None:
        text = f"is required with type {_DISK_OR_CREATE}."
        yield invalid(f"{field}.capacity", text, CauseReason.REQUIRED)
    elif disk.type == _DISK and disk.capacity is not None:
        text = f"must not be given with type {_DISK}: an image that is there has its own."
        yield invalid(f"{field}.capacity", text)
    elif disk.capacity is not None:
        yield from _capacity_causes(disk.capacity, f"{field}.capacity")


def _sharing_causes(volumes: list[v1.Volume], path: str) -> Iterator[Cause]:
    """One image that a guest writes to is behind one disk, and a pod has one service account."""
    first_use: dict[tuple[str, str], str] = {}
    written: set[tuple[str, str]] = set()
    accounts = 0
    for index, volume in enumerate(volumes):
        if volume.service_account is not None:
            accounts += 1
            if accounts > 1:
                text = "is a second one: there must be at most one serviceAccount volume."
                yield invalid(f"{path}[{index}].serviceAccount", text, CauseReason.DUPLICATE)
        image = _image_of(volume)
        if image is None:
            continue
        what, name, where = image
        field = f"{path}[{index}].{where}"
        if _is_written(volume):
            written.add((what, name))
        other = first_use.setdefault((what, name), field)
        if other != field and (what, name) in written:
            text = f"{quoted(name)} is used by {other} as well: a {what} that is written to can be behind one disk only."
            yield invalid(field, text, CauseReason.DUPLICATE)


def _image_of(volume: v1.Volume) -> tuple[str, str, str] | None:
    """What a volume's content is in, its name, and the field that says so; None for what is the volume's own."""
    if volume.host_disk is not None:
        return "file of a node", volume.host_disk.path, "hostDisk.path"
    if not volume.claim_name:
        return None
    if volume.data_volume is not None:
        return "claim", volume.claim_name, "dataVolume.name"
    claim = "persistentVolumeClaim.claimName"
    return "claim", volume.claim_name, claim if volume.ephemeral is None else f"ephemeral.{claim}"


def _is_written(volume: v1.Volume) -> bool:
    claim = volume.persistent_volume_claim
    return volume.ephemeral is None and (claim is None or not claim.read_only)
