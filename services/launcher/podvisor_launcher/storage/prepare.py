"""All disks of a specification, made ready in order."""

from pathlib import Path

from podvisor.domain.v1 import domain_pb2 as pb

from podvisor_launcher.domain.build import ResolvedDisk
from podvisor_launcher.storage.cloud_init import prepare_cloud_init
from podvisor_launcher.storage.container_disk import prepare_container_disk


async def prepare_disks(
    spec: pb.DomainSpec, *, overlays: Path, cloud_init: Path
) -> dict[str, ResolvedDisk]:
    """The files behind every disk, by its name, in two directories that exist. Raises DiskUnavailable for the first disk that
    cannot be made. Overlays begin empty: a pod runs one guest, once, so this must not be called while it runs."""
    resolved = {}
    for disk in spec.disks:
        if disk.WhichOneof("source") == "cloud_init":
            resolved[disk.name] = prepare_cloud_init(disk, cloud_init)
        else:
            resolved[disk.name] = await prepare_container_disk(disk, overlays)
    return resolved
