"""ISO 9660 images, read by pycdlib."""

from io import BytesIO
from typing import Any

import pycdlib
import pytest
from podvisor_launcher.storage.iso9660 import make_image

from tests.unit.launcher.isos import label_of, read_iso

LONGEST = "k" * 249 + ".txt"  # a key of a ConfigMap has up to 253 characters


@pytest.mark.parametrize("by", ["rr_path", "joliet_path"])
@pytest.mark.parametrize(
    "files",
    [
        {},
        {"empty": b"", "sector": bytes(2048), "user-data": b"x" * 5000},
        {"openstack/latest/meta_data.json": b"{}", "openstack/latest/user_data": b"u", "top": b"t"},
        {f"key-{number:03}.conf": b"%d" % number for number in range(500)},
        {f"d{number % 7}/e{number % 3}/{number}": b"%d" % number for number in range(300)},
        {"Case": b"1", "case": b"2", "a.b.c": b"3", ".hidden": b"4", "a": b"5", "F00001": b"6"},
        {"large": bytes(range(256)) * 4096},
    ],
    ids=["nothing", "sizes", "directories", "many", "deep", "odd names", "large"],
)
def test_what_is_put_in_comes_out(by: str, files: dict[str, bytes]) -> None:
    assert read_iso(make_image("cidata", files), by=by) == files


def test_long_names_are_whole_for_linux_and_distinct_for_others() -> None:
    names = [LONGEST, LONGEST[:-1], "m" * 64, "m" * 65, *(f"{n:03}" + "x" * 247 for n in range(40))]
    files = {name: name.encode() for name in names}
    image = make_image("cfgdata", files)
    assert read_iso(image) == files
    by_joliet = read_iso(image, by="joliet_path")
    assert sorted(by_joliet.values()) == sorted(files.values())
    assert by_joliet["m" * 64] == b"m" * 64
    assert max(map(len, by_joliet)) == 64
    assert sorted(read_iso(image, by="iso_path").values()) == sorted(files.values())


def test_names_are_right_in_capitals_where_nothing_else_is_known() -> None:
    image = make_image("cidata", {"user-data": b"u", "openstack/meta_data.json": b"m"})
    assert read_iso(image, by="iso_path") == {
        "USER-DATA.;1": b"u",
        "OPENSTACK/META_DATA.JSON;1": b"m",
    }


def test_the_same_content_makes_the_same_image() -> None:
    files = {"b": b"1", "c/d": b"2", LONGEST: b"3"}
    assert make_image("cidata", files) == make_image("cidata", dict(files))


def test_nothing_is_executable_and_everything_readable() -> None:
    iso: Any = pycdlib.PyCdlib()
    iso.open_fp(BytesIO(make_image("cidata", {"d/f": b""})))
    modes = [iso.get_record(rr_path=path).rock_ridge.get_file_mode() for path in ("/d", "/d/f")]
    iso.close()
    assert modes == [0o040555, 0o100444]


@pytest.mark.parametrize(
    ("label", "read"), [("cidata", "cidata"), ("", ""), ("x" * 40, "x" * 32), ("é", "?")]
)
def test_labels(label: str, read: str) -> None:
    assert label_of(make_image(label, {})) == read
