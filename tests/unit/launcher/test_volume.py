"""Images in volumes and block volumes, with real files, extended attributes and qemu-img."""

import asyncio
import errno
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from podvisor.domain.v1 import domain_pb2 as pb
from podvisor_launcher.domain.build import Image, ResolvedDisk
from podvisor_launcher.storage.errors import InvalidDisk
from podvisor_launcher.storage.qemu_img import image_info
from podvisor_launcher.storage.volume import FORMAT_ATTRIBUTE, grow_volume, prepare_volume
from structlog.testing import capture_logs

MIB = 1 << 20
QCOW2_HEADER = b"QFI\xfb\x00\x00\x00\x03"


def qemu_img(*arguments: str | Path) -> None:
    subprocess.run(["qemu-img", *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture
def claim(tmp_path: Path) -> Path:
    """The file system of a claim."""
    (tmp_path / "claim").mkdir()
    return tmp_path / "claim"


@pytest.fixture
def image(claim: Path) -> Path:
    return claim / "disk.img"


@pytest.fixture
def overlays(tmp_path: Path) -> Path:
    (tmp_path / "overlays").mkdir()
    return tmp_path / "overlays"


def volume_disk(
    directory: Path, *, source: dict[str, object] | None = None, **changes: object
) -> pb.DiskSpec:
    """A disk of 4 MiB that a guest writes to."""
    values: dict[str, object] = {
        "path": str(directory),
        "file": "disk.img",
        "create": True,
        "capacity_bytes": 4 * MIB,
        "tolerated_shortfall_percent": 10,
        "reserve_bytes": 131072,
    }
    volume = pb.VolumeDiskSource(**(values | (source or {})))  # type: ignore[arg-type]
    fields: dict[str, object] = {"name": "data", "device": pb.DISK_DEVICE_DISK, "volume": volume}
    return pb.DiskSpec(**(fields | changes))  # type: ignore[arg-type]


def prepared(disk: pb.DiskSpec, overlays: Path) -> ResolvedDisk:
    return asyncio.run(prepare_volume(disk, overlays))


READ = {"source": {"create": False}, "read_only": True}
EPHEMERAL = {"source": {"create": False, "ephemeral": True}}


def mark_of(path: Path) -> str | None:
    try:
        return os.getxattr(path, FORMAT_ATTRIBUTE).decode()
    except OSError:
        return None


@pytest.fixture
def no_subprocess(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr("asyncio.create_subprocess_exec", refuse)


@pytest.fixture
def no_attributes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without extended attributes."""

    def refuse(*arguments: object) -> bytes:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(os, "getxattr", refuse)
    monkeypatch.setattr(os, "setxattr", refuse)


def free_space(monkeypatch: pytest.MonkeyPatch, free_bytes: int) -> None:
    """All file systems have that much left."""
    answer = SimpleNamespace(f_bavail=free_bytes // 512, f_frsize=512)
    monkeypatch.setattr(os, "fstatvfs", lambda descriptor: answer)


@pytest.mark.usefixtures("no_subprocess")
@pytest.mark.parametrize("exists", [True, False])
def test_an_image_is_made_where_there_is_none(
    exists: bool, claim: Path, image: Path, overlays: Path
) -> None:
    if exists:
        image.touch()  # as the handler does it
    resolved = prepared(volume_disk(claim), overlays)
    assert resolved.image == Image(str(image), "raw")
    assert (resolved.backing, resolved.read_only) == (None, False)
    found = os.stat(image)
    assert found.st_size == 4 * MIB
    assert found.st_blocks * 512 <= 8192
    assert not any(image.read_bytes())
    assert mark_of(image) == "raw"


def test_a_large_image_takes_no_longer(claim: Path, image: Path, overlays: Path) -> None:
    began = time.process_time()
    large = volume_disk(claim, source={"capacity_bytes": 10 << 30})
    prepared(large, overlays)
    prepared(large, overlays)
    assert os.stat(image).st_size == 10 << 30
    assert time.process_time() - began < 1  # reading it would take several


@pytest.mark.parametrize(("free", "size"), [(4 * MIB, 4 * MIB - 131072), (100 * MIB, 4 * MIB)])
def test_the_file_system_may_have_a_little_less(
    free: int, size: int, claim: Path, image: Path, overlays: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free_space(monkeypatch, free)
    prepared(volume_disk(claim), overlays)
    assert os.stat(image).st_size == size


def test_a_file_system_that_is_too_small(
    claim: Path, image: Path, overlays: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free_space(monkeypatch, 3 * MIB)
    with pytest.raises(InvalidDisk, match='Volume "data": its file system has 3 MiB free'):
        prepared(volume_disk(claim), overlays)
    assert os.stat(image).st_size == 0
    free_space(monkeypatch, 100 * MIB)
    prepared(volume_disk(claim), overlays)
    assert os.stat(image).st_size == 4 * MIB


def test_an_unknown_capacity_matters_only_where_something_is_made(
    claim: Path, image: Path, overlays: Path
) -> None:
    unknown = volume_disk(claim, source={"capacity_bytes": 0})
    with pytest.raises(InvalidDisk, match="not known yet"):
        prepared(unknown, overlays)
    image.write_bytes(b"x" * MIB)
    prepared(unknown, overlays)
    assert image.read_bytes() == b"x" * MIB


@pytest.mark.usefixtures("no_subprocess")
def test_an_image_grows_and_never_shrinks(claim: Path, image: Path, overlays: Path) -> None:
    image.write_bytes(b"x" * MIB)
    prepared(volume_disk(claim), overlays)
    assert image.read_bytes() == b"x" * MIB + bytes(3 * MIB)
    prepared(volume_disk(claim, source={"capacity_bytes": 2 * MIB}), overlays)
    assert os.stat(image).st_size == 4 * MIB


def test_a_qcow2_image_grows(claim: Path, image: Path, overlays: Path) -> None:
    qemu_img("create", "-f", "qcow2", image, "1M")
    resolved = prepared(volume_disk(claim), overlays)
    assert resolved.image == Image(str(image), "qcow2")
    assert asyncio.run(image_info(image, "qcow2")).virtual_size_bytes == 4 * MIB
    assert mark_of(image) == "qcow2"


@pytest.mark.parametrize("format_", ["raw", "qcow2"])
@pytest.mark.parametrize("kind", [READ, EPHEMERAL, {"device": pb.DISK_DEVICE_CDROM}])
def test_what_is_not_written_to_stays_as_it_is(
    kind: dict[str, object], format_: str, claim: Path, image: Path, overlays: Path
) -> None:
    qemu_img("create", "-f", format_, image, "1M")
    before = (image.read_bytes(), os.stat(image).st_mtime_ns, mark_of(image))
    resolved = prepared(volume_disk(claim, **kind), overlays)  # type: ignore[arg-type]
    assert (image.read_bytes(), os.stat(image).st_mtime_ns, mark_of(image)) == before
    if kind is EPHEMERAL:
        overlay = overlays / "data.qcow2"
        assert resolved.image == Image(str(overlay), "qcow2")
        assert resolved.backing == Image(str(image), format_)
        assert not resolved.read_only
        info = asyncio.run(image_info(overlay, "qcow2"))
        assert (info.virtual_size_bytes, info.backing_file) == (MIB, str(image))
    else:
        assert (resolved.image, resolved.read_only) == (Image(str(image), format_), True)


@pytest.mark.parametrize("kind", [READ, EPHEMERAL, {"source": {"create": False}}])
@pytest.mark.parametrize("exists", [True, False])
def test_nothing_is_made_for_those_who_only_read(
    exists: bool, kind: dict[str, object], claim: Path, image: Path, overlays: Path
) -> None:
    if exists:
        image.touch()
    words = "too small" if exists else 'it has no file "disk.img"'
    with pytest.raises(InvalidDisk, match=f'Volume "data": .*{words}'):
        prepared(volume_disk(claim, **kind), overlays)  # type: ignore[arg-type]
    assert image.exists() == exists


def test_what_a_guest_wrote_is_raw_whatever_it_looks_like(
    claim: Path, image: Path, overlays: Path
) -> None:
    """A guest writes the header of an image that names a file of the node."""
    disk = volume_disk(claim)
    prepared(disk, overlays)
    qemu_img("create", "-f", "qcow2", "-b", "/etc/passwd", "-F", "raw", overlays / "evil")
    content = (overlays / "evil").read_bytes().ljust(4 * MIB, b"\0")
    with image.open("r+b") as guest:
        guest.write(content)
    for each in (disk, volume_disk(claim, **READ), volume_disk(claim, **EPHEMERAL)):  # type: ignore[arg-type]
        resolved = prepared(each, overlays)
        assert (resolved.backing or resolved.image).format == "raw"
    assert image.read_bytes() == content


def test_a_qcow2_image_that_a_guest_had_must_stay_one(
    claim: Path, image: Path, overlays: Path
) -> None:
    qemu_img("create", "-f", "qcow2", image, "4M")
    prepared(volume_disk(claim), overlays)
    with image.open("r+b") as somebody:
        somebody.write(bytes(4))
    with pytest.raises(InvalidDisk, match="was in format qcow2"):
        prepared(volume_disk(claim), overlays)


@pytest.mark.usefixtures("no_attributes")
def test_without_extended_attributes_the_header_decides(
    claim: Path, image: Path, overlays: Path
) -> None:
    assert prepared(volume_disk(claim), overlays).image.format == "raw"
    image.unlink()
    qemu_img("create", "-f", "qcow2", image, "4M")
    assert prepared(volume_disk(claim), overlays).image.format == "qcow2"


def test_the_manifest_can_say_that_it_is_raw(claim: Path, image: Path, overlays: Path) -> None:
    qemu_img("create", "-f", "vmdk", image, "4M")
    with pytest.raises(InvalidDisk, match='Volume "data": its image is in format VMDK'):
        prepared(volume_disk(claim), overlays)
    assert mark_of(image) is None
    before = image.read_bytes()
    raw = prepared(volume_disk(claim, source={"assume_raw": True, "capacity_bytes": 0}), overlays)
    assert raw.image.format == "raw"
    assert image.read_bytes() == before


def _link(image: Path) -> None:
    (image.parent / "other").write_bytes(bytes(MIB))
    image.symlink_to("other")


def _fifo(image: Path) -> None:
    os.mkfifo(image)


def _directory(image: Path) -> None:
    image.mkdir()


def _device(image: Path) -> None:
    try:
        os.mknod(image, 0o600 | 0o020000, os.makedev(1, 5))  # /dev/zero
    except PermissionError:
        pytest.skip("devices can be made by root only")


def _backing(image: Path) -> None:
    qemu_img("create", "-f", "qcow2", "-b", "/etc/passwd", "-F", "raw", image)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_link, '"disk.img" is a symbolic link, not a plain file'),
        (_fifo, '"disk.img" is a named pipe, not a plain file'),
        (_directory, '"disk.img" is a directory, not a plain file'),
        (_device, '"disk.img" is a device, not a plain file'),
        (_backing, "names a backing file"),
    ],
)
@pytest.mark.parametrize("kind", [{}, READ, EPHEMERAL])
def test_an_image_that_will_not_do(
    make: Callable[[Path], None],
    words: str,
    kind: dict[str, object],
    claim: Path,
    image: Path,
    overlays: Path,
) -> None:
    make(image)
    with pytest.raises(InvalidDisk, match=f'Volume "data": .*{words}'):
        prepared(volume_disk(claim, **kind), overlays)  # type: ignore[arg-type]
    assert list(overlays.iterdir()) == []


@pytest.mark.parametrize("name", ["..", "a/b", "disk\n.img"])
def test_an_image_has_a_plain_name(name: str, claim: Path, overlays: Path) -> None:
    with pytest.raises(InvalidDisk, match="not the name of a file"):
        prepared(volume_disk(claim, source={"file": name}), overlays)


def test_a_file_system_that_is_not_there(tmp_path: Path, overlays: Path) -> None:
    with pytest.raises(InvalidDisk, match="its file system is not mounted"):
        prepared(volume_disk(tmp_path / "absent"), overlays)


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A directory that a user without privileges, which this is for now, may look into and not write to."""
    if os.geteuid():
        pytest.skip("only root can be somebody else")
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        os.seteuid(107)
        try:
            yield Path(directory)
        finally:
            os.seteuid(0)


def test_an_image_of_somebody_else(unprivileged: Path) -> None:
    with pytest.raises(InvalidDisk, match=r'no file "disk.img" yet, and user 107 cannot make one'):
        prepared(volume_disk(unprivileged), unprivileged)
    os.seteuid(0)
    (unprivileged / "disk.img").write_bytes(bytes(MIB))
    (unprivileged / "disk.img").chmod(0o600)
    os.seteuid(107)
    for kind, can in (({}, "written"), (READ, "read")):
        owner = f"cannot be {can} by user 107: it belongs to user 0 and group 0, with mode 0600"
        with pytest.raises(InvalidDisk, match=owner):
            prepared(volume_disk(unprivileged, **kind), unprivileged)  # type: ignore[arg-type]


def test_the_image_of_a_running_guest_grows(claim: Path, image: Path, overlays: Path) -> None:
    resolved = prepared(volume_disk(claim), overlays)
    image.write_bytes(QCOW2_HEADER.ljust(4 * MIB, b"x"))
    larger = volume_disk(claim, source={"capacity_bytes": 8 * MIB})
    assert grow_volume(larger, resolved) == 8 * MIB
    assert image.read_bytes() == QCOW2_HEADER.ljust(4 * MIB, b"x") + bytes(4 * MIB)
    assert grow_volume(volume_disk(claim), resolved) == 8 * MIB
    assert os.stat(image).st_size == 8 * MIB


def test_it_grows_as_far_as_there_is_room(
    claim: Path, image: Path, overlays: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved = prepared(volume_disk(claim), overlays)
    free_space(monkeypatch, MIB)
    larger = volume_disk(claim, source={"capacity_bytes": 8 * MIB})
    assert grow_volume(larger, resolved) == 4 * MIB
    assert os.stat(image).st_size == 4 * MIB


def test_a_qcow2_image_in_use_is_left_to_qemu(claim: Path, image: Path, overlays: Path) -> None:
    qemu_img("create", "-f", "qcow2", image, "4M")
    resolved = prepared(volume_disk(claim), overlays)
    before = image.read_bytes()
    larger = volume_disk(claim, source={"capacity_bytes": 8 * MIB})
    assert grow_volume(larger, resolved) == 8 * MIB
    assert image.read_bytes() == before


def test_an_image_that_cannot_grow_starts_with_the_size_it_has(
    claim: Path, image: Path, overlays: Path
) -> None:
    """qemu-img resizes none of the old version that holds a snapshot."""
    qemu_img("create", "-f", "qcow2", "-o", "compat=0.10", image, "1M")
    qemu_img("snapshot", "-c", "before", image)
    before = image.read_bytes()
    with capture_logs() as logs:
        resolved = prepared(volume_disk(claim), overlays)
    assert resolved.image == Image(str(image), "qcow2")
    assert image.read_bytes() == before
    [told] = [each for each in logs if each["log_level"] == "warning"]
    assert (told["volume"], "snapshots" in told["error"]) == ("data", True)


def test_what_is_only_read_does_not_grow(claim: Path, image: Path, overlays: Path) -> None:
    image.write_bytes(bytes(MIB))
    for kind in (READ, EPHEMERAL):
        disk = volume_disk(claim, **kind)
        resolved = prepared(disk, overlays)
        assert grow_volume(disk, resolved) == MIB
    assert os.stat(image).st_size == MIB


def test_an_image_that_has_gone_is_told_of(claim: Path) -> None:
    with pytest.raises(InvalidDisk, match='Volume "data"'):
        grow_volume(volume_disk(claim), ResolvedDisk(Image(str(claim / "disk.img"), "raw")))
