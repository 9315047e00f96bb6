"""A guest's connections while what looks after it is killed, one after the other: they go on, and so do its lease and new connections."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.faults.guest import booted
from tests.faults.strike import Victim, pids_of, strike, uid_of_pod
from tests.support.cluster import Cluster, Json
from tests.support.machine import Machine
from tests.support.networks import Binding, networked_vmi, reachable_by

# What a line may be late by: the guest says one five times a second, under emulation on a busy machine.
PATIENCE_S = 5.0
LINES = 15

_COUNTS = "i=0; while :; do i=$((i+1)); echo $i; usleep 200000; done"
# busybox's client asks again when it is told to; what it runs then leaves that file.
_RENEWS = """
    rm /run/dhcp.bound
    kill -USR1 $(cat /run/udhcpc.eth0.pid)
    for _ in $(seq 100); do [ -e /run/dhcp.bound ] && echo renewed && exit; usleep 100000; done
"""

pytestmark = pytest.mark.timeout(200)


async def _goes_on(lines: AsyncIterator[str], last: int) -> int:
    """The session brings the next lines, and none is missing; the last of them."""
    for _ in range(LINES):
        async with asyncio.timeout(PATIENCE_S):
            line = await anext(lines)
        assert int(line) == last + 1
        last += 1
    return last


async def _is_back(machine: Machine, victim: Victim, dead: set[int]) -> None:
    async with asyncio.timeout(20):
        pod_uid = await uid_of_pod(machine)
        while not (now := await pids_of(victim, pod_uid)) or dead & set(now):
            pass


@pytest.mark.parametrize("binding", ["masquerade", "bridge", "passtBinding"])
async def test_connection_and_lease_go_on(cluster: Cluster, binding: Binding) -> None:
    """A session over ssh counts on without a gap through the death of handler, launcher and libvirtd; then the guest renews its lease."""
    name = f"talker-{binding.lower()}"
    interfaces: Json = {"default": reachable_by(binding)}
    machine = await booted(cluster, networked_vmi(name, {"default": {"pod": {}}}, interfaces))
    pod_uid = await uid_of_pod(machine)
    async with machine.prints(_COUNTS) as lines:
        last = await _goes_on(lines, 0)
        for victim in (Victim.HANDLER, Victim.LAUNCHER, Victim.LIBVIRTD):
            dead = set(await pids_of(victim, pod_uid))
            await strike([victim], pod_uid)
            last = await _goes_on(lines, last)
            await _is_back(machine, victim, dead)
            last = await _goes_on(lines, last)
    assert (await machine.ssh(_RENEWS, timeout_s=40)).stdout.strip() == "renewed"
    assert (await machine.ssh("hostname")).stdout.strip() == name
    await cluster.kubectl("delete", f"vmi/{name}", f"service/{name}-ssh", "--wait=false")
