"""kill -9 at random moments while machines start, are stopped and are deleted: what was asked for comes about, and nobody ever
reads that anything has failed."""

import asyncio
import random

import pytest

from tests.faults.guest import counting_vm, counting_vmi, witness_of
from tests.faults.history import History
from tests.faults.strike import Victim, pids_of, strike
from tests.support.cluster import Cluster
from tests.support.machine import Machine, gone, pod_processes

KEEPERS = (Victim.LAUNCHER, Victim.LIBVIRTD, Victim.HANDLER)
STARTED_S = 40
ENDED_S = 30
BLOWS = 4


async def _blows(cluster: Cluster, names: list[str], chance: random.Random) -> None:
    """Blows within the first seconds of a change, at whoever is there, in all pods of the machines at once."""
    for _ in range(BLOWS):
        # The moment is the subject: it may fall into any step of the change.
        await asyncio.sleep(chance.uniform(0, 0.8))
        victims = chance.sample(KEEPERS, chance.randint(1, len(KEEPERS)))
        await asyncio.gather(
            *(strike(victims, uid, must_hit=False) for uid in await _pods(cluster, names))
        )


async def _pods(cluster: Cluster, names: list[str]) -> list[str]:
    pods = await cluster.all("pods", labels=f"vmi.kubevirt.io/id in ({','.join(names)})")
    return [pod["metadata"]["uid"] for pod in pods]


@pytest.mark.parametrize(
    "round_", [0, *(pytest.param(n, marks=pytest.mark.long) for n in range(1, 11))]
)
async def test_start_and_end_amid_blows(
    cluster: Cluster, history: History, chance: random.Random, round_: int
) -> None:
    """Two instances and a VM are started, then deleted and stopped, with blows in between all the while."""
    names = [f"{stem}-{round_}" for stem in ("alone", "lonely", "owned")]
    await cluster.apply(counting_vmi(names[0]))
    await cluster.apply(counting_vmi(names[1]))
    await cluster.apply(counting_vm(names[2]))
    await _blows(cluster, names, chance)
    machines = [Machine(cluster, name) for name in names]
    for machine in machines:
        await machine.running(within_s=STARTED_S)
    for machine in machines:
        await machine.console_shows(rf"{machine.name} login:", within_s=STARTED_S)
        await witness_of(machine)
    uids = await _pods(cluster, names)
    assert len(uids) == len(names)
    for uid in uids:
        assert len(await pids_of(Victim.QEMU, uid)) == 1

    await cluster.kubectl("delete", "vmi", *names[:2], "--wait=false")
    halt = '{"spec":{"runStrategy":"Halted"}}'
    await cluster.kubectl("patch", "vm", names[2], "--type=merge", "-p", halt)
    await _blows(cluster, names, chance)
    for name in names:
        await cluster.until("vmi", name, gone, within_s=ENDED_S, what="the instance is gone")
    await history.first(
        "vm", names[2], lambda seen: seen.phase == "Stopped", within_s=10, what="the VM is Stopped"
    )
    for uid in uids:
        assert await pod_processes(uid) == {}
    for name in names:
        assert "Failed" not in history.phases("vmi", name), history
        instances = {
            seen.state["metadata"]["uid"] for seen in history.of("vmi", name) if seen.state
        }
        assert len(instances) == 1, history
    await cluster.kubectl("delete", "vm", names[2], "--wait=false")
