"""Threads that are somebody else for a while. Needs root."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from podvisor_handler.linux.file_access import files_as

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


_IN_A_GROUP = """
import os, sys
from podvisor_handler.linux.file_access import files_as
os.setgroups([4242])
file = os.open(sys.argv[1], os.O_PATH)
try:
    with files_as(107):
        open(f"/proc/self/fd/{file}").close()
        print("let in")
except PermissionError:
    print("kept out", os.getgroups())
"""


def test_the_groups_of_this_process_are_not_the_users(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("the group's")
    os.chown(secret, 0, 4242)
    secret.chmod(0o640)
    command = [sys.executable, "-c", _IN_A_GROUP, str(secret)]
    ran = subprocess.run(command, check=True, capture_output=True, text=True)
    assert ran.stdout == "kept out [4242]\n"
