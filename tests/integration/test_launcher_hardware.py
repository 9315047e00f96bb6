"""A TPM, a time zone and random numbers in the launcher's image: libvirt's helpers have all they need where nothing else is there.

Needs what test_launcher_container.py needs.
"""

import asyncio
import os
import re
import select
import signal
import time
from functools import partial
from pathlib import Path

import pytest
from podvisor.domain.v1 import domain_pb2 as domain
from podvisor.launcher.v1 import launcher_pb2 as pb

from tests.support.launcher_container import assert_confined, running, spec

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the container's sockets belong to user 107"),
    pytest.mark.timeout(120),
]
_ENDS_WITHIN_S = 20
_TOKYO_IS_AHEAD_S = 9 * 3600


def hardware_spec(timezone: str) -> domain.DomainSpec:
    made = spec()
    made.tpm = made.rng = True
    made.clock.timezone = timezone
    return made


async def test_a_guest_has_a_tpm_and_a_clock_in_its_zone(image: str, tmp_path: Path) -> None:
    """The process behind the TPM is the launcher's user's, and ends with the guest."""
    async with running(image, tmp_path) as it:
        await it.launcher.ApplyDomain(
            pb.ApplyDomainRequest(spec=hardware_spec("Asia/Tokyo")),
            wait_for_ready=True,
            timeout=20,
        )
        await it.console_shows("myvm login:")
        await it.serial(("login:", "root\n"), ("Password:", "opensesame\n"), ("# ", ""))
        asked = "cat /sys/class/rtc/rtc0/since_epoch /sys/class/tpm/tpm0/tpm_version_major"
        said = await it.serial((r"# $|# \x1b", f"{asked}\n"), (r"\n\d+\r+\n2\r", ""))
        found = re.search(r"\n(\d+)\r+\n2\r", said)
        assert found is not None
        assert abs(int(found[1]) - time.time() - _TOKYO_IS_AHEAD_S) < 60
        processes = it.processes()
        assert_confined(processes["swtpm"])
        swtpm = os.pidfd_open(processes["swtpm"])
        try:
            # A launcher that stands still does not end the container, which would end all that is in it.
            os.kill(processes["launcher"], signal.SIGSTOP)
            os.kill(processes["qemu"], signal.SIGKILL)
            wait = partial(select.select, [swtpm], [], [], _ENDS_WITHIN_S)
            assert (await asyncio.to_thread(wait))[0] == [swtpm]
            assert "supervisor" in it.processes()
        finally:
            os.close(swtpm)
            os.kill(processes["launcher"], signal.SIGCONT)
        ended = await it.until(domain.DOMAIN_STATE_ENDED)
        assert ended.reason == domain.DOMAIN_REASON_CRASHED


async def test_a_watchdog_that_powers_off_is_no_shutdown(image: str, tmp_path: Path) -> None:
    """QEMU ends as it does after a shutdown, and libvirt says that it crashed, as it does of a shutdown that it has missed."""
    machine = spec()
    machine.watchdog.name, machine.watchdog.action = "dog", "poweroff"
    async with running(image, tmp_path) as it:
        await it.launcher.ApplyDomain(
            pb.ApplyDomainRequest(spec=machine), wait_for_ready=True, timeout=20
        )
        await it.console_shows("myvm login:")
        await it.serial(("login:", "root\n"), ("Password:", "opensesame\n"), ("# ", ""))
        # Its driver comes after the prompt. Who opens it and goes without a word has left it running: for half a minute.
        wait = "until [ -c /dev/watchdog0 ]; do sleep 1; done"
        await it.serial(
            (r"# $|# \x1b", f"{wait}; echo 1 > /dev/watchdog0; echo bi''te\n"), ("bite", "")
        )
        ended = await it.until(domain.DOMAIN_STATE_ENDED, within_s=60)
        assert ended.reason == domain.DOMAIN_REASON_CRASHED
        assert "watchdog" in ended.message


async def test_a_time_zone_that_there_is_not(image: str, tmp_path: Path) -> None:
    """The machine ends at once, and says why."""
    async with running(image, tmp_path) as it:
        await it.launcher.ApplyDomain(
            pb.ApplyDomainRequest(spec=hardware_spec("Mars/Olympus")),
            wait_for_ready=True,
            timeout=20,
        )
        report = await it.until(domain.DOMAIN_STATE_ENDED)
        assert report.reason == domain.DOMAIN_REASON_REJECTED
        assert 'there is no time zone "Mars/Olympus"' in report.message
