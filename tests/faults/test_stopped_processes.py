"""SIGSTOP: a process that is there and does not answer is shown in a condition, is never a failure, and heals by itself."""

import asyncio
import os
import time

import pytest

from tests.faults.guest import lived_on, witness_of
from tests.faults.history import History
from tests.faults.measured import Measured
from tests.faults.strike import Victim, strike, uid_of_pod
from tests.support.cluster import Cluster
from tests.support.machine import Machine

pytestmark = pytest.mark.one_machine

SHOWN_S = 30.0
HEALED_S = 15.0
# How long the process is held at least; PODVISOR_FAULTS_HOLD_S=60 is the soak. Otherwise as long as it takes to show.
HOLD_S = float(os.environ.get("PODVISOR_FAULTS_HOLD_S", "0"))


@pytest.mark.parametrize(
    ("victim", "reason"),
    [
        pytest.param(Victim.LAUNCHER, "LauncherUnresponsive", id="launcher"),
        pytest.param(Victim.LIBVIRTD, "LibvirtUnresponsive", id="libvirtd"),
    ],
)
async def test_stopped(
    cluster: Cluster,
    survivor: Machine,
    history: History,
    measured: Measured,
    victim: Victim,
    reason: str,
) -> None:
    """Ready is Unknown with the reason while it is stopped, and True again after SIGCONT; the guest does not notice."""
    before = await witness_of(survivor)
    pod_uid = await uid_of_pod(survivor)
    stopped_s = await strike([victim], pod_uid, signal="STOP")
    try:
        shown = await history.first(
            "vmi",
            survivor.name,
            lambda seen: seen.condition("Ready") == ("Unknown", reason),
            within_s=60,
            what=f"Ready is Unknown because of {reason}",
        )
        # The time itself is the subject: everything may pile up behind the one that does not answer.
        await asyncio.sleep(max(0.0, stopped_s + HOLD_S - time.time()))
        await lived_on(survivor, before)
    finally:
        continued_s = await strike([victim], pod_uid, signal="CONT")
    healed = await history.first(
        "vmi",
        survivor.name,
        lambda seen: seen.is_right,
        after_s=continued_s,
        within_s=60,
        what="Running and Ready",
    )
    await history.first(
        "vm",
        survivor.name,
        lambda seen: seen.is_right,
        within_s=10,
        what="the VM is Running and Ready",
    )
    await lived_on(survivor, before)
    assert history.phases("vmi", survivor.name) == {"Running"}, history
    name = victim.name.lower()
    measured.add(f"SIGSTOP {name}, shown", shown.at_s - stopped_s, limit_s=SHOWN_S)
    measured.add(f"SIGCONT {name}, Ready again", healed.at_s - continued_s, limit_s=HEALED_S)
