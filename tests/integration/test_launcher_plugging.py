"""A volume and an interface that come to a guest whose launcher is in a container: libvirt and QEMU as they are, and no Kubernetes.

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

from tests.support.launcher_container import (
    ROOMY_GUEST,
    Container,
    docker,
    make_pod_network,
    running,
    spec,
)

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
                    if report.devices_settled and sizes.get("data") == size_bytes:
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


def roomy_spec(generation: int = 1) -> domain.DomainSpec:
    """The machine of a guest that finds devices which come later."""
    wanted = spec(tap=True)
    wanted.generation = generation
    wanted.memory.guest_bytes = 128 * MIB
    return wanted


def with_interface(generation: int, *, link_down: bool = False) -> domain.DomainSpec:
    wanted = roomy_spec(generation)
    wanted.interfaces.add(
        name="later",
        model="virtio",
        mac="02:00:00:00:00:02",
        tap="tap1",
        is_pluggable=True,
        link_down=link_down,
    )
    return wanted


async def until_interface(
    container: Container, name: str, *, link_up: bool | None
) -> domain.DomainReport:
    """The first settled report of an interface with or without a carrier; of none for `link_up` None."""
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):  # its launcher was killed
                watching = container.launcher.WatchDomain(
                    pb.WatchDomainRequest(), wait_for_ready=True
                )
                async for response in watching:
                    report = response.report
                    links = {each.name: each.link_up for each in report.interfaces}
                    if report.devices_settled and links.get(name) == link_up:
                        return report


async def test_an_interface_comes_loses_its_carrier_and_goes(image: str, tmp_path: Path) -> None:
    """The guest sees each, and a launcher that knows nothing of it has it go."""

    async def apply(wanted: domain.DomainSpec) -> None:
        request = pb.ApplyDomainRequest(spec=wanted)
        response = await it.launcher.ApplyDomain(request, wait_for_ready=True, timeout=10)
        assert list(response.restart_required) == []

    async with running(image, tmp_path, ROOMY_GUEST) as it:
        await it.launcher.GetInfo(pb.GetInfoRequest(), wait_for_ready=True, timeout=20)
        make_pod_network(it, "tap1")
        await apply(roomy_spec())
        await it.console_shows("myvm login:")
        await it.serial(("login:", "root\n"), ("Password:", "opensesame\n"), ("# ", ""))
        await apply(with_interface(2))
        first = await until_interface(it, "later", link_up=True)
        # The guest takes a moment to find it; what is typed is echoed, and is not to be taken for the answer.
        looks = "until grep 00:00:0[2] /sys/class/net/*/address; do usleep 100000; done\n"
        await it.serial(("# ", looks), ("02:00:00:00:00:02[^#]*# ", ""))
        await apply(with_interface(3, link_down=True))
        await until_interface(it, "later", link_up=False)
        os.kill(it.processes()["launcher"], signal.SIGKILL)
        second = await until_interface(it, "later", link_up=False)
        assert second.epoch != first.epoch
        await apply(roomy_spec(4))
        await until_interface(it, "later", link_up=None)
