"""Trees of files that are shared: what is waited for, which process serves them, and how each of those ends.

The process is a stand-in for virtiofsd, which serves one connection and ends with it; what starts it is real.
"""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from podvisor.domain.v1 import domain_pb2 as pb
from podvisor_launcher.lifecycle.spec_changes import adopt_live_fields, restart_required
from podvisor_launcher.lifecycle.start import start_guest
from podvisor_launcher.settings import Settings
from podvisor_launcher.storage.errors import DiskUnavailable, InvalidDisk, MissingSecret
from podvisor_launcher.storage.virtiofs import (
    Programs,
    ShareFailed,
    ShareRefused,
    check_shares,
    start_shares,
    virtiofsd_command,
)
from podvisor_launcher.virt.errors import DomainStartFailed
from structlog.testing import capture_logs

from tests.unit.launcher.conftest import connected
from tests.unit.launcher.native import compiled, eventually
from tests.unit.launcher.specs import spec

STAND_IN = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
int main(int argc, char **argv) {
    char byte;
    int client = argc > 1 && strncmp(argv[1], "--fd=", 5) == 0 ? accept(atoi(argv[1] + 5), NULL, NULL) : -1;
    if (client == -1)
        return 9;
    dprintf(client, "%d\n", (int)getpid());
    while (read(client, &byte, 1) > 0)
        ;
    return 0;
}
"""


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    directory = tmp_path_factory.mktemp("programs")
    (directory / "virtiofsd.c").write_text(STAND_IN)
    subprocess.run(
        ["gcc", "-o", directory / "virtiofsd", directory / "virtiofsd.c"], check=True, timeout=60
    )
    confine = compiled("confine", directory)
    tried = subprocess.run([confine, directory, "/usr/bin/true"], check=False)
    if tried.returncode == 3:
        pytest.skip("this kernel has no Landlock")
    return Programs(str(confine), str(directory / "virtiofsd"))


@pytest.fixture
async def sockets(tmp_path: Path, programs: Programs) -> AsyncIterator[Path]:
    """Where sockets are made. What still waits for a QEMU at the end is ended."""
    directory = tmp_path / "shares"
    yield directory
    await start_shares([], directory, programs)


def shared(tmp_path: Path, name: str = "data", *, read_only: bool = False) -> pb.FilesystemSpec:
    directory = tmp_path / name
    directory.mkdir(exist_ok=True)
    return pb.FilesystemSpec(name=name, directory=str(directory), read_only=read_only)


def replaced(programs: Programs, directory: Path, script: str) -> Programs:
    """The programs with a shell script in place of `confine`."""
    path = directory / "confine"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return Programs(str(path), programs.virtiofsd)


def connect(sockets: Path, name: str = "data") -> tuple[socket.socket, int]:
    """As QEMU does. Returns the connection and the process id of who answered."""
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(10)
    client.connect(str(sockets / f"{name}.sock"))
    return client, int(client.recv(32))


async def until(holds: Callable[[], bool]) -> None:
    await asyncio.to_thread(eventually, holds)


def exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_the_command(tmp_path: Path) -> None:
    programs = Programs("/confine", "/virtiofsd")
    writable = pb.FilesystemSpec(name="data", directory="/volumes/data")
    command = ["/virtiofsd", "--fd=7", "--shared-dir=/volumes/data", "--sandbox=none"]
    assert virtiofsd_command(writable, 7, programs) == [
        *("/confine", "/volumes/data", *command, "--cache=auto", "--log-level=error")
    ]
    read_only = pb.FilesystemSpec(name="data", directory="/volumes/data", read_only=True)
    assert virtiofsd_command(read_only, 7, programs) == [
        *("/confine", "--read-only", "/volumes/data", *command),
        *("--cache=auto", "--log-level=error", "--readonly"),
    ]


@pytest.mark.parametrize(
    ("found", "awaited", "error", "words"),
    [
        ([], False, None, ""),
        (["key"], True, None, ""),
        (["..data", "..2026_01_01", "key"], True, None, ""),
        ([], True, MissingSecret, '"data": what it is made of does not exist or is empty'),
        (["..data", "..2026_01_01"], True, MissingSecret, "The machine starts when it is there"),
        (None, True, MissingSecret, '"data"'),
        (None, False, InvalidDisk, '"data" is not mounted'),
    ],
)
def test_what_is_waited_for(
    tmp_path: Path,
    found: list[str] | None,
    awaited: bool,
    error: type[DiskUnavailable] | None,
    words: str,
) -> None:
    filesystem = shared(tmp_path)
    filesystem.awaited = awaited
    for name in found or ():
        (tmp_path / "data" / name).touch()
    if found is None:
        (tmp_path / "data").rmdir()
    if error is None:
        check_shares([filesystem])
    else:
        with pytest.raises(error, match=words):
            check_shares([filesystem])


async def test_each_tree_is_served_until_qemu_lets_go(
    tmp_path: Path, sockets: Path, programs: Programs
) -> None:
    with capture_logs() as logs:
        trees = [shared(tmp_path), shared(tmp_path, "config", read_only=True)]
        await start_shares(trees, sockets, programs)
        clients = [await asyncio.to_thread(connect, sockets, each.name) for each in trees]
        pids = [pid for _, pid in clients]
        assert len({*pids}) == 2
        assert all(exists(pid) for pid in pids)
        for client, _ in clients:
            client.close()
        await until(lambda: not any(exists(pid) for pid in pids))
    assert logs == []


async def test_a_process_that_dies_is_told_of(
    tmp_path: Path, sockets: Path, programs: Programs
) -> None:
    await start_shares([shared(tmp_path)], sockets, programs)
    client, pid = await asyncio.to_thread(connect, sockets)
    with capture_logs() as logs:
        os.kill(pid, signal.SIGKILL)
        await until(lambda: bool(logs))
    client.close()
    (entry,) = logs
    assert (entry["log_level"], entry["filesystem"], entry["exit_code"]) == ("error", "data", -9)
    assert not exists(pid)


async def test_another_start_leaves_nothing_of_the_last(
    tmp_path: Path, sockets: Path, programs: Programs
) -> None:
    """QEMU did not come for it: libvirt refused the domain, or the launcher was killed before."""
    tree = shared(tmp_path)
    with capture_logs() as logs:
        await start_shares([tree], sockets, programs)
        first, first_pid = await asyncio.to_thread(connect, sockets)
        await start_shares([tree], sockets, programs)
        await until(lambda: not exists(first_pid))
        second, second_pid = await asyncio.to_thread(connect, sockets)
        assert second_pid != first_pid
        first.close()
        second.close()
        await until(lambda: not exists(second_pid))
    assert logs == []


@pytest.mark.parametrize(
    ("script", "error", "words"),
    [
        ("exit 3", ShareRefused, '"data" cannot be shared for writing: .* no Landlock'),
        ("echo 'confine: openat2: no' >&2; exit 1", ShareFailed, '"data": confine: openat2: no'),
        ("exit 1", ShareFailed, '"data": confine failed'),
    ],
)
async def test_what_cannot_be_confined_is_not_shared(
    tmp_path: Path,
    sockets: Path,
    programs: Programs,
    script: str,
    error: type[Exception],
    words: str,
) -> None:
    instead = replaced(programs, tmp_path, script)
    with pytest.raises(error, match=words):
        await start_shares([shared(tmp_path)], sockets, instead)
    assert "shares" not in os.listdir(tmp_path)


async def test_a_program_that_is_missing_is_a_start_that_failed(
    tmp_path: Path, settings: Settings, name: str
) -> None:
    if shutil.which("/usr/libexec/podvisor/confine"):
        pytest.skip("runs in a launcher's image")
    machine = spec(name=name, filesystems=[shared(tmp_path)])
    async with connected() as libvirt:
        with pytest.raises(DomainStartFailed, match='"data": No such file or directory'):
            await start_guest(libvirt, machine, {}, settings)


def test_another_tree_waits_for_the_next_start() -> None:
    running = spec(filesystems=[pb.FilesystemSpec(name="data", directory="/data")])
    wanted = spec(filesystems=[pb.FilesystemSpec(name="data", directory="/data", read_only=True)])
    assert restart_required(running, wanted) == ["filesystems"]
    assert adopt_live_fields(running, wanted).filesystems == running.filesystems
