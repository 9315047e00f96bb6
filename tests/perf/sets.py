"""What a set of machines costs: out to ten, in to three."""

import asyncio
import time
from typing import Any

from tests.perf.measure import Figure, Writes, audit_mark, writes_since
from tests.perf.observer import Instance, Observer, observing
from tests.perf.start import EVENTS_LAG_S, manifest, pull
from tests.support.cluster import Cluster, namespace

COUNT = 10
LEFT = 3
_NAME = "set"


async def sets(count: int = COUNT, left: int = LEFT) -> list[Figure]:
    """Scale a VirtualMachineInstanceReplicaSet from 0 to `count` and to `left` through its scale subresource."""
    async with (
        namespace(f"perf-set-{int(time.time())}") as cluster,
        observing(cluster.namespace) as observer,
    ):
        await pull(observer)
        await cluster.apply(_replica_set())
        out_s, out = await _scale(cluster, observer, count)
        in_s, into = await _scale(cluster, observer, left)
    gone = count - left
    return [
        Figure("out", f"ReplicaSet scaled 0 → {count}: all Running", "s", [out_s], 15),
        Figure("in", f"ReplicaSet scaled {count} → {left}: the others gone", "s", [in_s]),
        Figure("writes_out_object", f"our object writes per instance, 0 → {count}", "1", [out.objects / count]),
        Figure("writes_out_event", f"our events per instance, 0 → {count}", "1", [out.events / count]),
        Figure("writes_in_object", f"our object writes per instance gone, {count} → {left}", "1", [into.objects / gone]),
        Figure("writes_in_event", f"our events per instance gone, {count} → {left}", "1", [into.events / gone]),
    ]  # fmt: skip


async def _scale(cluster: Cluster, observer: Observer, replicas: int) -> tuple[float, Writes]:
    """Until as many instances are there and all of them run; what was written until nothing was left to say."""
    mark, sent_s = audit_mark(), time.monotonic()
    await cluster.kubectl("scale", "vmirs", _NAME, f"--replicas={replicas}")

    def have_settled(found: list[Instance]) -> bool:
        return len(found) == replicas and all(one.status.phase == "Running" for one in found)

    settled_s = await observer.until(have_settled, what=f"{replicas} instances that run")

    def is_told(state: dict[str, Any] | None) -> bool:
        status = (state or {}).get("status", {})
        return bool(status.get("readyReplicas") == replicas == status.get("replicas"))

    await cluster.until("vmirs", _NAME, is_told, within_s=60, what=f"{replicas} replicas ready")
    await asyncio.sleep(EVENTS_LAG_S)
    return settled_s - sent_s, writes_since(mark, cluster.namespace)


def _replica_set() -> dict[str, Any]:
    labels = {"set": _NAME}
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstanceReplicaSet",
        "metadata": {"name": _NAME},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": manifest(_NAME)["spec"]},
        },
    }
