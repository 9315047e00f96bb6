"""Machines come and go, many times: nothing of them stays, on the node or in the memory of those that looked after them.

Guests are ended as soon as they run, since starting and ending is the subject. What every fifth cycle has left is kept as
`soak-<cycles>x<machines>.json` beside the artefacts. PODVISOR_FAULTS_CYCLES=20 is a shorter soak, to be repeated.
"""

import asyncio
import json
import os
import statistics
import time
from dataclasses import asdict, dataclass, field

import pytest
from podvisor_common.kube import events

from tests.faults.artefacts import ARTEFACTS
from tests.faults.guest import lived_on, witness_of
from tests.faults.history import History, recording
from tests.faults.strike import Victim, pids_of, uid_of_pod
from tests.support.cluster import Cluster
from tests.support.machine import Machine, vm
from tests.support.node import Usage, node_at_rest, pids_on_node, until_nothing_more, usage_of

CYCLES = int(os.environ.get("PODVISOR_FAULTS_CYCLES", "50"))
WARM_UP_CYCLES = 2
# A process has its size once its pools and tables are filled. The last of them holds the events of as many seconds.
FILLED_S = events.WINDOW_S
NOTED_EVERY = 5
STARTED_S = 120
GONE_S = 90
TIDY_UP_S = 60
GROWTH_LIMIT = 0.05
# The pool of connections to the API server breathes; what leaks grows with every machine.
DESCRIPTORS_TOLERANCE = 8
TASKS_TOLERANCE = 8


@dataclass(slots=True)
class Curve:
    """What processes used after so many cycles."""

    names: dict[int, str]
    usage: dict[int, dict[int, Usage]] = field(default_factory=dict)  # by cycles, then by pid

    async def note(self, cycles: int) -> None:
        """Look at all of them. None may have ended."""
        self.usage[cycles] = await usage_of(self.names)
        gone = [name for pid, name in self.names.items() if pid not in self.usage[cycles]]
        assert gone == [], f"ended during the soak: {gone}"

    def rows(self) -> list[str]:
        """For people: a line for each look at each process."""
        return [
            f"{self.names[pid]:16} after {cycles:3} cycles: {use.rss_mib:7.1f} MiB,"
            f" {use.descriptors} descriptors, {use.threads} threads, {use.tasks} tasks"
            for cycles, usage in self.usage.items()
            for pid, use in usage.items()
        ]

    def save(self, name: str) -> None:
        """Keep it beside the artefacts."""
        content = {
            str(cycles): {self.names[pid]: asdict(use) for pid, use in usage.items()}
            for cycles, usage in self.usage.items()
        }
        ARTEFACTS.mkdir(parents=True, exist_ok=True)
        (ARTEFACTS / name).write_text(json.dumps(content, indent=1))

    def grown(self) -> list[str]:
        """Complaints about what uses more at the end than after the warm-up."""
        moments = sorted(self.usage)
        first, last = self.usage[moments[0]], self.usage[moments[-1]]
        complaints = []
        for pid, name in self.names.items():
            late = statistics.median(self.usage[m][pid].rss_mib for m in moments[1:][-3:])
            if late > first[pid].rss_mib * (1 + GROWTH_LIMIT):
                complaints.append(f"{name}: {first[pid].rss_mib:.1f} → {late:.1f} MiB")
            if last[pid].descriptors > first[pid].descriptors + DESCRIPTORS_TOLERANCE:
                complaints.append(f"{name}: {first[pid]} → {last[pid]}")
            if (last[pid].tasks or 0) > (first[pid].tasks or 0) + TASKS_TOLERANCE:
                complaints.append(f"{name}: {first[pid]} → {last[pid]}")
        return complaints


@pytest.mark.parametrize(
    ("warm_up_s", "cycles", "machines"),
    [
        (0, 4, 4),
        pytest.param(FILLED_S, CYCLES, 10, marks=[pytest.mark.long, pytest.mark.timeout(3600)]),
    ],
)
async def test_nothing_stays(
    cluster: Cluster, survivor: Machine, warm_up_s: float, cycles: int, machines: int
) -> None:
    """Machines are created together and deleted together, beside one that lives on and whose launcher must not grow either."""
    before = await witness_of(survivor)
    names = [f"brief-{number}" for number in range(machines)]
    warm_up_cycles, began_s = 0, time.monotonic()
    while warm_up_cycles < WARM_UP_CYCLES or time.monotonic() < began_s + warm_up_s:
        await _come_and_go(cluster, names)
        warm_up_cycles += 1
    state = await node_at_rest(within_s=TIDY_UP_S)
    curve = Curve(await _processes(survivor))
    await curve.note(0)
    for cycle in range(1, cycles + 1):
        await _come_and_go(cluster, names)
        if cycle % NOTED_EVERY == 0 and cycle < cycles:
            await curve.note(cycle)
    await until_nothing_more(state, within_s=TIDY_UP_S)
    await curve.note(cycles)
    curve.save(f"soak-{cycles}x{machines}.json")
    print("\n".join(curve.rows()))
    assert curve.grown() == []
    await lived_on(survivor, before)


async def _come_and_go(cluster: Cluster, names: list[str]) -> None:
    machines = [vm(name, terminationGracePeriodSeconds=0) for name in names]
    manifests = {"apiVersion": "v1", "kind": "List", "items": machines}
    async with recording(cluster) as history, asyncio.TaskGroup() as group:
        await cluster.apply(manifests)
        for name in names:
            group.create_task(_until_gone(history, name), name=name)


async def _until_gone(history: History, name: str) -> None:
    await history.first(
        "vm", name, lambda seen: seen.phase == "Running", within_s=STARTED_S, what="runs"
    )
    await history.cluster.kubectl("delete", "vm", name, "--wait=false")
    await history.first(
        "vm", name, lambda seen: seen.state is None, within_s=GONE_S, what="is gone"
    )


async def _processes(survivor: Machine) -> dict[int, str]:
    """Those that have to live through it: pid to name."""
    pod = await uid_of_pod(survivor)
    found = dict.fromkeys(await pids_of(Victim.HANDLER, pod), "virt-handler")
    controllers = await pids_on_node("^python -m podvisor_controller$")
    found |= {pid: f"virt-controller-{number}" for number, pid in enumerate(controllers)}
    for victim in (Victim.LAUNCHER, Victim.LIBVIRTD):
        found |= {pid: victim.name.lower() for pid in await pids_of(victim, pod)}
    return found
