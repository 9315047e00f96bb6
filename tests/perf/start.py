"""What one start costs: time to Running and to the login prompt, CPU, our API writes, memory by process.

    python -m tests.perf.start [--samples 10] [--image IMAGE] [--memory 128Mi]

Each sample is a machine of its own, started when the one before is gone, so that they do not disturb each other. They are
made by server-side POST of a VirtualMachineInstance without a VirtualMachine.
"""

import argparse
import asyncio
import statistics
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import msgspec

from tests.perf.measure import Figure, Writes, audit_mark, writes_since
from tests.perf.observer import Observer, observing
from tests.perf.usage import Usage, beside_qemu, usage_of
from tests.support.cluster import namespace
from tests.support.machine import vmi

# The last events are written after the object they are about is gone.
EVENTS_LAG_S = 0.5
# What KubeVirt was measured with, too: Debian's amd64 cloud kernel and busybox on a small qcow2.
BENCH_IMAGE = "podvisor/guest-amd64-bench:devel"
BENCH_MEMORY = "128Mi"


@dataclass(slots=True)
class Sample:
    """One start and one deletion."""

    running_s: float = 0
    login_s: float = 0
    deletion_s: float = 0
    timeline_ms: dict[str, int] = field(default_factory=dict)
    usage: list[Usage] = field(default_factory=list)
    start_writes: Writes = field(default_factory=Writes)
    deletion_writes: Writes = field(default_factory=Writes)


def manifest(name: str, image: str = BENCH_IMAGE, memory: str = BENCH_MEMORY) -> dict[str, Any]:
    """The machine that is measured."""
    content = vmi(name)
    content["spec"]["domain"]["resources"]["requests"]["memory"] = memory
    content["spec"]["volumes"][0]["containerDisk"]["image"] = image
    return content


async def measure(observer: Observer, name: str, image: str, memory: str) -> Sample:
    """Start one machine, look at it, delete it."""
    sample, namespace_name = Sample(), observer.namespace
    mark = audit_mark()
    sent_s = await observer.create(manifest(name, image, memory))
    sample.running_s = await observer.running(name, after_s=sent_s) - sent_s
    sample.login_s = await observer.login(name) - sent_s
    timeline = observer.instance(name).status.start_timeline
    sample.timeline_ms = msgspec.to_builtins(timeline)
    sample.usage = await usage_of(observer.pod_uid(name))
    sample.start_writes = writes_since(mark, namespace_name)
    mark = audit_mark()
    sent_s = await observer.delete(name)
    sample.deletion_s = await observer.gone(name, after_s=sent_s) - sent_s
    await asyncio.sleep(EVENTS_LAG_S)
    sample.deletion_writes = writes_since(mark, namespace_name)
    return sample


async def pull(observer: Observer, image: str = BENCH_IMAGE, memory: str = BENCH_MEMORY) -> None:
    """Have the node fetch the images; the first machine waits for them."""
    sent_s = await observer.create(manifest("first", image, memory))
    await observer.running("first", after_s=sent_s)
    await observer.gone("first", after_s=await observer.delete("first"))


async def starts(
    samples: int, image: str = BENCH_IMAGE, memory: str = BENCH_MEMORY
) -> list[Sample]:
    """As many samples, one after another."""
    found = []
    async with (
        namespace(f"perf-start-{int(time.time())}") as cluster,
        observing(cluster.namespace) as observer,
    ):
        await pull(observer, image, memory)
        for index in range(samples):
            found.append(await measure(observer, f"m{index}", image, memory))
            print(
                f"» start {index + 1}: Running {found[-1].running_s:.2f} s, login {found[-1].login_s:.2f} s,"
                f" gone {found[-1].deletion_s:.2f} s",
                flush=True,
            )
    return found


def figures(samples: list[Sample]) -> list[Figure]:
    """What SPECIFICATION.md asks for, and the steps of the start."""
    found = [
        Figure("running", "create → Running", "s", [s.running_s for s in samples], 1.5, 3.88),
        Figure("login", "create → login prompt", "s", [s.login_s for s in samples], 5.0, 8.83),
        Figure("gone", "delete → gone", "s", [s.deletion_s for s in samples], 3.2, 5.20),
    ]
    for step in samples[0].timeline_ms:
        moments = [s.timeline_ms[step] / 1000 for s in samples if step in s.timeline_ms]
        found.append(Figure(f"timeline_{step}", f"status.startTimeline.{step}", "s", moments))
    for phase, writes, limit, upstream in (
        ("start", [s.start_writes for s in samples], (5, 2), (10, 3)),
        ("deletion", [s.deletion_writes for s in samples], (3, 2), (6, 6.7)),
    ):
        for kind, values, budget, theirs in (
            ("object", [w.objects for w in writes], limit[0], upstream[0]),
            ("event", [w.events for w in writes], limit[1], upstream[1]),
        ):
            title = f"our {kind} writes of one {phase} of a VMI"
            found.append(Figure(f"writes_{phase}_{kind}", title, "1", values, budget, theirs))
    return found + usage_figures([s.usage for s in samples])


_BUDGETS_MIB = {"qemu": (215, 247.4), "launcher": (None, 63.3), "libvirtd": (None, 38.4)}


def usage_figures(usages: list[list[Usage]]) -> list[Figure]:
    """Memory and CPU of the processes of a machine that is alone on its node, at its login prompt."""
    beside = [beside_qemu(usage) for usage in usages]
    found = [Figure("pss_beside_qemu", "PSS of all in the pod but QEMU, alone", "MiB", beside, 80, 105)]  # fmt: skip
    for program in sorted({u.program for usage in usages for u in usage} - {"pause"}):
        own = [u for usage in usages for u in usage if u.program == program]
        budget, upstream = _BUDGETS_MIB.get(program, (None, None))
        found += [
            Figure(f"rss_{program}", f"RSS of {program}, alone", "MiB", [u.rss for u in own], budget, upstream),
            Figure(f"pss_{program}", f"PSS of {program}, alone", "MiB", [u.pss for u in own]),
            Figure(f"cpu_{program}", f"CPU of {program}, start to login prompt", "CPU s", [u.cpu_s for u in own]),
        ]  # fmt: skip
    return found


def ledger(samples: list[Sample]) -> str:
    """The writes of one start and of one deletion, each named."""
    lines = []
    for title, all_writes in (
        ("start", [s.start_writes for s in samples]),
        ("deletion", [s.deletion_writes for s in samples]),
    ):
        lines.append(f"our writes of one {title}, mean of {len(samples)}")
        total: Counter[str] = sum((w.by_call for w in all_writes), Counter())
        lines += [f"  {call:60} {n / len(samples):5.1f}" for call, n in sorted(total.items())]
    return "\n".join(lines)


async def main() -> None:
    """Parse the arguments, measure, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--image", default=BENCH_IMAGE)
    parser.add_argument("--memory", default=BENCH_MEMORY)
    options = parser.parse_args()
    samples = await starts(options.samples, options.image, options.memory)
    for figure in figures(samples):
        low, high = min(figure.samples), max(figure.samples)
        median = statistics.median(figure.samples)
        print(f"{figure.title:56} {low:8.2f} {median:8.2f} {high:8.2f} {figure.unit}")
    print(ledger(samples))


if __name__ == "__main__":
    asyncio.run(main())
