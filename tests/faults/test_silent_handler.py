"""A node whose handler is away for minutes while the node itself is well: said, and nothing else comes of it."""

import json
import time

import pytest

from tests.faults.guest import lived_on, witness_of
from tests.faults.history import History
from tests.faults.measured import Measured
from tests.support.cluster import Cluster
from tests.support.machine import Machine

# Two heartbeats and a half, and the time until a second look.
SHOWN_S = 260.0
HEALED_S = 30.0
_INSTALL = Cluster("kubevirt")


async def _place_handlers(*, nowhere: bool) -> None:
    """Handlers run where they are placed: nowhere, or on every node."""
    selector = {"podvisor.test/nowhere": "true" if nowhere else None}
    patch = {"spec": {"template": {"spec": {"nodeSelector": selector}}}}
    await _INSTALL.kubectl("patch", "daemonset", "virt-handler", "-p", json.dumps(patch))


@pytest.mark.long
@pytest.mark.timeout(500)
async def test_a_handler_that_is_away_for_minutes(
    cluster: Cluster, survivor: Machine, history: History, measured: Measured
) -> None:
    """Ready is Unknown with the reason, the node takes no machines, the guest does not notice; it heals by itself."""
    before = await witness_of(survivor)
    await _place_handlers(nowhere=True)
    away_s = time.time()
    try:
        shown = await history.first(
            "vmi",
            survivor.name,
            lambda seen: seen.condition("Ready") == ("Unknown", "HandlerUnresponsive"),
            within_s=SHOWN_S + 20,
            what="Ready is Unknown because of HandlerUnresponsive",
        )
        node = await _INSTALL.get("node", "node1")
        assert node is not None
        assert node["metadata"]["labels"]["kubevirt.io/schedulable"] == "false"
        await lived_on(survivor, before)
    finally:
        await _place_handlers(nowhere=False)
    back_s = time.time()
    healed = await history.first(
        "vmi",
        survivor.name,
        lambda seen: seen.is_right,
        after_s=back_s,
        within_s=60,
        what="Running and Ready",
    )
    await lived_on(survivor, before)
    assert history.phases("vmi", survivor.name) == {"Running"}, history
    measured.add("no handler, shown", shown.at_s - away_s, limit_s=SHOWN_S)
    measured.add("handler back, Ready again", healed.at_s - back_s, limit_s=HEALED_S)
