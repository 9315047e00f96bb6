"""Volumes that somebody else has opened, with real files, and devices where they can be had."""

import asyncio
import fcntl
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from podvisor.domain.v1 import domain_pb2 as pb
from podvisor_launcher.domain.elements import Domain
from podvisor_launcher.domain.hotplug import device_of, is_handed_over
from podvisor_launcher.domain.xml import parse_xml
from podvisor_launcher.storage.errors import InvalidDisk
from podvisor_launcher.storage.handed_over import OpenVolume, prepare_handed_over, set_direct
from podvisor_launcher.storage.qemu_img import image_info
from podvisor_launcher.storage.volume import FORMAT_ATTRIBUTE

MIB = 1 << 20


def disk(
    *, file: str = "disk.img", source: dict[str, object] | None = None, **changes: object
) -> pb.DiskSpec:
    values: dict[str, object] = {
        "handed_over": True,
        "file": file,
        "create": True,
        "capacity_bytes": 4 * MIB,
    }
    volume = pb.VolumeDiskSource(**(values | (source or {})))  # type: ignore[arg-type]
    fields: dict[str, object] = {"name": "data", "device": pb.DISK_DEVICE_DISK, "volume": volume}
    return pb.DiskSpec(**(fields | changes))  # type: ignore[arg-type]


@pytest.fixture
def opened() -> Iterator[Callable[[Path | str, int], int]]:
    files: list[int] = []

    def open_(path: Path | str, flags: int) -> int:
        files.append(os.open(path, flags))
        return files[-1]

    yield open_
    for each in files:
        os.close(each)


def prepared(wanted: pb.DiskSpec, descriptor: int) -> OpenVolume:
    return asyncio.run(prepare_handed_over(wanted, descriptor))


def mode_of(descriptor: int) -> int:
    return fcntl.fcntl(descriptor, fcntl.F_GETFL) & (os.O_ACCMODE | os.O_DIRECT)


def test_an_image_is_made(tmp_path: Path, opened: Callable[..., int]) -> None:
    path = tmp_path / "disk.img"
    path.touch()
    file = opened(path, os.O_RDWR)
    volume = prepared(disk(match_volume_block_sizes=True), file)
    assert (volume.descriptor, volume.format, volume.is_block) == (file, "raw", False)
    assert volume.logical_block_bytes == volume.physical_block_bytes >= 512
    assert path.stat().st_size == 4 * MIB
    assert os.getxattr(path, FORMAT_ATTRIBUTE) == b"raw"


def test_a_file_is_looked_at_whatever_the_mode_it_came_in(
    tmp_path: Path, opened: Callable[..., int]
) -> None:
    """Past the page cache, nobody reads 512 bytes into memory of any address."""
    path = tmp_path / "disk.img"
    path.write_bytes(b"KDMV" + bytes(MIB))
    try:
        file = opened(path, os.O_RDWR | os.O_DIRECT)
    except OSError:
        pytest.skip("the file system of the tests cannot do it")
    with pytest.raises(InvalidDisk, match="VMDK"):
        prepared(disk(), file)
    os.truncate(path, 0)
    assert prepared(disk(), file).direct
    for direct in (True, False):
        set_direct(file, direct=direct)
        assert bool(mode_of(file) & os.O_DIRECT) is direct


def test_a_qcow2_image_grows_to_its_volume(tmp_path: Path, opened: Callable[..., int]) -> None:
    path = tmp_path / "disk.img"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(path), "1M"], check=True)
    volume = prepared(disk(), opened(path, os.O_RDWR))
    assert volume.format == "qcow2"
    assert asyncio.run(image_info(path, "qcow2")).virtual_size_bytes == 4 * MIB
    assert os.getxattr(path, FORMAT_ATTRIBUTE) == b"qcow2"


def test_what_names_another_file_is_refused(tmp_path: Path, opened: Callable[..., int]) -> None:
    path = tmp_path / "disk.img"
    command = [
        "qemu-img",
        "create",
        "-q",
        "-f",
        "qcow2",
        "-b",
        "/etc/passwd",
        "-F",
        "raw",
        str(path),
    ]
    subprocess.run(command, check=True)
    with pytest.raises(InvalidDisk, match=r'Volume "data": .*backing file'):
        prepared(disk(), opened(path, os.O_RDWR))


@pytest.mark.parametrize("changes", [{"read_only": True}, {"device": pb.DISK_DEVICE_CDROM}])
def test_what_is_only_read_is_not_open_for_writing(
    changes: dict[str, object], tmp_path: Path, opened: Callable[..., int]
) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(MIB))
    wanted = disk(source={"create": False}, **changes)  # type: ignore[arg-type]
    volume = prepared(wanted, opened(path, os.O_RDWR))
    assert mode_of(volume.descriptor) == os.O_RDONLY
    os.close(volume.descriptor)
    assert path.stat().st_size == MIB
    assert os.listxattr(path) == []


def test_what_will_not_do(tmp_path: Path, opened: Callable[..., int]) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(MIB))
    pipe, other_end = os.pipe()
    try:
        for wanted, file, words in (
            (disk(), opened(path, os.O_RDONLY), "open for reading"),
            (disk(file=""), opened(path, os.O_RDWR), "a device is expected"),
            (disk(), pipe, "an image in a file is expected"),
            (disk(), opened(tmp_path, os.O_RDONLY), "an image in a file is expected"),
            (disk(source={"ephemeral": True}), opened(path, os.O_RDWR), "ephemeral"),
        ):
            with pytest.raises(InvalidDisk, match=f'Volume "data": .*{words}'):
                prepared(wanted, file)
    finally:
        os.close(pipe)
        os.close(other_end)


def test_a_device(tmp_path: Path, opened: Callable[..., int]) -> None:
    (tmp_path / "image").write_bytes(b"KDMV" + bytes(MIB))
    command = ["losetup", "--find", "--show", str(tmp_path / "image")]
    try:
        made = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("there are no loop devices")
    try:
        file = os.open(made, os.O_RDWR)
        volume = prepared(disk(file="", match_volume_block_sizes=True), file)
        assert (volume.format, volume.is_block, volume.logical_block_bytes) == ("raw", True, 512)
        with pytest.raises(InvalidDisk, match="an image in a file is expected"):
            prepared(disk(), file)
        os.close(file)
    finally:
        subprocess.run(["losetup", "--detach", made], check=True)


def test_every_device_has_a_set_of_its_own() -> None:
    taken = "<disk type='block'><source dev='/dev/fdset/1000'/><target dev='sda'/></disk>"
    plain = (
        "<domain type='test'><name>x</name><memory>1</memory><vcpu>1</vcpu>"
        "<os><type>hvm</type></os><devices>{}</devices></domain>"
    )
    assert device_of(parse_xml(Domain, plain.format(""))).path == "/dev/fdset/1000"
    second = device_of(parse_xml(Domain, plain.format(taken)))
    assert second.path == "/dev/fdset/1001"
    assert is_handed_over(second.path)
    assert not is_handed_over("/dev/podvisor/data")
