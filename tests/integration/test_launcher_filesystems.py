"""Trees of files that a guest shares, in the launcher's image: what the guest sees, what it survives, and what it cannot reach.

Needs what test_launcher_container.py needs.
"""

import asyncio
import errno
import os
import signal
from pathlib import Path

import pytest
from podvisor.domain.v1 import domain_pb2 as domain
from podvisor.launcher.v1 import launcher_pb2 as pb

from tests.support.hostile_guest import HostileGuest
from tests.support.launcher_container import (
    GUEST,
    RUN,
    Container,
    assert_confined,
    docker,
    running,
    spec,
)

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the container's sockets belong to user 107"),
    pytest.mark.timeout(120),
]

LAUNCHER_UID = 107
SERVE = f"""
import asyncio
from pathlib import Path
from podvisor.domain.v1.domain_pb2 import FilesystemSpec
from podvisor_launcher.storage.virtiofs import start_shares
share = FilesystemSpec(name="data", directory="{RUN}/volumes/data", read_only=READ_ONLY)
asyncio.run(start_shares([share], Path("{RUN}/sockets")))
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A volume that belongs to the launcher's user."""
    return _directory(tmp_path / "data")


def _directory(path: Path) -> Path:
    path.mkdir()
    (path / "file").write_text("from the node\n")
    for each in (path, path / "file"):
        os.chown(each, LAUNCHER_UID, LAUNCHER_UID)
    return path


def sharing_spec() -> domain.DomainSpec:
    made = spec()
    made.filesystems.add(name="data", directory=f"{RUN}/volumes/data")
    made.filesystems.add(name="config", directory=f"{RUN}/files/config", read_only=True)
    return made


async def in_guest(it: Container, command: str) -> str:
    """What a command prints in a guest where root is logged in."""
    said = await it.serial((r"# $|# \x1b", f"{command}; echo en''d\n"), (r"end\r\n", ""))
    return said.replace("\r", "").rpartition("en''d\n")[2].rpartition("end\n")[0]


async def test_a_guest_keeps_its_files_whoever_is_killed(
    image: str, tmp_path: Path, data: Path
) -> None:
    config = _directory(tmp_path / "config")
    volumes = (f"{data}:{RUN}/volumes/data", f"{config}:{RUN}/files/config")
    async with running(image, tmp_path, GUEST, *volumes) as it:
        await it.launcher.ApplyDomain(
            pb.ApplyDomainRequest(spec=sharing_spec()), wait_for_ready=True, timeout=20
        )
        await it.console_shows("myvm login:")
        await it.serial(("login:", "root\n"), ("Password:", "opensesame\n"), ("# ", ""))
        mount = "mkdir -p /mnt/$i; until mount -t virtiofs $i /mnt/$i 2>/dev/null; do usleep 99999; done"
        await in_guest(it, f"for i in data config; do {mount}; done")
        assert await in_guest(it, "cat /mnt/data/file /mnt/config/file") == "from the node\n" * 2

        before = it.processes()
        assert_confined(before["virtiofsd"])
        for victim in ("launcher", "libvirtd"):
            os.kill(before[victim], signal.SIGKILL)
        await it.until(domain.DOMAIN_STATE_RUNNING)

        await in_guest(it, "echo from the guest > /mnt/data/new; sync; rm /mnt/data/file")
        assert (data / "new").read_text() == "from the guest\n"
        assert not (data / "file").exists()
        refused = await in_guest(it, "rm /mnt/config/file 2>&1; touch /mnt/config/new 2>&1")
        assert refused.count("Read-only file system") == 2
        assert [each.name for each in config.iterdir()] == ["file"]
        (data / "new").write_text("once more from the node\n")
        assert await in_guest(it, "sleep 2; cat /mnt/data/new") == "once more from the node\n"

        await it.launcher.ShutdownDomain(pb.ShutdownDomainRequest(grace_period_s=20), timeout=5)
        ended = await it.until(domain.DOMAIN_STATE_ENDED)
        assert ended.reason == domain.DOMAIN_REASON_SHUTDOWN
        assert await it.exit_code() == 0
        assert "virtiofsd died" not in docker("logs", it.name)


async def test_a_tree_that_is_lost_does_not_take_the_guest_with_it(
    image: str, tmp_path: Path, data: Path
) -> None:
    machine = spec()
    machine.filesystems.add(name="data", directory=f"{RUN}/volumes/data")
    async with running(image, tmp_path, GUEST, f"{data}:{RUN}/volumes/data") as it:
        await it.launcher.ApplyDomain(
            pb.ApplyDomainRequest(spec=machine), wait_for_ready=True, timeout=20
        )
        await it.console_shows("myvm login:")
        await it.serial(("login:", "root\n"), ("Password:", "opensesame\n"), ("# ", ""))
        os.kill(it.processes()["virtiofsd"], signal.SIGKILL)
        assert await it.uptime_s() > 0
        await it.log_shows("virtiofsd died; the guest has lost a file system until its next start")


@pytest.mark.parametrize("read_only", [False, True])
async def test_a_guest_reaches_nothing_but_its_tree(
    image: str, tmp_path: Path, data: Path, read_only: bool
) -> None:
    (data / "sub").mkdir()
    os.chown(data / "sub", LAUNCHER_UID, LAUNCHER_UID)
    async with running(image, tmp_path, GUEST, f"{data}:{RUN}/volumes/data") as it:
        victim = f"{RUN}/private/victim"
        docker("exec", it.name, "sh", "-c", f"touch {victim} && mkdir {RUN}/private/empty")
        serve = SERVE.replace("READ_ONLY", str(read_only))
        docker("exec", it.name, "/opt/podvisor/bin/python", "-c", serve)
        guest = await asyncio.to_thread(HostileGuest, it.sockets / "data.sock")
        try:
            await asyncio.to_thread(attack, guest, data, victim, read_only)
        finally:
            guest.close()
        left = docker(
            "exec", it.name, "sh", "-c", f"cd {RUN}; ls -d private/* runtime/* sockets/*"
        ).split()
        assert {"private/victim", "private/empty"} <= set(left)
        assert not [each for each in left if "escape" in each]


def attack(guest: HostileGuest, data: Path, victim: str, read_only: bool) -> None:
    """Everything by which a name could lead out of the tree."""
    paths = ("..", "../..", "sub/../..", "/")
    assert {guest.lookup(path)[2] for path in paths} == {data.stat().st_ino}
    for path in ("../../private", victim, "/etc/passwd", "sub/../../../private/victim"):
        assert guest.lookup(path)[0] == errno.ENOENT
    refused = errno.EROFS if read_only else errno.EACCES
    escape = f"{RUN}/private/escape"
    for path in (escape, "../../private/escape", f"{RUN}/runtime/escape", f"{RUN}/sockets/escape"):
        assert guest.mkdir(path) == refused
        assert guest.mknod(path) == refused
        assert guest.symlink(path, "/etc") == refused
        assert guest.create(path) in (refused, errno.ENOENT)
    assert guest.link(guest.lookup("file")[1], escape) in (refused, errno.EXDEV)
    assert guest.rename(victim, escape) == refused
    assert guest.rename(victim, "stolen") in (refused, errno.EXDEV)
    assert guest.unlink(victim) == refused
    assert guest.rmdir(f"{RUN}/private/empty") == refused
    # What is its own, the guest may change.
    expected = errno.EROFS if read_only else 0
    assert guest.mkdir("own") == expected
    assert guest.rename("file", "sub/file") == expected
