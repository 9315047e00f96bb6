"""Block volumes, with a device of the kernel's where one can be had; and what a file or device allows."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from podvisor.domain.v1 import domain_pb2 as pb
from podvisor_launcher.domain.build import Image, ResolvedDisk
from podvisor_launcher.storage.errors import InvalidDisk
from podvisor_launcher.storage.qemu_img import image_info
from podvisor_launcher.storage.resolve import block_sizes, takes_direct
from podvisor_launcher.storage.volume import grow_volume, prepare_volume

MIB = 1 << 20


def block_disk(path: str | Path, *, ephemeral: bool = False, **changes: object) -> pb.DiskSpec:
    volume = pb.VolumeDiskSource(path=str(path), ephemeral=ephemeral, capacity_bytes=4 * MIB)
    fields: dict[str, object] = {"name": "block", "device": pb.DISK_DEVICE_DISK, "volume": volume}
    return pb.DiskSpec(**(fields | changes))  # type: ignore[arg-type]


def prepared(disk: pb.DiskSpec, overlays: Path) -> ResolvedDisk:
    return asyncio.run(prepare_volume(disk, overlays))


@pytest.fixture
def device(tmp_path: Path) -> Iterator[str]:
    """A device of 4 MiB with sectors of 4096 bytes that looks like an image with a backing file."""
    image = tmp_path / "device"
    qemu = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", "/etc/passwd", "-F", "raw", str(image)]
    subprocess.run(qemu, check=True)
    os.truncate(image, 4 * MIB)
    command = ["losetup", "--find", "--show", "--sector-size", "4096", str(image)]
    try:
        made = subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("there are no loop devices")
    yield made.stdout.strip()
    subprocess.run(["losetup", "--detach", made.stdout.strip()], check=True)


def test_a_device_is_raw_whatever_it_looks_like(device: str, tmp_path: Path) -> None:
    resolved = prepared(block_disk(device, match_volume_block_sizes=True), tmp_path)
    assert resolved.image == Image(device, "raw", is_block=True)
    assert (resolved.read_only, resolved.backing) == (False, None)
    assert (resolved.logical_block_bytes, resolved.physical_block_bytes) == (4096, 4096)
    assert resolved.direct == takes_direct(resolved.image, writing=True)


def test_a_device_that_is_only_read(device: str, tmp_path: Path) -> None:
    resolved = prepared(block_disk(device, read_only=True), tmp_path)
    assert (resolved.read_only, resolved.logical_block_bytes) == (True, 0)


def test_a_lun_is_of_a_device_that_takes_scsi_commands(device: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidDisk, match='Volume "block": its device takes no SCSI commands'):
        prepared(block_disk(device, device=pb.DISK_DEVICE_LUN), tmp_path)


def test_an_overlay_over_a_device(device: str, tmp_path: Path) -> None:
    disk = block_disk(device, ephemeral=True, match_volume_block_sizes=True)
    resolved = prepared(disk, tmp_path)
    assert resolved.image == Image(str(tmp_path / "block.qcow2"), "qcow2")
    assert resolved.backing == Image(device, "raw", is_block=True)
    assert resolved.logical_block_bytes == 4096
    assert asyncio.run(image_info(tmp_path / "block.qcow2", "qcow2")).virtual_size_bytes == 4 * MIB


def test_a_device_grows_by_itself(device: str, tmp_path: Path) -> None:
    resolved = prepared(block_disk(device), tmp_path)
    os.truncate(tmp_path / "device", 8 * MIB)
    subprocess.run(["losetup", "--set-capacity", device], check=True)
    assert grow_volume(block_disk(device), resolved) == 8 * MIB


def test_a_device_that_is_not_there_yet(tmp_path: Path) -> None:
    with pytest.raises(InvalidDisk, match='Volume "block": its device is not there yet'):
        prepared(block_disk(tmp_path / "absent"), tmp_path)


def test_what_is_no_device(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    for name in ("file", "pipe", "."):
        with pytest.raises(InvalidDisk, match=r'Volume "block": .* no block device'):
            prepared(block_disk(tmp_path / name), tmp_path)


def test_a_file_has_the_blocks_of_its_file_system(tmp_path: Path) -> None:
    (tmp_path / "image").touch()
    size = min(max(os.statvfs(tmp_path).f_bsize, 512), 4096)
    assert block_sizes(Image(str(tmp_path / "image"), "raw")) == (size, size)


def test_what_cannot_be_opened_past_the_page_cache() -> None:
    assert not takes_direct(Image("/proc/self/status", "raw"), writing=False)


def test_a_file_that_can_be_opened_past_the_page_cache(tmp_path: Path) -> None:
    (tmp_path / "image").touch()
    try:
        os.close(os.open(tmp_path / "image", os.O_RDWR | os.O_DIRECT))
    except OSError:
        pytest.skip("the file system of the tests cannot do it")
    assert takes_direct(Image(str(tmp_path / "image"), "raw"), writing=True)
