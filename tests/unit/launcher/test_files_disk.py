"""ConfigMaps and their like as ISO images."""

from pathlib import Path

import pytest
from podvisor.domain.v1 import domain_pb2 as pb
from podvisor_launcher.storage import files_disk as files_disk_module
from podvisor_launcher.storage.errors import InvalidDisk, MissingFiles
from podvisor_launcher.storage.files_disk import prepare_files_disk, read_files

from tests.unit.launcher.isos import label_of, read_iso


@pytest.fixture
def mount(tmp_path: Path) -> Path:
    """A ConfigMap as the kubelet mounts it."""
    return mounted(tmp_path / "mount", {"app.conf": b"a", "Unattend.XML": b"u"})


def mounted(directory: Path, keys: dict[str, bytes]) -> Path:
    (directory / "..2026_01_01").mkdir(parents=True)
    (directory / "..data").symlink_to("..2026_01_01")
    for name, content in keys.items():
        (directory / "..2026_01_01" / name).write_bytes(content)
        (directory / name).symlink_to(f"..data/{name}")
    return directory


def files_disk(directory: Path, **source: object) -> pb.DiskSpec:
    files = pb.FilesSource(directory=str(directory), **source)  # type: ignore[arg-type]
    return pb.DiskSpec(name="settings", files=files)


def image_of(disk: pb.DiskSpec, directory: Path) -> bytes:
    resolved = prepare_files_disk(disk, directory)
    assert (resolved.image.format, resolved.read_only) == ("raw", True)
    return Path(resolved.image.path).read_bytes()


def test_every_key_is_a_file(mount: Path, tmp_path: Path) -> None:
    image = image_of(files_disk(mount, label="cfgdata"), tmp_path)
    assert label_of(image) == "cfgdata"
    assert read_iso(image) == {"app.conf": b"a", "Unattend.XML": b"u"}


def test_the_downward_api_has_directories(tmp_path: Path) -> None:
    """There, the link at the top is one to a directory."""
    (tmp_path / "..1/dir").mkdir(parents=True)
    (tmp_path / "..1/dir/labels").write_bytes(b"l")
    (tmp_path / "..1/name").write_bytes(b"n")
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "dir").symlink_to("..data/dir")
    assert read_files(tmp_path) == {"dir/labels": b"l", "name": b"n"}


def test_a_directory_that_the_kubelet_did_not_fill(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"p")
    (tmp_path / "inside").symlink_to("plain")
    (tmp_path / "outside").symlink_to("/etc/hostname")
    (tmp_path / "dangling").symlink_to("absent")
    (tmp_path / "circle").symlink_to(".")
    (tmp_path / "..hidden").touch()
    assert read_files(tmp_path) == {"plain": b"p", "inside": b"p"}


def test_the_current_content_is_not_looked_for_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "mount").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other/secret").touch()
    (tmp_path / "mount/..data").symlink_to(tmp_path / "other")
    assert read_files(tmp_path / "mount") == {}


@pytest.mark.parametrize("exists", [True, False])
def test_what_is_not_there_is_waited_for_unless_it_is_optional(
    exists: bool, tmp_path: Path
) -> None:
    directory = tmp_path / "mount"
    if exists:
        directory.mkdir()
    with pytest.raises(MissingFiles, match=r'Volume "settings": .* does not exist or is empty'):
        prepare_files_disk(files_disk(directory), tmp_path)
    optional = files_disk(directory, optional=True, required=["unattend.xml"])
    assert read_iso(image_of(optional, tmp_path)) == {}


def test_a_file_that_is_needed(mount: Path, tmp_path: Path) -> None:
    assert image_of(files_disk(mount, required=["autounattend.xml", "unattend.xml"]), tmp_path)
    with pytest.raises(MissingFiles, match=r'none of its keys is "a.xml" or "b.xml"'):
        prepare_files_disk(files_disk(mount, required=["a.xml", "b.xml"]), tmp_path)


def test_there_is_a_limit(mount: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_disk_module, "_MAX_BYTES", 1)
    with pytest.raises(InvalidDisk, match='Volume "settings": its files are more than'):
        prepare_files_disk(files_disk(mount), tmp_path)
