"""A file that another process has open is found, whatever its name is by now."""

import os
import subprocess
from pathlib import Path

import pytest
from podvisor_launcher.storage.open_elsewhere import (
    Identity,
    identity_in,
    identity_of,
    open_again,
)


def test_a_file_is_found_by_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "disk.img").write_bytes(b"boot")
    with open(tmp_path / "disk.img", "r+b") as file:
        identity = identity_of(file.fileno())
        holder = subprocess.Popen(["sleep", "60"], stdin=file)
    (tmp_path / "disk.img").unlink()
    try:
        descriptor = open_again(identity, os.O_RDWR)
        assert os.pread(descriptor, 4, 0) == b"boot"
        assert os.pwrite(descriptor, b"root", 0) == 4
        os.close(descriptor)
    finally:
        holder.kill()
        holder.wait()
    with pytest.raises(FileNotFoundError):
        open_again(identity, os.O_RDWR)


@pytest.mark.parametrize(
    ("words", "identity"),
    [
        (f"my-data-1234{Identity(0x2A, 7)}", Identity(42, 7)),
        ("my-data-1234", None),  # of a launcher that did not note it
        ("", None),
    ],
)
def test_the_identity_is_read_back(words: str, identity: Identity | None) -> None:
    assert identity_in(words) == identity
