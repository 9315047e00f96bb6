"""Container disks and NoCloud images, with the real qemu-img."""

import json
import os
import subprocess
from io import BytesIO
from pathlib import Path

import pycdlib
import pytest
from podvisor.domain.v1 import domain_pb2 as pb
from podvisor_launcher.domain.build import Image
from podvisor_launcher.storage import qemu_img as qemu_img_module
from podvisor_launcher.storage import serial_log
from podvisor_launcher.storage.cloud_init import NoCloud, make_iso, read_source
from podvisor_launcher.storage.container_disk import prepare_container_disk
from podvisor_launcher.storage.errors import InvalidDisk, MissingSecret
from podvisor_launcher.storage.files import UnsafePath, plain_file_below
from podvisor_launcher.storage.iso9660 import make_image
from podvisor_launcher.storage.prepare import prepare_disks
from podvisor_launcher.storage.qemu_img import image_info, parse_info

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
    info = await image_info(Path(resolved.image.path))
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
        (_vmdk, "vmdk is not supported"),
        (_truncated, "Could not"),
        (_text, "too small"),
        (_odd_name, "cannot be shown"),
        (_fifo, "not a plain file"),
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


def read_iso(image: bytes) -> dict[str, bytes]:
    iso = pycdlib.PyCdlib()
    iso.open_fp(BytesIO(image))
    assert iso.pvd.volume_identifier.strip() == b"cidata"
    files = {}
    for entry in iso.list_children(joliet_path="/"):
        name = entry.file_identifier().decode("utf-16-be", "replace")
        if entry.is_file():
            content = BytesIO()
            iso.get_file_from_iso_fp(content, joliet_path=f"/{name}")
            files[name] = content.getvalue()
    iso.close()
    return files


def test_a_nocloud_image_holds_what_cloud_init_reads() -> None:
    source = cloud_init_disk(user_data=SECRET, network_data=b"version: 2\n").cloud_init
    assert read_iso(make_iso(read_source("c", source))) == {
        "meta-data": b"instance-id: i-1\nlocal-hostname: myvm\n",
        "user-data": SECRET,
        "network-config": b"version: 2\n",
    }


def test_without_network_data_there_is_no_such_file() -> None:
    assert set(read_iso(make_iso(read_source("c", cloud_init_disk().cloud_init)))) == {
        "meta-data",
        "user-data",
    }


def test_an_image_is_readable_without_joliet_and_from_any_size() -> None:
    contents = {"empty": b"", "sector": bytes(2048), "user-data": b"x" * 5000}
    image = make_image("cidata", contents)
    assert image == make_image("cidata", contents)
    iso = pycdlib.PyCdlib()
    iso.open_fp(BytesIO(image))
    for name, content in contents.items():
        read = BytesIO()
        iso.get_file_from_iso_fp(read, iso_path=f"/{name.upper()}.;1")
        assert read.getvalue() == content
    assert iso.pvd.space_size * 2048 == len(image)
    iso.close()


def test_odd_names_stay_yaml() -> None:
    content = read_source("c", cloud_init_disk(hostname="a: b", instance_id="1\n2").cloud_init)
    assert content.meta_data == b'instance-id: "1\\n2"\nlocal-hostname: "a: b"\n'


@pytest.mark.parametrize("hostname", ["123", "1e3", "0x1f", "2026-01-01", "no", "true", "null"])
def test_a_host_name_stays_a_string_in_yaml(hostname: str) -> None:
    content = read_source("c", cloud_init_disk(hostname=hostname).cloud_init)
    assert f'local-hostname: "{hostname}"\n'.encode() in content.meta_data


@pytest.mark.parametrize("key", ["userdata", "userData"])
def test_user_data_from_a_secret(key: str, tmp_path: Path) -> None:
    (tmp_path / key).write_bytes(SECRET)
    source = cloud_init_disk(user_data_secret_dir=str(tmp_path)).cloud_init
    assert read_source("c", source).user_data == SECRET


@pytest.mark.parametrize("key", ["networkdata", "networkData"])
def test_network_data_from_a_secret(key: str, tmp_path: Path) -> None:
    (tmp_path / key).write_bytes(b"version: 2\n")
    source = cloud_init_disk(network_data_secret_dir=str(tmp_path)).cloud_init
    assert read_source("c", source).network_config == b"version: 2\n"


def test_a_missing_secret_is_named_and_can_heal(tmp_path: Path) -> None:
    source = cloud_init_disk(user_data_secret_dir=str(tmp_path / "absent")).cloud_init
    with pytest.raises(MissingSecret, match='Volume "c"'):
        read_source("c", source)
    (tmp_path / "absent").mkdir()
    with pytest.raises(MissingSecret, match='"userdata" or "userData"'):
        read_source("c", source)
    (tmp_path / "absent/userdata").write_bytes(SECRET)
    assert read_source("c", source).user_data == SECRET


def test_confidential_data_has_no_repr() -> None:
    assert "hunter2" not in repr(NoCloud(b"", SECRET, SECRET))


async def test_disks_come_in_one_call(root: Path, overlays: Path, tmp_path: Path) -> None:
    qemu_img("create", "-f", "raw", root / "disk/d", "1M")
    machine = spec(disks=[container_disk("root", str(root)), cloud_init_disk(user_data=SECRET)])
    disks = await prepare_disks(machine, overlays=overlays, cloud_init=tmp_path)
    assert list(disks) == ["root", "cloudinit"]
    iso = tmp_path / "cloudinit.iso"
    assert disks["cloudinit"].image == Image(str(iso), "raw")
    assert iso.stat().st_mode & 0o777 == 0o600


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
