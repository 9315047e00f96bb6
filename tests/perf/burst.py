"""Ten machines asked for in one breath: how soon they run, and what each costs when there are ten."""

import asyncio
import time

from tests.perf.footprint import handler_rss
from tests.perf.measure import Figure
from tests.perf.observer import Observer, observing
from tests.perf.start import manifest, pull
from tests.perf.usage import Usage, beside_qemu, usage_of
from tests.support.cluster import namespace

COUNT = 10


async def burst(count: int = COUNT) -> list[Figure]:
    """Create `count` machines at once, wait for all login prompts, weigh them, delete them at once."""
    names = [f"m{number}" for number in range(count)]
    async with (
        namespace(f"perf-burst-{int(time.time())}") as cluster,
        observing(cluster.namespace) as observer,
    ):
        await pull(observer)
        times = await asyncio.gather(*(_start(observer, name) for name in names))
        usages = [await usage_of(observer.pod_uid(name)) for name in names]
        handler = await handler_rss()
        deleted = await asyncio.gather(*(_delete(observer, name) for name in names))
    return _figures(count, times, usages, deleted, handler)


async def _start(observer: Observer, name: str) -> tuple[float, float]:
    sent_s = await observer.create(manifest(name))
    running_s = await observer.running(name, after_s=sent_s) - sent_s
    return running_s, await observer.login(name, look_every_s=0.25) - sent_s


async def _delete(observer: Observer, name: str) -> float:
    sent_s = await observer.delete(name)
    return await observer.gone(name, after_s=sent_s) - sent_s


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
