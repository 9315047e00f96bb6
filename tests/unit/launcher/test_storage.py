"""Container disks, and all disks of a machine, with the real qemu-img."""

import json
import os
import resource
import signal
import subprocess
from pathlib import Path

import pytest
from podvisor.domain.v1 import domain_pb2 as pb
from podvisor_launcher.domain.build import Image
from podvisor_launcher.storage import qemu_img as qemu_img_module
from podvisor_launcher.storage import serial_log
from podvisor_launcher.storage.bulkheads import Bulkheads
from podvisor_launcher.storage.container_disk import prepare_container_disk
from podvisor_launcher.storage.errors import DiskUnavailable, InvalidDisk
from podvisor_launcher.storage.files import UnsafePath, plain_file_below
from podvisor_launcher.storage.overlay import prepare_empty_disk
from podvisor_launcher.storage.prepare import prepare_disks
from podvisor_launcher.storage.qemu_img import QemuImgFailed, image_info, parse_info

from tests.unit.launcher.specs import cloud_init_disk, container_disk, spec

SECRET = b"#cloud-config\npassword: hunter2\n"


def qemu_img(*arguments: str | Path) -> None:
    subprocess.run(["qemu-img", *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The mounted root of a container image with an empty /disk."""
    (tmp_path / "image/disk").mkdir(parents=True)
    return tmp_path / "image"


@pytest.fixture
def overlays(tmp_path: Path) -> Path:
    (tmp_path / "overlays").mkdir()
    return tmp_path / "overlays"


def names_in(directory: Path) -> list[str]:
    return sorted(each.name for each in directory.iterdir())


@pytest.mark.parametrize("format_", ["qcow2", "raw"])
async def test_a_disk_gets_an_overlay(format_: str, root: Path, overlays: Path) -> None:
    disk = root / "disk/system.img"
    qemu_img("create", "-f", format_, disk, "1M")
    before = disk.read_bytes()
    resolved = await prepare_container_disk(container_disk("root", str(root)), overlays)
    assert resolved.backing == Image(str(disk), format_)
    assert resolved.image == Image(str(overlays / "root.qcow2"), "qcow2")
    info = await image_info(Path(resolved.image.path), "qcow2")
    assert (info.virtual_size_bytes, info.backing_file) == (1 << 20, str(disk))
    assert disk.read_bytes() == before
    assert names_in(overlays) == ["root.qcow2"]


async def test_what_is_only_read_needs_no_overlay(root: Path, overlays: Path) -> None:
    qemu_img("create", "-f", "raw", root / "disk/cd.iso", "1M")
    for changes in ({"read_only": True}, {"device": pb.DISK_DEVICE_CDROM, "bus": pb.DISK_BUS_SATA}):
        resolved = await prepare_container_disk(
            container_disk("cd", str(root), **changes), overlays
        )
        assert (resolved.backing, resolved.read_only) == (None, True)
    assert names_in(overlays) == []


async def test_the_root_may_be_a_link_that_comes_later(
    root: Path, overlays: Path, tmp_path: Path
) -> None:
    qemu_img("create", "-f", "raw", root / "disk/d", "1M")
    link = tmp_path / "link"
    with pytest.raises(InvalidDisk, match="not there yet"):
        await prepare_container_disk(container_disk("data", str(link)), overlays)
    link.symlink_to(root)
    resolved = await prepare_container_disk(container_disk("data", str(link)), overlays)
    assert resolved.backing == Image(str(link / "disk/d"), "raw")


async def test_a_path_inside_the_image(root: Path, overlays: Path) -> None:
    (root / "other").mkdir()
    qemu_img("create", "-f", "raw", root / "other/one.img", "1M")
    source = pb.ContainerDiskSource(image_root=str(root), path="/other/one.img")
    resolved = await prepare_container_disk(container_disk(container_disk=source), overlays)
    assert resolved.backing == Image(str(root / "other/one.img"), "raw")


def _nothing(root: Path) -> None:
    (root / "disk").rmdir()


def _empty(root: Path) -> None:
    (root / "disk/lost+found").mkdir()


def _two(root: Path) -> None:
    for name in "ab":
        qemu_img("create", "-f", "raw", root / f"disk/{name}", "1M")


def _link(root: Path) -> None:
    (root / "disk/disk.img").symlink_to("/etc/passwd")


def _linked_directory(root: Path) -> None:
    (root / "disk").rmdir()
    (root / "other").mkdir()
    qemu_img("create", "-f", "raw", root / "other/disk.img", "1M")
    (root / "disk").symlink_to(root / "other")


def _backing(root: Path) -> None:
    qemu_img("create", "-f", "raw", root / "secret", "1M")
    qemu_img("create", "-f", "qcow2", "-b", root / "secret", "-F", "raw", root / "disk/disk.img")


def _data_file(root: Path) -> None:
    data = f"data_file={root / 'data'},data_file_raw=on"
    qemu_img("create", "-f", "qcow2", "-o", data, root / "disk/disk.img", "1M")


def _vmdk(root: Path) -> None:
    qemu_img("create", "-f", "vmdk", root / "disk/disk.img", "1M")


def _truncated(root: Path) -> None:
    (root / "disk/disk.img").write_bytes(b"QFI\xfb\x00\x00\x00\x03")


def _text(root: Path) -> None:
    (root / "disk/disk.img").touch()


def _odd_name(root: Path) -> None:
    qemu_img("create", "-f", "raw", root / "disk/d", "1M")
    (root / "disk/d").rename(root / "disk" / os.fsdecode(b"d\xff"))


def _fifo(root: Path) -> None:
    os.mkfifo(root / "disk/disk.img")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_nothing, "no directory /disk"),
        (_empty, "no file in /disk"),
        (_two, "2 files in /disk"),
        (_link, "symbolic link"),
        (_backing, "backing file"),
        (_data_file, "data file"),
        (_vmdk, "VMDK, which is not supported"),
        (_truncated, "cut off"),
        (_text, "too small"),
        (_linked_directory, "no directory /disk"),
        (_odd_name, "cannot be shown"),
        (_fifo, "a named pipe, not a plain file"),
    ],
)
async def test_an_image_that_will_not_do(
    spoil: object, words: str, root: Path, overlays: Path
) -> None:
    spoil(root)  # type: ignore[operator]
    with pytest.raises(InvalidDisk, match=words) as caught:
        await prepare_container_disk(container_disk("data", str(root)), overlays)
    assert 'Volume "data"' in str(caught.value)
    assert names_in(overlays) == []


async def test_an_image_that_says_too_much(
    root: Path, overlays: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qemu_img_module, "_OUTPUT_LIMIT_BYTES", 64)
    qemu_img("create", "-f", "qcow2", root / "disk/disk.img", "1M")
    with pytest.raises(InvalidDisk, match="more to say"):
        await prepare_container_disk(container_disk("data", str(root)), overlays)


async def test_what_reads_images_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that goes on for ever, as a made-up image might have it do, is ended by the limit of its CPU time; its memory is limited, too."""
    program = tmp_path / "qemu-img"
    program.write_text(
        f"#!/bin/sh\nuntil ulimit -v | grep -qx {(1 << 30) // 1024}; do :; done\nwhile :; do :; done\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setitem(qemu_img_module._LIMITS, resource.RLIMIT_CPU, 1)
    with pytest.raises(QemuImgFailed, match=f"ended with -{signal.SIGKILL}"):
        await image_info(tmp_path, "qcow2")


@pytest.mark.parametrize(
    "relative", ["../passwd", "a/../../x", "", "/", "dir", "dir/file/x", "link/file", "absent"]
)
def test_no_path_leads_out_of_the_image(relative: str, tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir/file").touch()
    (tmp_path / "link").symlink_to("dir")
    with pytest.raises(UnsafePath):
        plain_file_below(tmp_path, relative)
    assert plain_file_below(tmp_path, "//dir/./file") == tmp_path / "dir/file"


def test_an_encrypted_image_is_seen() -> None:
    answer = {"format": "qcow2", "virtual-size": 512, "encrypted": True}
    assert parse_info(json.dumps(answer).encode()).encrypted


async def test_disks_come_in_one_call(root: Path, overlays: Path, tmp_path: Path) -> None:
    qemu_img("create", "-f", "raw", root / "disk/d", "1M")
    (tmp_path / "files").mkdir()
    (tmp_path / "files/key").touch()
    files = pb.FilesSource(directory=str(tmp_path / "files"))
    volume = pb.VolumeDiskSource(
        path=str(tmp_path), file="disk.img", create=True, capacity_bytes=1 << 20
    )
    machine = spec(
        disks=[
            container_disk("root", str(root)),
            cloud_init_disk(user_data=SECRET),
            pb.DiskSpec(name="files", files=files),
            pb.DiskSpec(name="volume", volume=volume),
            pb.DiskSpec(name="empty", empty=pb.EmptyDiskSource(capacity_bytes=10 << 30)),
            pb.DiskSpec(name="drive", device=pb.DISK_DEVICE_CDROM),
            pb.DiskSpec(name="plugged", volume=volume, hotpluggable=True),
            pb.DiskSpec(name="handed", volume=pb.VolumeDiskSource(handed_over=True)),
        ]
    )
    disks = await prepare_disks(
        machine, overlays=overlays, cloud_init=tmp_path, bulkheads=Bulkheads()
    )
    assert list(disks) == ["root", "cloudinit", "files", "volume", "empty"]
    for name in ("cloudinit", "files"):
        iso = tmp_path / f"{name}.iso"
        assert disks[name].image == Image(str(iso), "raw")
        assert disks[name].read_only
        assert iso.stat().st_mode & 0o777 == 0o600


async def test_an_empty_disk_takes_no_space(overlays: Path) -> None:
    disk = pb.DiskSpec(name="scratch", empty=pb.EmptyDiskSource(capacity_bytes=(10 << 30) + 1))
    resolved = prepare_empty_disk(disk, overlays)
    path = Path(resolved.image.path)
    assert (resolved.backing, resolved.read_only) == (None, False)
    assert (await image_info(path, "qcow2")).virtual_size_bytes == (10 << 30) + 512
    assert os.stat(path).st_blocks * 512 < 1 << 20
    with pytest.raises(InvalidDisk, match=r'Volume "scratch": .* needs a capacity'):
        prepare_empty_disk(pb.DiskSpec(name="scratch", empty=pb.EmptyDiskSource()), overlays)


async def test_what_cannot_be_made_is_named_in_order(overlays: Path, tmp_path: Path) -> None:
    missing = pb.FilesSource(directory=str(tmp_path / "absent"))
    machine = spec(
        disks=[
            pb.DiskSpec(name="first", files=missing),
            container_disk("second", str(tmp_path / "absent")),
        ]
    )
    with pytest.raises(DiskUnavailable, match='"first"'):
        await prepare_disks(machine, overlays=overlays, cloud_init=tmp_path, bulkheads=Bulkheads())


def test_the_serial_log_stays_small(tmp_path: Path) -> None:
    log = tmp_path / "serial0.log"
    assert not serial_log.cut_if_too_long(log)
    with log.open("ab") as guest:
        guest.write(b"x" * serial_log.LIMIT_BYTES)
        guest.flush()
        assert not serial_log.cut_if_too_long(log)
        guest.write(b"y")
        guest.flush()
        assert serial_log.cut_if_too_long(log)
        guest.write(b"login: ")
        guest.flush()
    assert log.read_bytes() == b"login: "
