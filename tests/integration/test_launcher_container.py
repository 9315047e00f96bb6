"""The launcher's image in a container as a pod would run it: user 107, no capability, read-only root. No Kubernetes.

Needs a Docker engine (`dev/engine start`), the test guest (`make guest`) and root, which reads the container's sockets.
"""

import os
import re
import signal
from pathlib import Path

import pytest
from podvisor.domain.v1 import domain_pb2 as domain
from podvisor.launcher.v1 import launcher_pb2 as pb

from tests.support.launcher_container import (
    assert_confined,
    docker,
    make_pod_network,
    running,
    spec,
)

TCP_BANNER = "import socket; print(socket.create_connection(('10.0.2.2', 22), 10).recv(64))"
CAPABILITIES = "cat $XDG_CACHE_HOME/libvirt/qemu/cache/capabilities/*.xml"

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the container's sockets belong to user 107"),
    pytest.mark.timeout(120),
]


async def test_the_guest_outlives_everything_but_itself(image: str, tmp_path: Path) -> None:
    async with running(image, tmp_path) as it:
        info = await it.launcher.GetInfo(pb.GetInfoRequest(), wait_for_ready=True, timeout=20)
        assert info.contract_version == 3
        make_pod_network(it)
        await it.launcher.ApplyDomain(pb.ApplyDomainRequest(spec=spec(tap=True)), timeout=5)
        first = await it.until(domain.DOMAIN_STATE_RUNNING)
        assert re.fullmatch(r"pc-q35-\d+\.\d+", first.machine_type)
        assert {disk.name: disk.target for disk in first.disks} == {"root": "vda", "seed": "vdb"}
        assert min(disk.capacity_bytes for disk in first.disks) > 0
        # Had libvirt not believed the image's knowledge of QEMU, it would have replaced it by its own.
        assert "when the image was built" in docker("exec", it.name, "sh", "-c", CAPABILITIES)
        await it.console_shows("myvm login:")

        for pid in it.processes().values():
            assert_confined(pid)
        assert "opensesame" not in docker("logs", it.name)
        leased = await it.until(domain.DOMAIN_STATE_RUNNING)
        assert list(leased.interfaces[0].addresses) == ["10.0.2.2"]
        assert "SSH-2.0" in docker("exec", it.name, "/opt/podvisor/bin/python", "-c", TCP_BANNER)

        await it.serial(("login:", "root\n"), ("Password:", "opensesame\n"), ("# ", ""))
        before, uptime_s = it.processes(), await it.uptime_s()
        for victim in ("launcher", "libvirtd"):
            os.kill(before[victim], signal.SIGKILL)
        second = await it.until(domain.DOMAIN_STATE_RUNNING)
        assert second.epoch != first.epoch
        assert list(second.timeline) == list(first.timeline)
        assert re.search(r"default_myvm\s+running", docker("exec", it.name, "virsh", "list"))
        after = it.processes()
        assert (after["qemu"], after["supervisor"]) == (before["qemu"], before["supervisor"])
        assert await it.uptime_s() > uptime_s

        await it.launcher.ShutdownDomain(pb.ShutdownDomainRequest(grace_period_s=20), timeout=5)
        ended = await it.until(domain.DOMAIN_STATE_ENDED)
        assert ended.reason == domain.DOMAIN_REASON_SHUTDOWN
        assert await it.exit_code() == 0
        assert docker("wait", it.console, timeout_s=5).strip() == "0"
        assert "Power down" in docker("logs", it.console)


async def test_the_end_of_the_container_is_a_clean_shutdown(image: str, tmp_path: Path) -> None:
    async with running(image, tmp_path) as it:
        await it.launcher.ApplyDomain(
            pb.ApplyDomainRequest(spec=spec()), wait_for_ready=True, timeout=20
        )
        await it.console_shows("myvm login:")
        docker("kill", "--signal=TERM", it.name)
        assert await it.exit_code() == 0
        assert docker("wait", it.console, timeout_s=5).strip() == "0"
        assert "Power down" in docker("logs", it.console)


async def test_the_end_of_qemu_is_a_crash(image: str, tmp_path: Path) -> None:
    async with running(image, tmp_path) as it:
        await it.launcher.ApplyDomain(
            pb.ApplyDomainRequest(spec=spec()), wait_for_ready=True, timeout=20
        )
        await it.until(domain.DOMAIN_STATE_RUNNING)
        os.kill(it.processes()["qemu"], signal.SIGKILL)
        ended = await it.until(domain.DOMAIN_STATE_ENDED)
        assert ended.reason == domain.DOMAIN_REASON_CRASHED
        assert ended.message == "QEMU was killed by signal 9."
        assert await it.exit_code() == 1


async def test_a_shutdown_that_libvirt_misses_is_no_crash(image: str, tmp_path: Path) -> None:
    """libvirtd ends QEMU after the guest's shutdown, and is killed before it has noted that."""
    async with running(image, tmp_path) as it:
        await it.launcher.ApplyDomain(
            pb.ApplyDomainRequest(spec=spec()), wait_for_ready=True, timeout=20
        )
        await it.until(domain.DOMAIN_STATE_RUNNING)
        processes = it.processes()
        os.kill(processes["libvirtd"], signal.SIGKILL)
        os.kill(processes["qemu"], signal.SIGTERM)
        assert (await it.until(domain.DOMAIN_STATE_ENDED)).reason == domain.DOMAIN_REASON_SHUTDOWN
        assert await it.exit_code() == 0


async def test_a_guest_that_is_to_start_paused_waits_to_be_resumed(
    image: str, tmp_path: Path
) -> None:
    wanted = spec()
    wanted.start_paused = True
    async with running(image, tmp_path) as it:
        await it.launcher.ApplyDomain(
            pb.ApplyDomainRequest(spec=wanted), wait_for_ready=True, timeout=20
        )
        paused = await it.until(domain.DOMAIN_STATE_PAUSED)
        assert paused.reason == domain.DOMAIN_REASON_PAUSED_BY_USER
        os.kill(it.processes()["launcher"], signal.SIGKILL)
        again = await it.until(domain.DOMAIN_STATE_PAUSED)
        assert again.reason == domain.DOMAIN_REASON_PAUSED_BY_USER
        docker("exec", it.name, "virsh", "resume", "default_myvm")
        await it.until(domain.DOMAIN_STATE_RUNNING)
        await it.console_shows(r"login:")


async def test_a_guest_that_does_not_listen_is_destroyed(image: str, tmp_path: Path) -> None:
    (tmp_path / "empty.img").write_bytes(bytes(1 << 20))
    async with running(image, tmp_path, tmp_path / "empty.img") as it:
        await it.launcher.ApplyDomain(
            pb.ApplyDomainRequest(spec=spec()), wait_for_ready=True, timeout=20
        )
        await it.until(domain.DOMAIN_STATE_RUNNING)
        await it.launcher.ShutdownDomain(pb.ShutdownDomainRequest(grace_period_s=1), timeout=5)
        ended = await it.until(domain.DOMAIN_STATE_ENDED)
        assert ended.reason == domain.DOMAIN_REASON_GRACE_PERIOD_EXPIRED
        assert await it.exit_code() == 1


async def test_a_container_that_was_never_given_a_machine_ends_cleanly(
    image: str, tmp_path: Path
) -> None:
    async with running(image, tmp_path) as it:
        await it.launcher.GetInfo(pb.GetInfoRequest(), wait_for_ready=True, timeout=20)
        docker("kill", "--signal=TERM", it.name)
        assert await it.exit_code() == 0


async def test_the_death_of_the_supervisor_is_the_end_of_all(image: str, tmp_path: Path) -> None:
    async with running(image, tmp_path) as it:
        await it.launcher.ApplyDomain(
            pb.ApplyDomainRequest(spec=spec()), wait_for_ready=True, timeout=20
        )
        await it.until(domain.DOMAIN_STATE_RUNNING)
        os.kill(it.processes()["supervisor"], signal.SIGKILL)
        assert await it.exit_code(5) == 137
        assert docker("wait", it.console, timeout_s=5).strip() == "0"
