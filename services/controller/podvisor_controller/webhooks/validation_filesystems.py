"""What is wrong with the trees of files that a machine shares with its guest. Pure."""

from collections.abc import Iterator

from podvisor_common.api import v1

from podvisor_controller.webhooks.validation_fields import Cause, CauseReason, invalid, quoted

# The guest mounts a tree by its name, for which the virtio device has so many bytes.
_MOST_NAME_BYTES = 36
# Each is a process of the pod and a slot of the machine.
_MOST_FILESYSTEMS = 64
_SHARED = (
    "persistentVolumeClaim",
    "dataVolume",
    "configMap",
    "secret",
    "downwardAPI",
    "serviceAccount",
)


def filesystem_causes(spec: v1.VirtualMachineInstanceSpec, path: str) -> Iterator[Cause]:
    """Checks `domain.devices.filesystems`, each for itself, against the volumes and against the disks."""
    filesystems = spec.domain.devices.filesystems or ()
    volumes = {volume.name: volume for volume in spec.volumes or ()}
    disks = {disk.name for disk in spec.domain.devices.disks or ()}
    first_use: dict[str, int] = {}
    base = f"{path}.domain.devices.filesystems"
    if len(filesystems) > _MOST_FILESYSTEMS:
        yield invalid(base, f"has {len(filesystems)} entries; there can be {_MOST_FILESYSTEMS}.")
    for index, filesystem in enumerate(filesystems):
        field = f"{base}[{index}]"
        if filesystem.name in first_use:
            other = f"{base}[{first_use[filesystem.name]}]"
            message = (
                f"{other} and {field} must not have the same Name ({quoted(filesystem.name)})."
            )
            yield Cause(f"{field}.name", message, CauseReason.DUPLICATE)
            continue
        first_use[filesystem.name] = index
        yield from _name_causes(filesystem.name, disks, f"{field}.name")
        yield from _volume_causes(filesystem.name, volumes, f"{field}.name")
        if filesystem.virtiofs is None:
            text = "is required: it is the only way to share files."
            yield invalid(f"{field}.virtiofs", text, CauseReason.REQUIRED)


def _name_causes(name: str, disks: set[str], field: str) -> Iterator[Cause]:
    size_bytes = len(name.encode())
    if size_bytes > _MOST_NAME_BYTES:
        yield invalid(
            field,
            f"{quoted(name)} has {size_bytes} bytes: the guest mounts the volume by this name, which can have at most"
            f" {_MOST_NAME_BYTES}. Give the volume a shorter one.",
        )
    if name in disks:
        yield invalid(
            field,
            f"{quoted(name)} is a disk as well: a volume is given to the guest either as a disk or as files.",
            CauseReason.DUPLICATE,
        )


def _volume_causes(name: str, volumes: dict[str, v1.Volume], field: str) -> Iterator[Cause]:
    volume = volumes.get(name)
    if volume is None:
        yield invalid(
            field,
            f"{quoted(name)} not found: there is no volume of that name.",
            CauseReason.NOT_FOUND,
        )
    elif not _has_files(volume):
        yield invalid(
            field,
            f"{quoted(name)} is a volume without files to share; it must be one of: {', '.join(_SHARED)}",
            CauseReason.NOT_SUPPORTED,
        )
    elif volume.is_hotpluggable:
        text = f"{quoted(name)} is hotpluggable, which only a disk can be."
        yield invalid(field, text, CauseReason.NOT_SUPPORTED)


def _has_files(volume: v1.Volume) -> bool:
    sources = (
        volume.persistent_volume_claim,
        volume.data_volume,
        volume.config_map,
        volume.secret,
        volume.downward_api,
        volume.service_account,
    )
    return any(source is not None for source in sources)
