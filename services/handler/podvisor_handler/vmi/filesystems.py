"""Trees of files of a manifest → where they are in the launcher's container.

Invariant: pure. A claim's tree is the guest's to write unless the manifest says otherwise; what comes from the cluster itself is
only read.
"""

from podvisor.domain.v1 import domain_pb2
from podvisor_common.api import core, v1
from podvisor_common.launcher_pod import DEVICES_DIRECTORY, FILES_DIRECTORY, VOLUMES_DIRECTORY

from podvisor_handler.vmi.errors import SpecRefused


def build_filesystems(
    vmi: v1.VirtualMachineInstance, pod: core.Pod
) -> list[domain_pb2.FilesystemSpec]:
    """What `vmi` shares with its guest, in the order of the manifest. Raises SpecRefused."""
    volumes = {volume.name: volume for volume in vmi.spec.volumes or ()}
    return [
        _filesystem(filesystem, volumes.get(filesystem.name), pod)
        for filesystem in vmi.spec.domain.devices.filesystems or ()
    ]


def _filesystem(
    filesystem: v1.Filesystem, volume: v1.Volume | None, pod: core.Pod
) -> domain_pb2.FilesystemSpec:
    name = filesystem.name
    if volume is None:
        raise SpecRefused(f"spec.volumes: there is no volume for the file system {name!r}")
    if volume.persistent_volume_claim is not None or volume.data_volume is not None:
        if _is_device(name, pod):
            raise SpecRefused(
                f"spec.domain.devices.filesystems: the claim of {name!r} is a block volume and has no files to share;"
                " give it to the guest as a disk, or take a claim of volumeMode Filesystem"
            )
        claim = volume.persistent_volume_claim
        return domain_pb2.FilesystemSpec(
            name=name,
            directory=f"{VOLUMES_DIRECTORY}/{name}",
            read_only=claim is not None and claim.read_only,
        )
    return domain_pb2.FilesystemSpec(
        name=name,
        directory=f"{FILES_DIRECTORY}/{name}",
        read_only=True,
        awaited=_is_awaited(volume),
    )


def _is_awaited(volume: v1.Volume) -> bool:
    """What is missing in the cluster is an empty directory in the pod."""
    keyed = volume.config_map or volume.secret
    if keyed is not None:
        return keyed.optional is not True
    if volume.downward_api is not None:
        return bool(volume.downward_api.fields)
    if volume.service_account is not None:
        return True
    raise SpecRefused(f"spec.volumes: the volume {volume.name!r} cannot be shared as files")


def _is_device(name: str, pod: core.Pod) -> bool:
    path = f"{DEVICES_DIRECTORY}/{name}"
    return any(
        device.device_path == path
        for container in pod.spec.containers or ()
        for device in container.volume_devices or ()
    )
