"""Volumes handed over to a launcher whose guest runs, as the handler does it, and what the launcher reports of them."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from podvisor.domain.v1 import domain_pb2 as pb
from podvisor.launcher.v1 import launcher_pb2
from podvisor_launcher.rpc.volumes import serve_volumes
from podvisor_launcher.settings import Settings

from tests.unit.launcher.launched import Launcher, launcher
from tests.unit.launcher.specs import spec

MIB = 1 << 20
AWAITED, ATTACHED = pb.DISK_ATTACHMENT_AWAITED, pb.DISK_ATTACHMENT_ATTACHED


def plugged(name: str = "data", **changes: object) -> pb.DiskSpec:
    values: dict[str, object] = {
        "name": name,
        "bus": pb.DISK_BUS_SCSI,
        "device": pb.DISK_DEVICE_DISK,
        "hotpluggable": True,
        "volume": pb.VolumeDiskSource(
            handed_over=True, file="disk.img", create=True, capacity_bytes=MIB
        ),
    }
    return pb.DiskSpec(**(values | changes))  # type: ignore[arg-type]


def drive(*, with_volume: bool) -> pb.DiskSpec:
    fields: dict[str, object] = {"name": "cd", "bus": pb.DISK_BUS_SATA, "read_only": True}
    if with_volume:
        fields["volume"] = pb.VolumeDiskSource(handed_over=True, file="disk.img")
        fields["hotpluggable"] = True
    return pb.DiskSpec(device=pb.DISK_DEVICE_CDROM, **fields)  # type: ignore[arg-type]


def reported(report: pb.DomainReport, name: str) -> pb.DiskReport:
    return next((disk for disk in report.disks if disk.name == name), pb.DiskReport())


@asynccontextmanager
async def running(settings: Settings, *disks: pb.DiskSpec, name: str) -> AsyncIterator[Launcher]:
    """A guest that runs, and the socket."""
    async with launcher(settings) as it:
        volumes = asyncio.create_task(
            serve_volumes(settings.volumes_socket, it.machine.take_volume)
        )
        await it.machine.apply(spec(name=name, disks=disks))
        await it.until(lambda report: bool(report.state == pb.DOMAIN_STATE_RUNNING))
        try:
            yield it
        finally:
            volumes.cancel()
            with suppress(asyncio.CancelledError):
                await volumes


async def until(it: Launcher, attachment: int, name: str = "data") -> pb.DiskReport:
    report = await it.until(lambda report: reported(report, name).attachment == attachment)
    return reported(report, name)


async def until_gone(it: Launcher, name: str = "data") -> None:
    await it.until(lambda report: all(disk.name != name for disk in report.disks))


async def hand_over(
    settings: Settings, *files: int, disk: str = "data", said: bytes | None = None
) -> launcher_pb2.VolumeReceipt:
    """As the handler does; closes the files."""
    message = launcher_pb2.VolumeHandover(disk=disk, capacity_bytes=MIB).SerializeToString()

    def talk() -> bytes:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.settimeout(5)
            connection.connect(str(settings.volumes_socket))
            socket.send_fds(connection, [message if said is None else said], list(files))
            for file in files:
                os.close(file)
            return connection.recv(4096)

    return launcher_pb2.VolumeReceipt.FromString(await asyncio.to_thread(talk))
