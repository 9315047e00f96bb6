"""The programs that keep the image or the volume of a pod for a guest: what they show, whom they outlive, and when they let go."""

import fcntl
import os
import signal
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.launcher.native import compiled, eventually


class Holder:
    """image-holder, started in a directory of the test as often as asked."""

    def __init__(self, directory: Path) -> None:
        self.lock = directory / "compute.lock"
        self.link = directory / "images/root"
        self.link.parent.mkdir()
        self._program = compiled(
            "image-holder", directory, CONSOLE_DIR=directory, IMAGES_DIR=self.link.parent
        )
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> subprocess.Popen[bytes]:
        """Start it once and wait until it shows its root."""
        process = subprocess.Popen([self._program, "root"])
        self.processes.append(process)
        target = Path(f"/proc/{process.pid}/root")
        eventually(lambda: self.link.is_symlink() and self.link.readlink() == target)
        return process


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[Holder]:
    it = Holder(tmp_path)
    yield it
    for process in it.processes:
        process.kill()
        process.wait()


def test_an_image_is_held_until_compute_has_ended(holder: Holder) -> None:
    holder.lock.touch()
    process = holder.start()
    assert os.path.samefile(holder.link, "/")
    with holder.lock.open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(b"1")
        lock.flush()
        for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGRTMIN + 3):
            process.send_signal(number)  # the pod is told to end, the guest goes on
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.2)
    assert process.wait(1) == 0


def test_a_holder_that_is_started_again_shows_its_new_root(holder: Holder) -> None:
    first = holder.start()
    first.kill()
    first.wait()
    holder.start()
    assert [entry.name for entry in holder.link.parent.iterdir()] == ["root"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGRTMIN + 3])
def test_an_image_is_let_go_where_compute_never_came(number: int, holder: Holder) -> None:
    process = holder.start()
    process.send_signal(number)
    assert process.wait(5) == 0


def test_a_holder_that_comes_after_compute_has_nothing_to_hold(holder: Holder) -> None:
    holder.lock.write_bytes(b"1")
    assert holder.start().wait(5) == 0


@pytest.mark.parametrize("arguments", [[], [""], ["."], ["a/b"], ["root", "more"], ["a" * 300]])
def test_a_holder_links_nothing_but_a_name(arguments: list[str], tmp_path: Path) -> None:
    program = compiled("image-holder", tmp_path, CONSOLE_DIR=tmp_path, IMAGES_DIR=tmp_path)
    assert subprocess.run([program, *arguments], capture_output=True).returncode == 2
    assert not any(entry.is_symlink() for entry in tmp_path.iterdir())


class VolumeHolder:
    """volume-holder, listening in a directory of the test."""

    def __init__(self, directory: Path) -> None:
        self.socket = directory / "holder.sock"
        self._program = compiled("volume-holder", directory, SOCKETS_DIR=directory)
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> subprocess.Popen[bytes]:
        """Start it and wait until it answers."""
        process = subprocess.Popen([self._program])
        self.processes.append(process)
        eventually(lambda: self.answers_as() == process.pid)
        return process

    def answers_as(self) -> int:
        """The process that listens, as the kernel tells whoever connects; 0 when nobody does."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            try:
                connection.connect(str(self.socket))
            except (FileNotFoundError, ConnectionRefusedError):
                return 0
            raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            assert connection.recv(1) == b""  # nothing is said
            return int(struct.unpack("3i", raw)[0])


@pytest.fixture
def volume_holder(tmp_path: Path) -> Iterator[VolumeHolder]:
    it = VolumeHolder(tmp_path)
    yield it
    for process in it.processes:
        process.kill()
        process.wait()


def test_a_volume_is_held_for_all_who_ask(volume_holder: VolumeHolder) -> None:
    process = volume_holder.start()
    assert [volume_holder.answers_as() for _ in range(100)] == [process.pid] * 100
    assert len(os.listdir(f"/proc/{process.pid}/fd")) <= 4
    assert process.poll() is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_volume_is_held_until_its_holder_is_killed(
    number: int, volume_holder: VolumeHolder
) -> None:
    process = volume_holder.start()
    process.send_signal(number)
    assert [volume_holder.answers_as() for _ in range(100)] == [process.pid] * 100
    process.kill()
    assert process.wait(1) == -signal.SIGKILL


def test_a_killed_holder_of_a_volume_has_a_successor(volume_holder: VolumeHolder) -> None:
    first = volume_holder.start()
    first.kill()
    first.wait()
    assert volume_holder.answers_as() == 0
    volume_holder.start()
    sockets = [e for e in volume_holder.socket.parent.iterdir() if e.is_socket()]
    assert sockets == [volume_holder.socket]


def test_a_holder_of_a_volume_without_a_place_for_its_socket_says_so(tmp_path: Path) -> None:
    program = compiled("volume-holder", tmp_path, SOCKETS_DIR=tmp_path / "absent")
    done = subprocess.run([program], capture_output=True, timeout=5)
    assert done.returncode == 1
    assert b"absent/holder.sock: No such file" in done.stderr
    assert subprocess.run([program, "x"], capture_output=True).returncode == 2
