"""All disks of a specification, made ready, and what is shared with the guest looked at."""

import asyncio
from pathlib import Path

from podvisor.domain.v1 import domain_pb2 as pb

from podvisor_launcher.domain.build import ResolvedDisk
from podvisor_launcher.storage.cloud_init import prepare_cloud_init
from podvisor_launcher.storage.container_disk import prepare_container_disk
from podvisor_launcher.storage.virtiofs import check_shares


async def prepare_disks(
    spec: pb.DomainSpec, *, overlays: Path, cloud_init: Path
) -> dict[str, ResolvedDisk]:
    """The files behind every disk, by its name, in two directories that exist. Raises DiskUnavailable for the first disk, in
    the order of the specification, that cannot be made, then for a tree of files that is not there yet. Overlays begin empty: a
    pod runs one guest, once, so this must not be called while it runs."""

    async def prepare(disk: pb.DiskSpec) -> ResolvedDisk:
        if disk.WhichOneof("source") == "cloud_init":
            return prepare_cloud_init(disk, cloud_init)
        return await prepare_container_disk(disk, overlays)

    # In parallel: one disk waits for qemu-img while another's image is written.
    outcomes = await asyncio.gather(*map(prepare, spec.disks), return_exceptions=True)
    resolved = {}
    for disk, outcome in zip(spec.disks, outcomes, strict=True):
        if isinstance(outcome, BaseException):
            raise outcome
        resolved[disk.name] = outcome
    await asyncio.to_thread(check_shares, spec.filesystems)
    return resolved
