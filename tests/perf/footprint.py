"""What the product costs while no machine runs: memory and CPU of its own pods, and its API writes."""

import asyncio
import time
from typing import Any

from tests.perf.measure import Figure, audit_mark, writes_since
from tests.perf.usage import Usage, usage_of
from tests.support.cluster import Cluster

INSTALL = Cluster("kubevirt")
IDLE_S = 60.0


async def fixed_pods() -> dict[str, list[Usage]]:
    """The processes of each pod of the installation."""
    pods = await INSTALL.all("pods", fields="status.phase=Running")
    return {
        pod["metadata"]["name"]: [
            usage for usage in await usage_of(pod["metadata"]["uid"]) if usage.program != "pause"
        ]
        for pod in pods
        if "virt-" in pod["metadata"]["name"]
    }


async def handler_rss() -> float:
    """RSS of virt-handler, in MiB."""
    pods = await fixed_pods()
    return max(u.rss for usages in pods.values() for u in usages if u.program == "handler")


async def footprint() -> list[Figure]:
    """Watch the idle product for a while. Machines that run meanwhile, whoever's they are, count."""
    before = await fixed_pods()
    mark, began = audit_mark(), time.monotonic()
    await asyncio.sleep(IDLE_S)
    passed_s = time.monotonic() - began
    writes = writes_since(mark, None, leases=True)
    after = await fixed_pods()
    instances = await _count_instances()
    replicas = max(1, sum("controller" in name for name in after))
    handlers = max(1, sum("handler" in name for name in after))
    ours = {
        account: sum(n for call, n in writes.by_call.items() if call.startswith(account))
        for account in ("virt-controller", "virt-handler")
    }
    one_of_each = {
        program: [u.rss for usages in after.values() for u in usages if u.program == program]
        for program in ("controller", "handler")
    }
    found = [
        Figure("fixed_rss", "RSS of all fixed pods, one replica each", "MiB", [sum(max(sizes) for sizes in one_of_each.values())], 200, 806),
        Figure("writes_controller", "idle writes of a controller replica, per 5 s", "1", [ours["virt-controller"] / replicas / passed_s * 5], 1, 10),
        Figure("writes_handler", "idle writes of a node's handler, per 5 s", "1", [ours["virt-handler"] / handlers / passed_s * 5], 1),
        Figure("machines", "machines of others that ran meanwhile", "1", [instances]),
    ]  # fmt: skip
    for program, sizes in one_of_each.items():
        found.append(Figure(f"rss_{program}", f"RSS of virt-{program}, idle", "MiB", sizes))
        found.append(
            Figure(f"cpu_{program}", f"CPU of virt-{program}, idle, per hour", "CPU s", _cpu_per_hour(program, before, after, passed_s))
        )  # fmt: skip
    return found


async def _count_instances() -> int:
    items: list[dict[str, Any]] = await INSTALL.all("vmi", everywhere=True)
    return len(items)


def _cpu_per_hour(
    program: str, before: dict[str, list[Usage]], after: dict[str, list[Usage]], passed_s: float
) -> list[float]:
    found = []
    for pod in before.keys() & after.keys():
        used = [u.cpu_s for u in after[pod] if u.program == program]
        had = [u.cpu_s for u in before[pod] if u.program == program]
        if used and had:
            found.append((used[0] - had[0]) / passed_s * 3600)
    return found or [0.0]
