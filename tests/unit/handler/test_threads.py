"""Threads that are somebody else for a while. Needs root."""

import os
import threading
from pathlib import Path

import pytest
from podvisor_handler.linux.threads import files_as

from tests.unit.handler.fake_launcher import needs_root

pytestmark = needs_root


def test_only_one_thread_and_for_a_while_is_somebody_else(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("root's")
    (tmp_path / "secret").chmod(0o600)
    tmp_path.chmod(0o755)
    directory = os.open(tmp_path, os.O_PATH)
    found: list[bytes] = []

    def read() -> None:
        file = os.open("secret", os.O_RDONLY, dir_fd=directory)
        found.append(os.read(file, 10))
        os.close(file)

    is_time = threading.Event()

    def read_in_time() -> None:
        is_time.wait()
        read()

    other = threading.Thread(target=read_in_time)
    other.start()
    with files_as(107):
        with pytest.raises(PermissionError):
            read()
        is_time.set()
        other.join()
    read()
    os.close(directory)
    assert found == [b"root's", b"root's"]
