"""Ten machines asked for in one breath: how soon they run, and what each costs when there are ten."""

import asyncio
import time

from tests.perf.footprint import handler_rss
from tests.perf.measure import Figure
from tests.perf.start import manifest
from tests.perf.usage import Usage, beside_qemu, usage_of
from tests.support.cluster import Cluster, namespace
from tests.support.machine import Machine, gone

COUNT = 10
PATIENCE_S = 180.0


async def burst(count: int = COUNT) -> list[Figure]:
    """Create `count` machines at once, wait for all login prompts, weigh them, delete them at once."""
    names = [f"m{number}" for number in range(count)]
    async with namespace(f"perf-burst-{int(time.time())}") as cluster:
        machines = [Machine(cluster, name) for name in names]
        started = time.monotonic()
        watchers = [asyncio.create_task(_times(machine, started)) for machine in machines]
        await cluster.apply(
            {"apiVersion": "v1", "kind": "List", "items": [manifest(n) for n in names]}
        )
        times = await asyncio.gather(*watchers)
        usages = [await usage_of((await machine.pod())["metadata"]["uid"]) for machine in machines]
        handler = await handler_rss()
        deleted = await _delete(cluster, names)
    return _figures(count, times, usages, deleted, handler)  # fmt: skip


async def _times(machine: Machine, started: float) -> tuple[float, float]:
    await machine.running(within_s=PATIENCE_S)
    running_s = time.monotonic() - started
    await machine.console_shows(rf"{machine.name} login:", within_s=PATIENCE_S)
    return running_s, time.monotonic() - started


async def _delete(cluster: Cluster, names: list[str]) -> list[float]:
    started = time.monotonic()

    async def one(name: str) -> float:
        await cluster.until("vmi", name, gone, within_s=60, what="gone")
        return time.monotonic() - started

    await cluster.kubectl("delete", "vmi", "--all", "--wait=false")
    return list(await asyncio.gather(*(one(name) for name in names)))


def _figures(
    count: int,
    times: list[tuple[float, float]],
    usages: list[list[Usage]],
    deleted: list[float],
    handler: float,
) -> list[Figure]:
    of = f"{count} at once"
    beside = [beside_qemu(usage) for usage in usages]
    found = [
        Figure("running", f"{of}: create → Running", "s", [t[0] for t in times], 15, 39.4),
        Figure("login", f"{of}: create → login prompt", "s", [t[1] for t in times], None, 45.3),
        Figure("gone", f"{of}: delete → gone", "s", deleted, None, 10.6),
        Figure("pss_beside_qemu", f"PSS of all in a pod but QEMU, each of {count}", "MiB", beside, 40, 45),
        Figure("handler_rss", f"RSS of virt-handler with {count} VMs", "MiB", [handler], 85, 94),
    ]  # fmt: skip
    for program in sorted({u.program for usage in usages for u in usage} - {"pause"}):
        own = [u for usage in usages for u in usage if u.program == program]
        found += [
            Figure(f"pss_{program}", f"PSS of {program}, each of {count}", "MiB", [u.pss for u in own]),
            Figure(f"cpu_{program}", f"CPU of {program}, each of {count}, start to prompt", "CPU s", [u.cpu_s for u in own]),
        ]  # fmt: skip
    return found
