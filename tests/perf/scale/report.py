"""A scale run as figures and as a table. Pure."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.perf.measure import Figure, Writes, percentile
from tests.perf.scale.load import Load
from tests.perf.scale.processes import Service

_BUCKET = re.compile(r'le="([^"]+)"')
Metrics = dict[str, dict[str, float]]


@dataclass(slots=True)
class Run:
    """Everything one run left behind. Moments: empty, running, settled, idled, gone, end."""

    vmis: int
    node_names: list[str]
    nodes: list[Service] = field(default_factory=list)
    handlers: list[Service] = field(default_factory=list)
    controller: Service | None = None
    load: Load | None = None
    at: dict[str, tuple[float, float]] = field(default_factory=dict)
    audit_at: dict[str, int] = field(default_factory=dict)
    servers_cpu_s: dict[str, dict[str, float]] = field(default_factory=dict)
    # By moment (idled, gone) and service, as its endpoint gave them.
    metrics: dict[str, dict[str, Metrics]] = field(default_factory=dict)
    loops: dict[str, dict[str, Any]] = field(default_factory=dict)
    writes: dict[str, Writes] = field(default_factory=dict)

    @property
    def services(self) -> list[Service]:
        """The processes of ours, the controller first."""
        assert self.controller is not None
        return [self.controller, *self.handlers]

    def span_s(self, one: str, other: str) -> float:
        return self.at[other][0] - self.at[one][0]


def queue_percentile_s(
    metrics: Mapping[str, Mapping[str, float]], queue: str, share: float
) -> float:
    """The upper bound of the histogram bucket that holds this share of the waits of a queue; of the last bucket, which has none,
    the lower."""
    buckets = []
    for labels, count in metrics.get("workqueue_queue_duration_seconds_bucket", {}).items():
        found = _BUCKET.search(labels)
        if found and f'name="{queue}"' in labels:
            buckets.append((float(found[1]), count))
    buckets.sort()
    total = buckets[-1][1] if buckets else 0
    found_s = next((bound for bound, count in buckets if count >= share * total), 0.0)
    return found_s if math.isfinite(found_s) else max((b for b, _ in buckets[:-1]), default=0.0)


def summed(samples: Iterable[Metrics], minus: Iterable[Metrics] = ()) -> Metrics:
    """The counters of several processes together, less what they were `minus`."""
    total: Metrics = {}
    for sign, all_of_them in ((1, samples), (-1, minus)):
        for metrics in all_of_them:
            for name, values in metrics.items():
                into = total.setdefault(name, {})
                for labels, value in values.items():
                    into[labels] = into.get(labels, 0.0) + sign * value
    return total


def _stalls_ms(run: Run, service: Service) -> tuple[list[float], list[float]]:
    """Late and computed milliseconds of each stall between the first creation and the end."""
    begin, finish = run.at["empty"][1], run.at["end"][1]
    stalls = [s for s in run.loops[service.name].get("stalls", ()) if begin <= s[0] <= finish]
    return [s[1] * 1000 for s in stalls], [s[2] * 1000 for s in stalls]


def figures(run: Run) -> list[Figure]:
    """What is stored and compared from run to run."""
    return [*_times(run), *_costs(run), *_writes(run), *_waits(run)]


def _times(run: Run) -> list[Figure]:
    load, size = run.load, f"{run.vmis} VMIs"
    assert load is not None
    answered = [moment - load.created_s[name] for name, moment in load.answered_s.items()]
    running = [moment - load.created_s[name] for name, moment in load.running_s.items()]
    gone = [moment - load.deleted_s[name] for name, moment in load.gone_s.items()]
    started, deleted = run.vmis / run.span_s("empty", "running"), run.vmis / run.span_s("idled", "gone")  # fmt: skip
    return [
        Figure("rate", f"{size}: machines started per second", "1/s", [started]),
        Figure("deletion_rate", f"{size}: machines deleted per second", "1/s", [deleted]),
        Figure("answered", f"{size}: POST → answer", "s", _spread(answered)),
        Figure("running", f"{size}: create → Running", "s", _spread(running)),
        Figure("gone", f"{size}: delete → gone", "s", _spread(gone)),
    ]


def _costs(run: Run) -> list[Figure]:
    """Memory and CPU by machine."""
    controller, size = run.controller, f"{run.vmis} VMIs"
    assert controller is not None
    of_each = run.vmis / len(run.handlers)

    def kb_per_machine(service: Service, machines: float) -> float:
        """By RSS: what is shared changes with every other process that loads or drops the same libraries."""
        grown = service.memory_at["settled"]["rss"] - service.memory_at["empty"]["rss"]
        return grown * 1048.576 / machines

    def ms_per_machine(services: list[Service], one: str, other: str) -> float:
        """Beyond what the process uses while nothing happens, the sampling of its loop included."""
        idle_s = sum(s.cpu_between("settled", "idled") for s in services)
        idle_s *= run.span_s(one, other) / run.span_s("settled", "idled")
        return (sum(s.cpu_between(one, other) for s in services) - idle_s) * 1000 / run.vmis

    found = [
        Figure("controller_memory", f"{size}: controller memory per machine", "kB", [kb_per_machine(controller, run.vmis)], 20, 280),
        Figure("controller_rss", f"{size}: controller RSS", "MiB", [controller.memory_at["settled"]["rss"]]),
        Figure("handler_memory", f"{size}: handler memory per machine of its own", "kB", [kb_per_machine(h, of_each) for h in run.handlers]),
    ]  # fmt: skip
    for who, services in (("controller", [controller]), ("handlers", run.handlers)):
        found += [
            Figure(f"{who}_cpu", f"{size}: CPU of {who} per machine, create → Running", "CPU ms", [ms_per_machine(services, "empty", "settled")]),
            Figure(f"{who}_cpu_deletion", f"{size}: CPU of {who} per machine, delete → gone", "CPU ms", [ms_per_machine(services, "idled", "end")]),
        ]  # fmt: skip
    for program in run.servers_cpu_s["empty"]:
        used = run.servers_cpu_s["settled"][program] - run.servers_cpu_s["empty"][program]
        found.append(Figure(f"{program}_cpu", f"{size}: CPU of {program} per machine, create → Running", "CPU ms", [used * 1000 / run.vmis]))  # fmt: skip
    return found


def _writes(run: Run) -> list[Figure]:
    size, start, deletion = f"{run.vmis} VMIs", run.writes["start"], run.writes["deletion"]
    idle = run.writes["idle"].objects / run.span_s("settled", "idled")
    return [
        Figure("writes_start", f"{size}: object writes per machine, create → Running", "1", [start.objects / run.vmis], 5, 10),
        Figure("events_start", f"{size}: events per machine, create → Running", "1", [start.events / run.vmis], 2, 3),
        Figure("writes_deletion", f"{size}: object writes per machine, delete → gone", "1", [deletion.objects / run.vmis], 3, 6),
        Figure("events_deletion", f"{size}: events per machine, delete → gone", "1", [deletion.events / run.vmis], 2, 6.7),
        Figure("writes_idle", f"{size}: object writes while nothing changes", "1/s", [idle]),
    ]  # fmt: skip


def _waits(run: Run) -> list[Figure]:
    """How long keys and timers had to wait."""
    assert run.controller is not None
    size, found = f"{run.vmis} VMIs", []
    for who, services in (("controller", [run.controller]), ("handler", run.handlers)):
        idled, gone = (
            [run.metrics[moment][s.name] for s in services] for moment in ("idled", "gone")
        )
        start, deletion = summed(idled), summed(gone, minus=idled)
        passes = sum(start.get("podvisor_reconcile_total", {}).values())
        late = [ms for service in services for ms in _stalls_ms(run, service)[0]]
        own = [ms for service in services for ms in _stalls_ms(run, service)[1]]
        found += [
            Figure(f"{who}_passes", f"{size}: {who}, reconciles per machine, start to Running", "passes", [passes / run.vmis]),
            Figure(f"{who}_queue", f"{size}: {who}, wait in the queue, start to Running, p50 and p99 (upper bounds)", "ms", _waits_ms(start)),
            Figure(f"{who}_queue_deletion", f"{size}: {who}, wait in the queue, delete → gone, p50 and p99 (upper bounds)", "ms", _waits_ms(deletion)),
            Figure(f"{who}_stall", f"{size}: {who}, longest stall of the event loop by its own computing", "ms", [max(own, default=0.0)], 50),
            Figure(f"{who}_late", f"{size}: {who}, timers late by more than 10 ms: p99 and longest", "ms", [percentile(late, 0.99), max(late, default=0.0)]),
        ]  # fmt: skip
    return found


def _waits_ms(metrics: Metrics) -> list[float]:
    return [queue_percentile_s(metrics, "vmi", share) * 1000 for share in (0.5, 0.99)]


def _spread(values: list[float]) -> list[float]:
    """Minimum, deciles, maximum: as much as a plot shows of a thousand values."""
    return [percentile(values, share / 10) for share in range(11)]


def table(run: Run) -> str:
    """For people."""
    lines = [f"{'':88} {'min':>9} {'median':>9} {'max':>9}  budget"]
    for figure in figures(run):
        values = (min(figure.samples), figure.median, max(figure.samples))
        budget = "" if figure.budget is None else f"{figure.budget:g}"
        numbers = " ".join(f"{value:9.3f}" for value in values)
        lines.append(f"{figure.title + ', ' + figure.unit:88} {numbers}  {budget}")
    for phase, writes in run.writes.items():
        lines.append(f"\nwrites per machine, {phase}")
        for call, count in sorted((+writes.by_call).items()):
            lines.append(f"  {call:64} {count / run.vmis:8.3f}")
        refused: Counter[str] = writes.refused
        lines += [f"  refused, to the end: {what:44} {count:6}" for what, count in refused.items()]
    lines.append("\nMiB (RSS / PSS / private) and CPU seconds")
    for service in run.services:
        for moment, sizes in service.memory_at.items():
            numbers = " ".join(f"{sizes[key]:7.1f}" for key in ("rss", "pss", "private"))
            lines.append(
                f"  {service.name:20} {moment:10} {numbers}  {service.cpu_at[moment]:8.2f}"
            )
        late, own = _stalls_ms(run, service)
        begin = run.at["empty"][1]
        longest = sorted(run.loops[service.name].get("stalls", ()), key=lambda s: -s[2])[:4]
        moments = ", ".join(f"{s[2] * 1000:.0f} ms at {s[0] - begin:.1f} s" for s in longest)
        pauses = [round(s * 1000) for s in run.loops[service.name].get("collections", ())]
        lines.append(f"  {service.name:20} stalls > 50 ms: late {sum(ms > 50 for ms in late)}, own {sum(ms > 50 for ms in own)};"
            f" longest own: {moments};"
                     f" full collections, ms: {sorted(pauses)[-5:]} of {len(pauses)}")  # fmt: skip
    for service in run.services:
        loop = run.loops[service.name]
        for at_s, late_s, own_s in sorted(loop.get("stalls", ()), key=lambda s: -s[2])[:2]:
            seen = [stack for when, stack in loop["stacks"] if at_s - late_s <= when <= at_s]
            lines += [f"  {service.name}, {own_s * 1000:.0f} ms: {stack}" for stack in seen[:3]]
    spans = (("empty", "running"), ("running", "settled"), ("settled", "idled"), ("idled", "gone"))
    lines.append("  " + ", ".join(f"{a} → {b} {run.span_s(a, b):.1f} s" for a, b in spans))
    for program, used in run.servers_cpu_s["empty"].items():
        start, deletion = (run.servers_cpu_s[m][program] for m in ("settled", "end"))
        lines.append(
            f"  {program:20} CPU s: start {start - used:.1f}, to the end {deletion - used:.1f}"
        )
    return "\n".join(lines)
