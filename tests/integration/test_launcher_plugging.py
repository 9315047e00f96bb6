"""A volume that is handed over to a launcher in a container: libvirt and QEMU as they are, and no Kubernetes.

Needs what test_launcher_container.py needs.
"""

import asyncio
import contextlib
import os
import signal
import socket
from pathlib import Path

import grpc
import pytest
from podvisor.domain.v1 import domain_pb2 as domain
from podvisor.launcher.v1 import launcher_pb2 as pb

from tests.support.launcher_container import Container, docker, running, spec

MIB = 1 << 20
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the container's sockets belong to user 107"),
    pytest.mark.timeout(120),
]


def with_plugged(capacity_bytes: int, generation: int) -> domain.DomainSpec:
    wanted = spec()
    wanted.generation = generation
    source = domain.VolumeDiskSource(
        handed_over=True, file="disk.img", create=True, capacity_bytes=capacity_bytes
    )
    wanted.disks.add(
        name="data",
        bus=domain.DISK_BUS_VIRTIO,
        device=domain.DISK_DEVICE_DISK,
        hotpluggable=True,
        dedicated_io_thread=True,
        volume=source,
    )
    return wanted


def hand_over(container: Container, image: Path, capacity_bytes: int) -> pb.VolumeReceipt:
    """As the handler does."""
    said = pb.VolumeHandover(disk="data", capacity_bytes=capacity_bytes).SerializeToString()
    with (
        image.open("r+b") as file,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection,
    ):
        connection.settimeout(10)
        connection.connect(str(container.sockets / "volumes.sock"))
        socket.send_fds(connection, [said], [file.fileno()])
        return pb.VolumeReceipt.FromString(connection.recv(4096))


async def until_plugged(container: Container, size_bytes: int) -> domain.DomainReport:
    """The first report of a settled disk of that size."""
    async with asyncio.timeout(40):
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):  # its launcher was killed
                watching = container.launcher.WatchDomain(
                    pb.WatchDomainRequest(), wait_for_ready=True
                )
                async for response in watching:
                    report = response.report
                    sizes = {disk.name: disk.capacity_bytes for disk in report.disks}
                    if report.disks_settled and sizes.get("data") == size_bytes:
                        return report


async def test_a_plugged_image_grows_and_outlives_its_launcher(image: str, tmp_path: Path) -> None:
    """With a thread of its own, and for a launcher that never had its descriptor."""
    disk = tmp_path / "disk.img"
    os.close(os.open(disk, os.O_CREAT | os.O_RDWR, 0o660))
    os.chown(disk, 107, 107)
    async with running(image, tmp_path) as it:
        await it.launcher.ApplyDomain(
            pb.ApplyDomainRequest(spec=with_plugged(8 * MIB, 1)), wait_for_ready=True, timeout=10
        )
        await it.until(domain.DOMAIN_STATE_RUNNING)
        assert (await asyncio.to_thread(hand_over, it, disk, 8 * MIB)).taken
        first = await until_plugged(it, 8 * MIB)
        described = docker("exec", it.name, "virsh", "dumpxml", "default_myvm")
        assert "iothread='1'" in described
        os.kill(it.processes()["launcher"], signal.SIGKILL)
        second = await until_plugged(it, 8 * MIB)
        assert second.epoch != first.epoch
        await it.launcher.ApplyDomain(
            pb.ApplyDomainRequest(spec=with_plugged(16 * MIB, 2)), wait_for_ready=True, timeout=10
        )
        await until_plugged(it, 16 * MIB)
    assert os.stat(disk).st_size == 16 * MIB
