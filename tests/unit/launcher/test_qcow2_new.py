"""New qcow2 images, as the real qemu-img sees them."""

import json
import subprocess
from pathlib import Path

import pytest
from podvisor_launcher.storage.image import look_into
from podvisor_launcher.storage.image_safety import ImageFacts
from podvisor_launcher.storage.qcow2_new import new_image


def told(*command: str | Path) -> str:
    run = subprocess.run([*map(str, command)], check=True, capture_output=True, text=True)
    return run.stdout


@pytest.mark.parametrize("size", [512, 1 << 20, (1 << 29) + 512, 10 << 30, 64 << 40])
@pytest.mark.parametrize("backing", ["", "/images/root/disk/disk.img", "/" + "x" * 1022])
def test_it_is_what_qemu_would_have_made(size: int, backing: str, tmp_path: Path) -> None:
    path = tmp_path / "new"
    path.write_bytes(new_image(size, backing=backing, backing_format="raw" if backing else ""))
    if not backing:
        with path.open("rb") as image:
            assert look_into(image.fileno()) == ImageFacts("qcow2", size)
        assert (
            json.loads(told("qemu-img", "check", "-f", "qcow2", "--output=json", path))[
                "check-errors"
            ]
            == 0
        )
    options = ("-b", backing, "-F", "raw") if backing else ()
    told("qemu-img", "create", "-q", "-u", "-f", "qcow2", *options, tmp_path / "theirs", str(size))
    ours, theirs = (
        json.loads(told("qemu-img", "info", "-f", "qcow2", "--output=json", tmp_path / name))
        for name in ("new", "theirs")
    )
    for each in (ours, theirs):
        for key in ("filename", "actual-size", "children"):
            each.pop(key, None)
    assert ours == theirs
    assert path.stat().st_size == (tmp_path / "theirs").stat().st_size


def test_a_guest_can_use_it(tmp_path: Path) -> None:
    base, overlay = tmp_path / "base", tmp_path / "overlay"
    base.write_bytes(b"x" * (1 << 20))
    overlay.write_bytes(new_image(1 << 20, backing=str(base), backing_format="raw"))
    told("qemu-io", "-f", "qcow2", "-c", "write -P 0x79 64k 64k", overlay)
    told("qemu-img", "check", "-f", "qcow2", overlay)
    told("qemu-img", "convert", "-f", "qcow2", "-O", "raw", overlay, tmp_path / "seen")
    part = 1 << 16
    assert (tmp_path / "seen").read_bytes() == b"x" * part + b"y" * part + b"x" * 14 * part
    assert base.read_bytes() == b"x" * (1 << 20)


def test_a_path_that_does_not_fit() -> None:
    with pytest.raises(ValueError, match="too long"):
        new_image(512, backing="/" + "x" * 1023, backing_format="raw")
