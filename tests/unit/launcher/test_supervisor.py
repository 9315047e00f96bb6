"""The first process of a launcher pod: what it starts, survives, writes down and ends with."""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.unit.launcher.native import compiled, eventually

LAUNCHER = """#!/bin/sh
echo "launcher $$" >> {run}/started
trap 'cp {run}/private/stop.json {run}/seen; exit 0' TERM
trap 'trap "" CHLD; cp {run}/private/qemu-end.json {run}/told' CHLD
while [ ! -e {run}/end ]; do read _ <> {run}/pipe; done
exit $(cat {run}/end)
"""


LIBVIRTD = r"""#!/bin/sh
echo "libvirtd $$" >> {run}/started
(setsid {run}/qemu-system-x86_64 -c "trap 'exit 0' TERM; echo guest \$\$ >> {run}/started; while :; do read _ <> {run}/guest; done" &)
while :; do sleep 600 & wait; done
"""


class Supervised:
    """A supervisor with a launcher and a libvirtd of shell."""

    def __init__(self, run: Path, program: Path) -> None:
        self.run = run
        self.process = subprocess.Popen([program, "--grace-period-s=7"], stderr=subprocess.DEVNULL)

    def started(self, name: str) -> list[int]:
        """Process ids of all starts of `name` so far."""
        try:
            lines = (self.run / "started").read_text().split("\n")
        except FileNotFoundError:
            return []
        return [int(line.split()[1]) for line in lines if line.startswith(f"{name} ")]

    def wait_for_starts(self, name: str, count: int) -> int:
        """Wait for the `count`th start and return its process id."""
        eventually(lambda: len(self.started(name)) >= count)
        return self.started(name)[count - 1]

    def end_guest(self, code: int) -> None:
        """Make the launcher end with `code`."""
        (self.run / "end").write_text(str(code))
        pipe = os.open(
            self.run / "pipe", os.O_RDWR
        )  # does not wait for a reader, who may have seen the end already
        os.write(pipe, b"\n")
        os.close(pipe)


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):  # the latter when it goes while it is read
        return False


def descendants(pid: int) -> Iterator[int]:
    """All processes below `pid`."""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        yield from descendants(int(child))
        yield int(child)


@pytest.fixture
def supervised(tmp_path: Path) -> Iterator[Supervised]:
    for name in ("console", "private", "runtime"):
        (tmp_path / name).mkdir()
    for name in ("pipe", "guest"):
        os.mkfifo(tmp_path / name)
    shutil.copy("/bin/bash", tmp_path / "qemu-system-x86_64")
    for name, text in (("launcher", LAUNCHER), ("libvirtd", LIBVIRTD)):
        (tmp_path / name).write_text(text.format(run=tmp_path))
        (tmp_path / name).chmod(0o755)
    (tmp_path / "capabilities.xml").write_text("  <flag name='vnc'/>\n</qemuCaps>\n")
    macros = {"RUN_DIR": tmp_path, "CONFIG_DIR": tmp_path}
    programs = {
        "LIBVIRTD": tmp_path / "libvirtd",
        "PYTHON": tmp_path / "launcher",
        "QEMU": tmp_path / "qemu-system-x86_64",
        "QEMU_DRIVER": tmp_path / "absent",
        "KVM_DEVICE": tmp_path / "absent",
    }
    it = Supervised(tmp_path, compiled("supervisor", tmp_path, **macros, **programs))
    yield it
    left = [*it.started("launcher"), *it.started("libvirtd"), *it.started("guest")]
    if it.process.poll() is None:
        os.kill(it.process.pid, signal.SIGSTOP)  # it starts nothing any more
        left = [*descendants(it.process.pid), it.process.pid]
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    it.process.wait()


def test_either_is_started_again_and_the_guest_is_left_alone(supervised: Supervised) -> None:
    launcher, libvirtd = (supervised.wait_for_starts(name, 1) for name in ("launcher", "libvirtd"))
    guest = supervised.wait_for_starts("guest", 1)
    os.kill(launcher, signal.SIGKILL)
    os.kill(libvirtd, signal.SIGKILL)
    assert supervised.wait_for_starts("launcher", 2) != launcher
    assert supervised.wait_for_starts("libvirtd", 2) != libvirtd
    assert alive(guest)
    parent = Path(f"/proc/{guest}/stat").read_text().rsplit(")", 1)[1].split()[1]
    assert int(parent) == supervised.process.pid
    assert supervised.process.poll() is None


@pytest.mark.parametrize(("code", "exit_code"), [(0, 0), (10, 1)])
def test_the_end_of_the_guest_is_the_end_of_everything(
    code: int, exit_code: int, supervised: Supervised
) -> None:
    supervised.wait_for_starts("launcher", 1)
    guest = supervised.wait_for_starts("guest", 1)
    supervised.end_guest(code)
    assert supervised.process.wait(10) == exit_code
    assert not alive(guest)
    assert not any(map(alive, supervised.started("libvirtd")))


def test_a_launcher_that_fails_is_started_again(supervised: Supervised) -> None:
    supervised.wait_for_starts("launcher", 1)
    supervised.end_guest(3)
    supervised.wait_for_starts("launcher", 2)
    assert supervised.process.poll() is None


def test_being_killed_again_and_again_costs_no_growing_pause(supervised: Supervised) -> None:
    began = time.monotonic()
    for times in range(1, 8):
        os.kill(supervised.wait_for_starts("launcher", times), signal.SIGKILL)
    supervised.wait_for_starts("launcher", 8)
    assert time.monotonic() - began < 5


def test_the_stop_is_recorded_before_the_launcher_is_told(supervised: Supervised) -> None:
    supervised.wait_for_starts("launcher", 1)
    before_ms = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
    supervised.process.terminate()
    assert supervised.process.wait(10) == 0
    deadline_ms = json.loads((supervised.run / "private/stop.json").read_text())[
        "deadline_boottime_ms"
    ]
    assert before_ms + 7_000 <= deadline_ms <= before_ms + 17_000


@pytest.mark.parametrize(
    ("number", "end"),
    [
        (signal.SIGKILL, {"exit_code": -1, "signal": 9}),
        (signal.SIGTERM, {"exit_code": 0, "signal": 0}),
    ],
)
def test_how_qemu_ended_is_recorded_and_told(
    number: signal.Signals, end: dict[str, int], supervised: Supervised
) -> None:
    supervised.wait_for_starts("launcher", 1)
    libvirtd = supervised.wait_for_starts("libvirtd", 1)
    guest = supervised.wait_for_starts("guest", 1)
    note = supervised.run / "private/qemu-end.json"
    os.kill(libvirtd, signal.SIGKILL)
    supervised.wait_for_starts("libvirtd", 2)
    assert not note.exists()  # another process has ended, but no QEMU
    os.kill(guest, number)
    eventually(lambda: not alive(guest))
    eventually(note.exists)
    assert json.loads(note.read_text()) == end
    eventually((supervised.run / "told").exists)
    assert supervised.process.poll() is None


def test_it_holds_the_lock_for_its_life(supervised: Supervised) -> None:
    for name in ("launcher", "libvirtd", "guest"):
        supervised.wait_for_starts(name, 1)
    lock = supervised.run / "console/compute.lock"
    assert lock.read_bytes() == b"1"
    with lock.open("rb+") as file:
        with pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        supervised.process.kill()
        supervised.process.wait()
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # no child has inherited it


def test_nothing_here_leaves_a_core_dump(supervised: Supervised) -> None:
    for name in ("launcher", "guest"):
        limits = Path(f"/proc/{supervised.wait_for_starts(name, 1)}/limits").read_text()
        (core,) = (line for line in limits.splitlines() if line.startswith("Max core file size"))
        assert core.split()[4:6] == ["1", "1"]


def test_an_emulated_guest_gets_no_huge_pages(supervised: Supervised) -> None:
    for name in ("libvirtd", "guest"):
        status = Path(f"/proc/{supervised.wait_for_starts(name, 1)}/status").read_text()
        assert "\nTHP_enabled:\t0\n" in status


def test_libvirt_finds_its_settings(supervised: Supervised) -> None:
    supervised.wait_for_starts("launcher", 1)
    link = supervised.run / "runtime/config/libvirt/qemu.conf"
    assert link.readlink() == supervised.run / "qemu.conf"


def test_libvirt_is_told_what_was_found_out_about_qemu(supervised: Supervised) -> None:
    supervised.wait_for_starts("launcher", 1)
    (cache,) = (supervised.run / "runtime/cache/libvirt/qemu/cache/capabilities").iterdir()
    assert cache.stat().st_mode & 0o777 == 0o600
    found = ElementTree.parse(cache).getroot()
    for element, program in (("qemuctime", "qemu-system-x86_64"), ("selfctime", "libvirtd")):
        assert found.findtext(element) == str(int((supervised.run / program).stat().st_ctime))
    assert [flag.get("name") for flag in found.iter("flag")] == ["vnc"]


@pytest.mark.parametrize(
    "arguments", [["--grace-period-s="], ["--grace-period-s=-1"], ["--grace-period-s=x"], ["x"]]
)
def test_wrong_arguments_are_refused(arguments: list[str], tmp_path: Path) -> None:
    program = compiled("supervisor", tmp_path, RUN_DIR=tmp_path)
    assert subprocess.run([program, *arguments], capture_output=True).returncode == 2
