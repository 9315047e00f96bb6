"""What one start costs: time to Running and to the login prompt, our API writes by account and verb, memory by process.

    python -m tests.perf.start [--samples 10] [--image IMAGE] [--memory 64M]

Prints tables for people and, last, one line of JSON. Each sample is a machine of its own, started when the one before is gone, so
that they do not disturb each other.
"""

import argparse
import asyncio
import json
import statistics
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.support.cluster import ROOT, Cluster, create_namespace, on_node
from tests.support.machine import DISK_IMAGE, Machine, gone, vmi

AUDIT_LOG = ROOT / ".dev/audit.log"
OURS = ("virt-controller", "virt-handler")
READING = {"get", "list", "watch"}


@dataclass(slots=True)
class Sample:
    """One start and one deletion."""

    running_s: float = 0
    login_s: float = 0
    deletion_s: float = 0
    timeline_ms: dict[str, int] = field(default_factory=dict)
    memory_mib: dict[str, tuple[float, float]] = field(default_factory=dict)
    start_writes: Counter[str] = field(default_factory=Counter)
    deletion_writes: Counter[str] = field(default_factory=Counter)


async def measure(cluster: Cluster, name: str, image: str, memory: str) -> Sample:
    """Start one machine, look at it, delete it."""
    sample = Sample()
    manifest = vmi(name)
    manifest["spec"]["domain"]["resources"]["requests"]["memory"] = memory
    manifest["spec"]["volumes"][0]["containerDisk"]["image"] = image
    machine = Machine(cluster, name)
    mark = AUDIT_LOG.stat().st_size
    started = time.monotonic()

    async def running() -> dict[str, Any]:
        state = await machine.running(within_s=120)
        sample.running_s = time.monotonic() - started
        return state

    async def login() -> None:
        await machine.console_shows(rf"{name} login:", within_s=120)
        sample.login_s = time.monotonic() - started

    watcher = asyncio.create_task(running(), name="running")
    await cluster.apply(manifest)
    await asyncio.gather(watcher, login())
    state = await cluster.get("vmi", name)
    assert state is not None
    sample.timeline_ms = state["status"].get("startTimeline", {})
    sample.memory_mib = await _memory(machine)
    sample.start_writes = _writes_since(mark, cluster.namespace)

    mark = AUDIT_LOG.stat().st_size
    started = time.monotonic()
    await cluster.kubectl("delete", "vmi", name, "--wait=false")
    await cluster.until("vmi", name, gone, within_s=30, what="gone")
    sample.deletion_s = time.monotonic() - started
    sample.deletion_writes = _writes_since(mark, cluster.namespace)
    return sample


async def _memory(machine: Machine) -> dict[str, tuple[float, float]]:
    """RSS and PSS in MiB of every process of the pod, by program."""
    found: dict[str, tuple[float, float]] = {}
    for pid, command in (await machine.processes()).items():
        rollup = await on_node("cat", f"/proc/{pid}/smaps_rollup", check=False)
        sizes = {
            line.split(":")[0]: int(line.split()[1]) for line in rollup.stdout.splitlines()[1:]
        }
        program = (
            "launcher" if "podvisor_launcher" in command else command.split()[0].rsplit("/", 1)[-1]
        )
        if sizes:
            found[program] = (sizes["Rss"] / 1024, sizes["Pss"] / 1024)
    return found


def _writes_since(mark: int, namespace: str) -> Counter[str]:
    """Our accounts' writes about one namespace, as `account verb resource[/subresource]`."""
    writes: Counter[str] = Counter()
    with AUDIT_LOG.open("rb") as log:
        log.seek(mark)
        for line in log:
            entry = json.loads(line)
            account = entry["user"]["username"].rsplit(":", 1)[-1]
            target = entry.get("objectRef", {})
            if (
                entry["stage"] != "ResponseComplete"
                or account not in OURS
                or entry["verb"] in READING
            ):
                continue
            if target.get("namespace") == namespace and target.get("resource") != "leases":
                what = target["resource"] + (
                    "/" + target["subresource"] if "subresource" in target else ""
                )
                writes[f"{account} {entry['verb']} {what}"] += 1
    return writes


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):7.2f} {min(values):7.2f} {max(values):7.2f}"


def report(samples: list[Sample]) -> None:
    """The tables, then the JSON."""
    print(f"\n{'seconds':34} {'median':>7} {'min':>7} {'max':>7}")
    for title, key in (
        ("apply → Running", "running_s"),
        ("apply → login prompt", "login_s"),
        ("delete → gone", "deletion_s"),
    ):
        print(f"{title:34} {_spread([getattr(s, key) for s in samples])}")
    print("\nstart timeline, milliseconds from creation")
    for step in samples[0].timeline_ms:
        print(f"{step:34} {_spread([float(s.timeline_ms.get(step, 0)) for s in samples])}")
    for title, key in (
        ("writes, create → prompt", "start_writes"),
        ("writes, delete → gone", "deletion_writes"),
    ):
        print(f"\nour {title}, mean of {len(samples)}")
        total: Counter[str] = sum((getattr(s, key) for s in samples), Counter())
        for what, count in sorted(total.items()):
            print(f"{what:60} {count / len(samples):5.1f}")
    print(f"\n{'MiB at the prompt, medians':34} {'RSS':>7} {'PSS':>7}")
    for program in sorted(samples[0].memory_mib):
        sizes = [s.memory_mib[program] for s in samples if program in s.memory_mib]
        print(
            f"{program:34} {statistics.median(r for r, _ in sizes):7.1f} {statistics.median(p for _, p in sizes):7.1f}"
        )
    print(json.dumps([{"running_s": s.running_s, "login_s": s.login_s, "deletion_s": s.deletion_s, "timeline_ms": s.timeline_ms,
                       "writes": s.start_writes, "deletion_writes": s.deletion_writes} for s in samples]))  # fmt: skip


async def main() -> None:
    """Parse the arguments, measure, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--image", default=DISK_IMAGE)
    parser.add_argument("--memory", default="64M")
    options = parser.parse_args()
    cluster = await create_namespace(f"perf-start-{int(time.time())}")
    samples = []
    try:
        for index in range(options.samples):
            samples.append(await measure(cluster, f"m{index}", options.image, options.memory))
            print(
                f"» sample {index + 1}: Running {samples[-1].running_s:.2f} s, login {samples[-1].login_s:.2f} s",
                flush=True,
            )
    finally:
        await cluster.kubectl("delete", "namespace", cluster.namespace, "--wait=false")
    report(samples)


if __name__ == "__main__":
    asyncio.run(main())
