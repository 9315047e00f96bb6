"""The guest's packing code: what it writes can be read back, and is the same every time."""

import gzip
import io
import json
import struct
import tarfile
from pathlib import Path

import pytest

from dev.guest import elf, entropy, initramfs, oci, tools
from dev.guest.host import BuildError


def _newc_names(archive: bytes) -> dict[str, tuple[int, bytes]]:
    """Mode and data by name, read the way a kernel does."""
    found: dict[str, tuple[int, bytes]] = {}
    at = 0
    while True:
        fields = [int(archive[at + 6 + i * 8 : at + 14 + i * 8], 16) for i in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = archive[at + 110 : at + 110 + name_size - 1].decode()
        start = (at + 110 + name_size + 3) // 4 * 4
        if name == "TRAILER!!!":
            return found
        found[name] = (mode, archive[start : start + size])
        at = (start + size + 3) // 4 * 4


def test_archive_adds_parents_once_and_before_their_children() -> None:
    archive = initramfs.Archive()
    archive.file("etc/acpi/event", b"odd", 0o755)
    archive.file("etc/hosts", b"")
    archive.character_device("dev/console", 5, 1)
    names = _newc_names(gzip.decompress(archive.compressed()))
    assert list(names) == ["etc", "etc/acpi", "etc/acpi/event", "etc/hosts", "dev", "dev/console"]
    assert names["etc/acpi/event"] == (0o100755, b"odd")
    assert names["dev/console"][0] == 0o020600


def _write_module(directory: Path, name: str, depends: str) -> None:
    (directory / f"{name}.ko").write_bytes(
        b"\x7fELF\0license=GPL\0depends=" + depends.encode() + b"\0"
    )


def test_modules_are_listed_after_what_they_depend_on(tmp_path: Path) -> None:
    _write_module(tmp_path, "virtio-net", "net_failover")
    _write_module(tmp_path, "net_failover", "failover")
    _write_module(tmp_path, "failover", "")
    archive = initramfs.Archive()
    stages = {"early": ("virtio_net", "built_in"), "late": ("failover",)}
    initramfs.add_modules(archive, tmp_path, stages)
    names = _newc_names(gzip.decompress(archive.compressed()))
    assert names["etc/modules.early"][1] == b"failover\nnet_failover\nvirtio_net\n"
    assert names["etc/modules.late"][1] == b""


def test_a_module_without_its_dependency_is_refused(tmp_path: Path) -> None:
    _write_module(tmp_path, "sr_mod", "cdrom")
    with pytest.raises(BuildError, match="cdrom, needed by sr_mod"):
        initramfs.add_modules(initramfs.Archive(), tmp_path, {"early": ("sr_mod",)})


def test_entropy_program_is_a_whole_elf_file() -> None:
    image = entropy.credit_entropy_program()
    kind, offset, address, _, file_size, _, flags, _ = struct.unpack_from("<8I", image, 52)
    (entry,) = struct.unpack_from("<I", image, 24)
    assert (kind, offset, file_size, flags) == (1, 0, len(image), 5)
    assert image[entry - address] == 0xB8
    assert elf.interpreter(image) is None
    assert elf.needed(image) == []


def _program(interpreter: str, *needed: str) -> bytes:
    """The headers of a 32-bit program that is linked against libraries."""
    strings, at = b"\0", []
    for name in needed:
        at.append(len(strings))
        strings += name.encode() + b"\0"
    text = 52 + 3 * 32
    path = interpreter.encode() + b"\0"
    table = text + len(path)
    dynamic = b"".join(
        struct.pack("<iI", *tag) for tag in [*((1, offset) for offset in at), (5, table), (0, 0)]
    )
    loads = [(1, 0, 0, table + len(strings) + len(dynamic))]
    loads.append((3, text, text, len(path)))
    loads.append((2, table + len(strings), table + len(strings), len(dynamic)))
    header = b"\x7fELF\1\1\1" + bytes(9) + struct.pack("<HHIIII", 2, 3, 1, 0, 52, 0)
    header += struct.pack("<IHHHHHH", 0, 52, 32, len(loads), 0, 0, 0)
    headers = b"".join(
        struct.pack("<8I", kind, offset, address, address, size, size, 4, 1)
        for kind, offset, address, size in loads
    )
    return header + headers + path + strings + dynamic


def test_libraries_of_a_program_are_found_with_those_that_they_need(tmp_path: Path) -> None:
    loader = "/lib/ld-linux.so.2"
    (tmp_path / "ld-linux.so.2").write_bytes(_program(""))
    (tmp_path / "libone.so.1").write_bytes(_program("", "libtwo.so.2"))
    (tmp_path / "libtwo.so.2").write_bytes(_program("", "libone.so.1"))
    (tmp_path / "libother.so.9").write_bytes(b"")
    found = initramfs.libraries_of("it", _program(loader, "libone.so.1"), [tmp_path])
    assert set(found) == {"ld-linux.so.2", "libone.so.1", "libtwo.so.2"}
    with pytest.raises(BuildError, match=r"libthree\.so\.3, needed by it"):
        initramfs.libraries_of("it", _program(loader, "libthree.so.3"), [tmp_path])


def test_disk_with_programs_is_whole_mebibytes_of_tar() -> None:
    files = {"usr/bin/it": b"#!/bin/sh\n", "opt/tools/bin/it": b"x" * 1_000_000}
    disk = tools.pack(files)
    assert disk == tools.pack(dict(reversed(files.items())))
    assert len(disk) % (1 << 20) == 0
    with tarfile.open(fileobj=io.BytesIO(disk)) as archive:
        members = {m.name: (m.mode, m.size) for m in archive}
    assert members == {"usr/bin/it": (0o755, 10), "opt/tools/bin/it": (0o755, 1_000_000)}


def test_image_archive_names_every_name_and_belongs_to_the_launchers_account(
    tmp_path: Path,
) -> None:
    names = ["kubevirt/one:devel", "kubevirt/two:devel"]
    files = [oci.ImageFile("/disk/disk.qcow2", b"QFI")]
    first, second = tmp_path / "first.tar", tmp_path / "second.tar"
    oci.write_archive(first, names, files)
    oci.write_archive(second, names, files)
    assert first.read_bytes() == second.read_bytes()

    def blob(archive: tarfile.TarFile, path: str) -> bytes:
        member = archive.extractfile(path)
        assert member is not None
        return member.read()

    with tarfile.open(first) as archive:
        entries = json.loads(blob(archive, "index.json"))["manifests"]
        annotation = "org.opencontainers.image.ref.name"
        assert [entry["annotations"][annotation] for entry in entries] == names
        digest = entries[0]["digest"].removeprefix("sha256:")
        manifest = json.loads(blob(archive, f"blobs/sha256/{digest}"))
        layer_digest = manifest["layers"][0]["digest"].removeprefix("sha256:")
        layer = blob(archive, f"blobs/sha256/{layer_digest}")
    with tarfile.open(fileobj=io.BytesIO(layer)) as content:
        members = {m.name: (m.mode, m.uid, m.gid) for m in content}
    assert members == {"disk": (0o555, 107, 107), "disk/disk.qcow2": (0o444, 107, 107)}
