"""The program that copies a guest's console into the log of its container, until the guest and compute are over."""

import fcntl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.launcher.native import compiled, eventually


class Console:
    """console-log, and the directory it watches."""

    def __init__(self, directory: Path) -> None:
        self.log = directory / "serial0.log"
        self.lock = directory / "compute.lock"
        self.output = directory / "output"
        program = compiled("console-log", directory, CONSOLE_DIR=directory)
        with self.output.open("wb") as output:
            self.process = subprocess.Popen([program], stdout=output)

    def says(self, text: bytes) -> None:
        eventually(lambda: self.output.read_bytes() == text)


@pytest.fixture
def console(tmp_path: Path) -> Iterator[Console]:
    it = Console(tmp_path)
    yield it
    it.process.kill()
    it.process.wait()


def append(path: Path, text: bytes) -> None:
    with path.open("ab") as file:
        file.write(text)


def test_the_log_is_followed_to_the_last_word(console: Console) -> None:
    with console.lock.open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(b"1")
        lock.flush()
        append(console.log, b"SeaBIOS\n")
        console.says(b"SeaBIOS\n")
        console.process.terminate()  # the pod is told to end, the guest goes on
        append(console.log, b"login: ")
        console.says(b"SeaBIOS\nlogin: \n")  # a prompt is shown though its line has no end
        console.log.write_bytes(b"")
        append(console.log, b"cut\n")
        eventually(lambda: console.output.read_bytes().endswith(b"cut\n"))
        append(console.log, b"Power down\n")
        assert console.process.poll() is None
    assert console.process.wait(5) == 0
    assert console.output.read_bytes() == b"SeaBIOS\nlogin: \ncut\nPower down\n"


def test_a_flood_costs_little(console: Console) -> None:
    def switches() -> int:
        status = Path(f"/proc/{console.process.pid}/status").read_text()
        return sum(int(line.split()[1]) for line in status.splitlines() if "_switches" in line)

    append(console.log, b"SeaBIOS\n")
    console.says(b"SeaBIOS\n")
    before = switches()
    with console.log.open("ab", buffering=0) as guest:
        for _ in range(500):
            guest.write(b"x")
            time.sleep(0.001)  # the pace of a guest, which prints a character at a time
        guest.write(b"\n")
    eventually(lambda: console.output.read_bytes().count(b"x") == 500)
    assert switches() - before < 300


def test_where_compute_never_came_the_order_to_end_is_obeyed(console: Console) -> None:
    console.lock.touch()
    append(console.log, b"ready\n")
    console.says(b"ready\n")
    pid = console.process.pid
    [child] = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    console.process.terminate()
    assert console.process.wait(5) == 0
    eventually(lambda: not Path(f"/proc/{child}").exists())


def test_a_lock_that_nobody_has_had_yet_is_no_end(console: Console) -> None:
    console.lock.touch()
    append(console.log, b"early\n")
    console.says(b"early\n")
    assert console.process.poll() is None
    console.lock.write_bytes(b"1")  # compute came and went
    assert console.process.wait(5) == 0
