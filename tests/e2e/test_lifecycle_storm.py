"""Twenty machines, five users, everything at once."""

import os
import random
import time

import pytest
from podvisor_common.kube.client import KubeClient

from tests.support.cluster import ROOT, Cluster
from tests.support.storm import blow, watching

# Given again, it repeats what the users do, though not how long each step takes.
SEED = int(os.environ.get("PODVISOR_STORM_SEED", random.SystemRandom().randrange(10**6)))


@pytest.mark.timeout(240)
async def test_every_machine_is_as_its_user_left_it(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Started, restarted, stopped and deleted by edits and requests in random order: nothing is stuck, lost or left over."""
    monkeypatch.setenv("KUBECONFIG", str(ROOT / ".dev/kubeconfig"))
    print(f"PODVISOR_STORM_SEED={SEED}")
    began_s = time.monotonic()
    async with (
        await KubeClient.from_environment(user_agent="podvisor-storm") as client,
        watching(client, cluster.namespace, patience_s=45) as scene,
    ):
        try:
            sailors = await blow(scene, SEED)
        except (AssertionError, ExceptionGroup):
            print(await cluster.scene("vm", ""))
            raise
        print(f"{len(sailors)} machines in {time.monotonic() - began_s:.1f} s")
    events = await cluster.events(type_="Warning")
    failed = [event for event in events if event["reason"] == "FailedCreate"]
    assert failed == []
