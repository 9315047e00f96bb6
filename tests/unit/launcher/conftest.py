"""A launcher's world in a directory, with libvirt's own test driver for a hypervisor."""

import asyncio
import itertools
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import libvirt
import pytest
from podvisor.domain.v1 import domain_pb2 as pb
from podvisor_launcher.settings import Settings
from podvisor_launcher.virt.connection import LibvirtConnection
from podvisor_launcher.virt.events import ensure_event_loop

from tests.unit.launcher.specs import cloud_init_disk, container_disk, interface, spec

SECRET = b"#cloud-config\npassword: hunter2\n"
TEST_DRIVER = "test:///default"
_numbers = itertools.count()


@pytest.fixture
def name() -> Iterator[str]:
    """The name of a machine that no other test uses: the test driver's state is shared by all connections of a process, and
    lives as long as one of them."""
    ensure_event_loop()
    keeper = libvirt.open(TEST_DRIVER)
    name = f"vm{next(_numbers)}"
    yield name
    with suppress(libvirt.libvirtError):
        domain = keeper.lookupByName(f"default_{name}")
        if domain.isActive():
            domain.destroy()
        domain.undefine()
    keeper.close()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings for a launcher that lives in a directory of the test."""
    for directory in ("sockets", "private", "console"):
        (tmp_path / directory).mkdir()
    return Settings(run_dir=tmp_path, libvirt_uri=TEST_DRIVER)


@asynccontextmanager
async def connected(
    uri: str = TEST_DRIVER, on_change: Callable[[], None] = lambda: None
) -> AsyncIterator[LibvirtConnection]:
    """A connection that is up."""
    up = asyncio.Event()

    def changed() -> None:
        up.set()
        on_change()

    connection = LibvirtConnection(uri, changed)
    running = asyncio.create_task(connection.run(), name="libvirt")
    try:
        async with asyncio.timeout(10):
            while not connection.connected:  # an event of another domain may come first
                await up.wait()
                up.clear()
        yield connection
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


@pytest.fixture
def image_root(tmp_path: Path) -> str:
    disk = tmp_path / "image/disk"
    disk.mkdir(parents=True)
    command = ["qemu-img", "create", "-q", "-f", "qcow2", str(disk / "d.qcow2"), "1M"]
    subprocess.run(command, check=True)
    return str(tmp_path / "image")


@pytest.fixture
def machine_spec(name: str, image_root: str) -> pb.DomainSpec:
    disks = [container_disk("root", image_root), cloud_init_disk(user_data=SECRET)]
    return spec(name=name, disks=disks, interfaces=[interface()])
