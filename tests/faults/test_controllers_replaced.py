"""Controllers that are replaced on purpose: a rollout costs no call and no leader; both replicas deleted at once cost as long as
a pod takes to start."""

import asyncio
import time
from collections.abc import AsyncIterator

from tests.faults.admission import load_on_webhooks
from tests.faults.measured import Measured
from tests.faults.replicas import (
    CONTROLLER,
    CONTROLLER_PODS,
    INSTALL,
    LEASE,
    all_are_ready,
    holder_of,
)
from tests.support.cluster import Cluster, Json
from tests.support.machine import Machine

HANDED_OVER_S = 1.0
OUTAGE_S = 6.0


async def test_rollout(cluster: Cluster, survivor: Machine, measured: Measured) -> None:
    """Every replica is replaced: no webhook call fails, and each leader that goes is followed at once."""
    await all_are_ready()
    gaps_s: list[float] = []
    async with (
        load_on_webhooks(cluster, survivor) as load,
        INSTALL.watching("lease", LEASE) as leases,
    ):
        looking = asyncio.create_task(_note_gaps(leases, gaps_s), name="gaps")
        await INSTALL.kubectl("rollout", "restart", CONTROLLER)
        await all_are_ready()
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
    assert gaps_s, "nobody handed the lease over"
    assert load.failures == []
    for gap_s in gaps_s:
        measured.add("controllers rolled out, without a leader", gap_s, limit_s=HANDED_OVER_S)


async def _note_gaps(leases: AsyncIterator[Json | None], gaps_s: list[float]) -> None:
    """How long the lease was nobody's, each time."""
    released_s: float | None = None
    async for lease in leases:
        if not holder_of(lease):
            released_s = time.monotonic()
        elif released_s is not None:
            gaps_s.append(time.monotonic() - released_s)
            released_s = None


async def test_both_deleted_at_once(
    cluster: Cluster, survivor: Machine, measured: Measured
) -> None:
    """Calls are refused until the first of the new ones is ready, and for no longer."""
    await all_are_ready()
    async with load_on_webhooks(cluster, survivor) as load:
        await INSTALL.kubectl("delete", "pod", "-l", CONTROLLER_PODS, "--wait=false")
        await all_are_ready()
        calls = load.calls
    assert calls > 0
    measured.add("both controllers deleted, calls refused", load.outage_s, limit_s=OUTAGE_S)
