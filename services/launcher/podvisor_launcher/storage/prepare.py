"""All disks of a specification, made ready, and what is shared with the guest looked at."""

import asyncio
from functools import partial
from pathlib import Path

from podvisor.domain.v1 import domain_pb2 as pb

from podvisor_launcher.domain.disks import ResolvedDisk, has_changing_volume
from podvisor_launcher.storage.bulkheads import Bulkheads
from podvisor_launcher.storage.cloud_init import prepare_cloud_init
from podvisor_launcher.storage.container_disk import prepare_container_disk
from podvisor_launcher.storage.files_disk import prepare_files_disk
from podvisor_launcher.storage.kernel_boot import check_kernel
from podvisor_launcher.storage.overlay import prepare_empty_disk
from podvisor_launcher.storage.virtiofs import check_shares
from podvisor_launcher.storage.volume import prepare_volume

_TIMEOUT_S = 35.0  # qemu-img has thirty


async def prepare_disks(
    spec: pb.DomainSpec, *, overlays: Path, cloud_init: Path, bulkheads: Bulkheads
) -> dict[str, ResolvedDisk]:
    """The files behind the disks, by the disk's name, in two directories that exist. Left out are CD-ROM drives without a disc,
    and disks that come and go while the guest runs.

    Raises DiskUnavailable for the first disk, in the order of the specification, that cannot be made, then for a tree of files
    that is not there yet, then for a kernel that is not. Overlays begin empty: a pod runs one guest, once, so this must not be called while it runs.
    """

    async def prepare(disk: pb.DiskSpec) -> ResolvedDisk:
        match disk.WhichOneof("source"):
            case "cloud_init":
                return await asyncio.to_thread(prepare_cloud_init, spec, disk, cloud_init)
            case "files":
                return await asyncio.to_thread(prepare_files_disk, disk, cloud_init)
            case "volume":
                work = partial(prepare_volume, disk, overlays)
                return await bulkheads.run(disk.name, work, _TIMEOUT_S)
            case "empty":
                return await asyncio.to_thread(prepare_empty_disk, disk, overlays)
            case _:
                return await prepare_container_disk(disk, overlays)

    disks = [disk for disk in spec.disks if is_fixed(disk)]
    # In parallel: one disk waits for qemu-img while another's image is written.
    outcomes = await asyncio.gather(*map(prepare, disks), return_exceptions=True)
    resolved = {}
    for disk, outcome in zip(disks, outcomes, strict=True):
        if isinstance(outcome, BaseException):
            raise outcome
        resolved[disk.name] = outcome
    for share in spec.filesystems:
        await bulkheads.run_in_thread(share.name, partial(check_shares, [share]), _TIMEOUT_S)
    if spec.HasField("kernel_boot"):
        await asyncio.to_thread(check_kernel, spec.kernel_boot)
    return resolved


def is_fixed(disk: pb.DiskSpec) -> bool:
    """Whether there is something behind the disk from the start to the end of the guest."""
    return disk.WhichOneof("source") is not None and not has_changing_volume(disk)
