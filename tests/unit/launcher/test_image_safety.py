"""What is thought of an image by its bytes: with headers of the real qemu-img, and with spoilt ones."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from struct import pack, pack_into

import pytest
from podvisor_launcher.storage.errors import Unusable
from podvisor_launcher.storage.image import check_info, look_into
from podvisor_launcher.storage.image_safety import ImageFacts, UnsafeImage, examine
from podvisor_launcher.storage.qemu_img import ImageInfo, image_info

RAW_BYTES = bytes(1 << 20)


def qemu_img(*arguments: str | Path) -> None:
    subprocess.run(["qemu-img", *map(str, arguments)], check=True, capture_output=True)


def look_at(path: Path, known_format: str = "") -> ImageFacts:
    with path.open("rb") as image:
        return look_into(image.fileno(), known_format)


def qcow2(directory: Path, *options: str, size: str = "1M") -> Path:
    path = directory / "image"
    qemu_img("create", "-f", "qcow2", *options, path, size)
    return path


@pytest.mark.parametrize(
    "options",
    [
        "compat=0.10",
        "compat=1.1",
        "cluster_size=512",
        "cluster_size=2M",
        "lazy_refcounts=on",
        "preallocation=metadata",
        "refcount_bits=64",
        "extended_l2=on,cluster_size=16k",
        "compression_type=zstd",
    ],
)
@pytest.mark.parametrize("size_bytes", [512, 10 << 20, 3 << 30])
async def test_what_qemu_makes_is_accepted(options: str, size_bytes: int, tmp_path: Path) -> None:
    path = qcow2(tmp_path, "-o", options, size=str(size_bytes))
    facts = look_at(path)
    assert facts == ImageFacts("qcow2", size_bytes)
    check_info(await image_info(path, "qcow2"), facts)


def test_what_a_guest_has_written_to_is_accepted(tmp_path: Path) -> None:
    path = qcow2(tmp_path, size="64M")
    subprocess.run(
        ["qemu-io", "-f", "qcow2", "-c", "write 1M 8M", path], check=True, capture_output=True
    )
    qemu_img("snapshot", "-c", "before", path)
    qemu_img("resize", "-f", "qcow2", path, "10G")
    assert look_at(path) == ImageFacts("qcow2", 10 << 30)


@pytest.mark.parametrize("format_", ["vmdk", "vhdx", "vdi", "qed", "vpc", "qcow", "parallels"])
def test_what_qemu_makes_in_other_formats_is_refused(format_: str, tmp_path: Path) -> None:
    qemu_img("create", "-f", format_, tmp_path / "image", "4M")
    with pytest.raises(Unusable, match="is not supported"):
        look_at(tmp_path / "image")
    assert look_at(tmp_path / "image", "raw").format == "raw"


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (("-f", "vpc", "-o", "subformat=fixed"), "VHD"),
        (("-f", "vmdk", "-o", "subformat=monolithicFlat"), "VMDK"),
    ],
)
def test_formats_with_a_look_of_their_own_are_refused(
    options: tuple[str, ...], name: str, tmp_path: Path
) -> None:
    qemu_img("create", *options, tmp_path / "image", "4M")
    with pytest.raises(UnsafeImage, match=f"format {name}, which is not supported"):
        look_at(tmp_path / "image")


@pytest.mark.parametrize(
    "head",
    [
        b"COWD",
        b"# Disk DescriptorFile\n",
        b"# made by hand\r\n\r\n# again\r\nversion=1\r\n",
        b"LUKS\xba\xbe\x00\x01",  # as QEMU has it, whose tool measures the processor and fails on a busy one
        b"LUKS\xba\xbe\x00\x02",
        b"WithouFreSpacExt",
        b"WithoutFreeSpace",
    ],
)
def test_what_other_programs_make_is_refused(head: bytes) -> None:
    image = head + RAW_BYTES
    with pytest.raises(UnsafeImage, match="is not supported"):
        examine(image[: 1 << 16], image[-512:], len(image))


@pytest.mark.parametrize(
    "image",
    [
        RAW_BYTES,
        b"# a comment\n" + RAW_BYTES,
        bytes(510) + b"\x55\xaa" + b"\xff" * 4096,
        b"qfi\xfb" + RAW_BYTES,
    ],
    ids=["zeros", "comment", "odd partitions", "no magic"],
)
def test_the_rest_is_raw(image: bytes) -> None:
    facts = examine(image[: 1 << 16], image[-512:], len(image))
    assert facts == ImageFacts("raw", -(-len(image) // 512) * 512)


def test_what_was_raw_stays_raw_and_what_was_qcow2_must_be(tmp_path: Path) -> None:
    path = qcow2(tmp_path, "-b", "/etc/passwd", "-F", "raw")
    assert look_at(path, "raw").format == "raw"
    (tmp_path / "zeros").write_bytes(RAW_BYTES)
    with pytest.raises(UnsafeImage, match="was in format qcow2"):
        look_at(tmp_path / "zeros", "qcow2")
    with pytest.raises(UnsafeImage, match="too small"):
        examine(b"x" * 511, b"x" * 511, 511)


def at(offset: int, layout: str, *values: int) -> Callable[[bytearray], None]:
    return lambda image: pack_into(f">{layout}", image, offset, *values)


def extension(kind: int, length: int = 0) -> Callable[[bytearray], None]:
    return at(0x70, "II", kind, length)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (at(4, "I", 1), "version 1"),
        (at(4, "I", 4), "version 4"),
        (at(8, "QI", 0x200, 11), "names a backing file"),
        (at(20, "I", 8), "impossible"),
        (at(20, "I", 22), "impossible"),
        (at(20, "I", 0xFFFFFFFF), "impossible"),
        (at(24, "Q", 0), "too small"),
        (at(24, "Q", (64 << 40) + 512), "larger than 64 TiB"),
        (at(24, "Q", 1 << 63), "larger than 64 TiB"),
        (at(24, "Q", 64 << 40), "L1 table .* too small"),
        (at(32, "I", 1), "encrypted"),
        (at(32, "I", 2), "encrypted"),
        (at(36, "I", 0), "L1 table .* too small"),
        (at(36, "I", (4 << 20) + 1), "larger than 32 MiB"),
        (at(36, "I", 4 << 20), "outside of the file"),
        (at(40, "Q", 1 << 62), "outside of the file"),
        (at(40, "Q", 0), "outside of the file"),
        (at(40, "Q", 0x30008), "outside of the file"),
        (at(48, "Q", 1 << 63), "outside of the file"),
        (at(56, "I", 0), "empty or larger than 8 MiB"),
        (at(56, "I", 129), "empty or larger than 8 MiB"),
        (at(60, "IQ", 1, 1 << 40), "outside of the file"),
        (at(60, "I", 65), "more than 64 internal snapshots"),
        (at(72, "Q", 2), "marked as corrupt"),
        (at(72, "Q", 4), "external data file"),
        (at(72, "Q", 32), "not known"),
        (at(72, "Q", 1 << 63), "not known"),
        (at(96, "I", 7), "impossible"),
        (at(100, "I", 72), "too short"),
        (at(100, "I", 1 << 20), "have no end"),
        (extension(0x44415441, 8), "external data file"),
        (extension(0x0537BE77, 16), "encrypted"),
        (extension(0x12345678, 0xFFFFFFFF), "have no end"),
    ],
)
def test_a_header_that_will_not_do(
    spoil: Callable[[bytearray], None], words: str, tmp_path: Path
) -> None:
    path = qcow2(tmp_path)
    image = bytearray(path.read_bytes())
    spoil(image)
    path.write_bytes(image)
    with pytest.raises(Unusable, match=words):
        look_at(path)


def test_a_dirty_image_is_qemus_to_repair(tmp_path: Path) -> None:
    path = qcow2(tmp_path)
    image = bytearray(path.read_bytes())
    at(72, "Q", 1)(image)
    path.write_bytes(image)
    assert look_at(path).format == "qcow2"


@pytest.mark.parametrize("length", [4, 71, 103, 512, 65536, 196608])
def test_an_image_that_is_cut_off(length: int, tmp_path: Path) -> None:
    path = qcow2(tmp_path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(Unusable, match="cut off"):
        look_at(path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"backing_file": "/etc/passwd"}, "backing file"),
        ({"data_file": "/etc/passwd"}, "data file"),
        ({"encrypted": True}, "encrypted"),
        ({"format": "raw"}, "has changed"),
        ({"virtual_size_bytes": 1024}, "has changed"),
    ],
)
def test_the_second_look_must_agree(changes: dict[str, object], words: str) -> None:
    seen: dict[str, object] = {
        "format": "qcow2",
        "virtual_size_bytes": 512,
        "backing_file": None,
        "data_file": None,
        "encrypted": False,
    }
    with pytest.raises(UnsafeImage, match=words):
        check_info(ImageInfo(**(seen | changes)), ImageFacts("qcow2", 512))  # type: ignore[arg-type]


def test_a_footer_alone_makes_a_vhd() -> None:
    for footer in (b"conectix" + bytes(504), b"conectix" + bytes(503)):
        image = RAW_BYTES + footer
        with pytest.raises(UnsafeImage, match="format VHD"):
            examine(image[: 1 << 16], image[-512:], len(image))


def test_a_vdi_is_known_by_its_signature() -> None:
    image = bytes(0x40) + pack("<I", 0xBEDA107F) + RAW_BYTES
    with pytest.raises(UnsafeImage, match="format VDI"):
        examine(image[: 1 << 16], image[-512:], len(image))
