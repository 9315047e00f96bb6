"""The API server is gone for a while: guests do not notice, what was handed over goes on, and when it is back everybody catches up
without a storm."""

import asyncio
import time

import pytest

from tests.faults.api_away import api_server_away, restarts
from tests.faults.api_scene import handed_over
from tests.faults.audit import assert_one_writer, controller_writes, ledger, made
from tests.faults.history import recording
from tests.faults.measured import Measured
from tests.faults.replicas import all_are_ready
from tests.perf.measure import audit_mark
from tests.support.cluster import Cluster
from tests.support.machine import Machine

# After the API server's first answer: one pause of everybody, a lease, and what is written then.
CAUGHT_UP_S = 30.0
LOOKED_AT_S = 10.0
WRITES_PER_MACHINE = 2


@pytest.mark.timeout(1200)
@pytest.mark.long
@pytest.mark.parametrize("away_s", [60.0, 600.0])
async def test_api_server_away(
    cluster: Cluster, survivor: Machine, measured: Measured, away_s: float
) -> None:
    """Its process is dead."""
    await all_are_ready()
    restarted = await restarts()
    async with recording(cluster, gaps=True) as history:
        scene = await handed_over(cluster, history, survivor, f"away{away_s:.0f}")
        async with api_server_away() as outage:
            mark = audit_mark()
            await scene.meanwhile()
            # The time itself is the subject.
            await asyncio.sleep(max(0.0, outage.began_s + away_s - time.time()))
        await asyncio.sleep(max(0.0, outage.back_s + LOOKED_AT_S - time.time()))
        first = ledger(mark)
        print(f"writes {dict(first.writes)}; events {first.events}; lists {dict(first.lists)}")
        ready = [seen.condition("Ready") for seen in history.of("vmi", survivor.name)]
        print(f"Ready was {sorted(set(ready))}")
        caught_up_s = await scene.afterwards(outage.back_s, within_s=90)
        writes = controller_writes(mark)
        await scene.clear()
    measured.add(f"API server away {away_s:.0f} s, all right", caught_up_s, limit_s=CAUGHT_UP_S)
    assert first.writes.total() <= WRITES_PER_MACHINE * len(scene.machines), first
    assert max(first.lists.values(), default=0) <= 1, first.lists
    assert made(writes, cluster.namespace, "pods").total() == 0
    assert_one_writer(writes)
    assert await restarts() == restarted
