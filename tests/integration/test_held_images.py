"""A guest's image that a container beside `compute` holds, as in a pod of a cluster that mounts no image as a volume."""

import os
import signal
from pathlib import Path

import pytest
from podvisor.domain.v1 import domain_pb2 as domain
from podvisor.launcher.v1 import launcher_pb2 as pb

from tests.support.launcher_container import docker, running, spec

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the container's sockets belong to user 107"),
    pytest.mark.timeout(120),
]


def runs(pid: int) -> bool:
    """The process is there and has not ended."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


async def test_a_guest_whose_image_is_held_outlives_its_keepers_and_ends_cleanly(
    image: str, tmp_path: Path
) -> None:
    async with running(image, tmp_path, held=True) as it:
        await it.launcher.ApplyDomain(
            pb.ApplyDomainRequest(spec=spec()), wait_for_ready=True, timeout=20
        )
        first = await it.until(domain.DOMAIN_STATE_RUNNING)
        await it.console_shows("myvm login:")
        before = it.processes()
        for victim in ("launcher", "libvirtd"):
            os.kill(before[victim], signal.SIGKILL)
        while (await it.until(domain.DOMAIN_STATE_RUNNING)).epoch == first.epoch:
            pass
        after = it.processes()
        assert (after["qemu"], after["supervisor"]) == (before["qemu"], before["supervisor"])
        # The order to end comes to all; the image is held until the guest is off.
        for name in (it.name, f"{it.name}-holder"):
            docker("kill", "--signal=TERM", name)
        assert await it.exit_code() == 0
        assert it.holder_exit_code() == 0
        assert "Power down" in docker("logs", it.console)


async def test_the_death_of_the_supervisor_among_shared_process_ids_is_the_end_of_all(
    image: str, tmp_path: Path
) -> None:
    """It is not their first process here: the container runtime has to end the others."""
    async with running(image, tmp_path, held=True) as it:
        await it.launcher.ApplyDomain(
            pb.ApplyDomainRequest(spec=spec()), wait_for_ready=True, timeout=20
        )
        await it.until(domain.DOMAIN_STATE_RUNNING)
        processes = it.processes()
        os.kill(processes["supervisor"], signal.SIGKILL)
        assert await it.exit_code(5) == 137
        assert it.holder_exit_code() == 0
        assert not any(map(runs, processes.values()))
