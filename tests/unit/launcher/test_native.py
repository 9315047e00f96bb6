"""The static programs that live as long as a pod, compiled for a directory of the test: what they start, survive, write and end with."""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

SOURCES = Path(__file__).parents[3] / "services/launcher/native"
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


def compiled(program: str, directory: Path, **macros: Path) -> Path:
    """The program with its paths moved into the test's directory."""
    defines = [f'-D{name}="{value}"' for name, value in macros.items()]
    target = directory / program
    flags = ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror"]
    source = str(SOURCES / f"{program}.c")
    subprocess.run(["gcc", *flags, *defines, "-o", str(target), source], check=True)
    return target


def eventually(holds: object, within_s: float = 10.0) -> None:
    """Look every few milliseconds until `holds()`: these programs have nothing to wait on."""
    deadline = time.monotonic() + within_s
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.01)


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
