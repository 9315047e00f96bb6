"""Guests' connections while what looks after them is killed, one after the other: they go on, and so do leases and new connections."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from tests.faults.guest import booted
from tests.faults.strike import Victim, pids_of, strike, uid_of_pod
from tests.support.cluster import Cluster, Json
from tests.support.machine import Machine
from tests.support.networks import BINDINGS, Binding, networked_vmi, reachable_by

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


class _Session:
    """A session over ssh to a guest that counts in it."""

    def __init__(self, machine: Machine, lines: AsyncIterator[str]) -> None:
        self.machine = machine
        self._lines = lines
        self._last = 0

    async def goes_on(self) -> None:
        """It brings the next lines, and none is missing."""
        for _ in range(LINES):
            async with asyncio.timeout(PATIENCE_S):
                line = await anext(self._lines)
            self._last += 1
            assert int(line) == self._last, f"{self.machine.name}: {line} instead of {self._last}"


async def _strike_all(sessions: list[_Session], victim: Victim) -> None:
    """Kill it in each machine's pod, or the node's, at once; wait until each is there again, and the sessions have gone on meanwhile."""
    pods = [await uid_of_pod(session.machine) for session in sessions]
    dead = [set(await pids_of(victim, pod)) for pod in pods]
    for pod in pods[:1] if victim is Victim.HANDLER else pods:
        await strike([victim], pod)
    await _all_go_on(sessions)
    async with asyncio.timeout(20):
        for pod, gone in zip(pods, dead, strict=True):
            while not (now := await pids_of(victim, pod)) or gone & set(now):
                pass
    await _all_go_on(sessions)


async def _all_go_on(sessions: list[_Session]) -> None:
    await asyncio.gather(*(session.goes_on() for session in sessions))


async def _talker(cluster: Cluster, binding: Binding) -> Machine:
    interface: Json = {"default": reachable_by(binding)}
    name = f"talker-{binding.lower()}"
    return await booted(cluster, networked_vmi(name, {"default": {"pod": {}}}, interface))


async def test_connections_and_leases_go_on(cluster: Cluster) -> None:
    """By each binding, a session over ssh counts on without a gap through the death of handler, launcher and libvirtd, one after the
    other; then the guest renews its lease."""
    talkers = await asyncio.gather(*(_talker(cluster, binding) for binding in BINDINGS))
    async with AsyncExitStack() as open_:
        sessions = [
            _Session(machine, await open_.enter_async_context(machine.prints(_COUNTS)))
            for machine in talkers
        ]
        await _all_go_on(sessions)
        for victim in (Victim.HANDLER, Victim.LAUNCHER, Victim.LIBVIRTD):
            await _strike_all(sessions, victim)
    for machine in talkers:
        assert (await machine.ssh(_RENEWS, timeout_s=40)).stdout.strip() == "renewed", machine.name
        assert (await machine.ssh("hostname")).stdout.strip() == machine.name
        await cluster.kubectl(
            "delete", f"vmi/{machine.name}", f"service/{machine.name}-ssh", "--wait=false"
        )
