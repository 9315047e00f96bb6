"""A scale run as figures and as a table. Pure."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.perf.measure import Figure, Writes, percentile
from tests.perf.scale.load import Load
from tests.perf.scale.processes import Service

_BUCKET = re.compile(r'le="([^"]+)"')


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
    metrics: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
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
    """The upper bound of the histogram bucket that holds this share of the waits of a queue."""
    buckets = []
    for labels, count in metrics.get("workqueue_queue_duration_seconds_bucket", {}).items():
        found = _BUCKET.search(labels)
        if found and f'name="{queue}"' in labels:
            buckets.append((float(found[1]), count))
    buckets.sort()
    total = buckets[-1][1] if buckets else 0
    return next((bound for bound, count in buckets if count >= share * total), 0.0)


def _stalls_ms(run: Run, service: Service) -> tuple[list[float], list[float]]:
    """Late and computed milliseconds of each stall between the first creation and the end."""
    begin, finish = run.at["empty"][1], run.at["end"][1]
    stalls = [s for s in run.loops[service.name].get("stalls", ()) if begin <= s[0] <= finish]
    return [s[1] * 1000 for s in stalls], [s[2] * 1000 for s in stalls]


def figures(run: Run) -> list[Figure]:
    """What is stored and compared from run to run."""
    assert run.controller is not None
    assert run.load is not None
    size, load = f"{run.vmis} VMIs", run.load
    per_vmi = 1000 / run.vmis
    running = [load.running_s[name] - load.created_s[name] for name in load.running_s]
    gone = [load.gone_s[name] - load.deleted_s[name] for name in load.gone_s]
    grown = run.controller.memory_at["settled"]["pss"] - run.controller.memory_at["empty"]["pss"]
    handlers_grown = [
        (h.memory_at["settled"]["pss"] - h.memory_at["empty"]["pss"]) * 1024 * len(run.handlers) / run.vmis
        for h in run.handlers
    ]  # fmt: skip
    found = [
        Figure("rate", f"{size}: machines started per second", "1/s", [run.vmis / run.span_s("empty", "running")]),
        Figure("deletion_rate", f"{size}: machines deleted per second", "1/s", [run.vmis / run.span_s("idled", "gone")]),
        Figure("running", f"{size}: create → Running", "s", _spread(running)),
        Figure("gone", f"{size}: delete → gone", "s", _spread(gone)),
        Figure("controller_memory", f"{size}: controller memory per machine", "kB", [grown * 1024 * 1.024 / run.vmis], 20, 280),
        Figure("controller_pss", f"{size}: controller PSS", "MiB", [run.controller.memory_at["settled"]["pss"]]),
        Figure("handler_memory", f"{size}: handler memory per machine of its own", "kB", handlers_grown),
        Figure("controller_cpu", f"{size}: controller CPU per machine, start to Running", "ms", [run.controller.cpu_between("empty", "settled") * per_vmi]),
        Figure("controller_cpu_deletion", f"{size}: controller CPU per machine, deletion", "ms", [run.controller.cpu_between("idled", "end") * per_vmi]),
        Figure("handler_cpu", f"{size}: handlers' CPU per machine, start to Running", "ms", [sum(h.cpu_between("empty", "settled") for h in run.handlers) * per_vmi]),
        Figure("handler_cpu_deletion", f"{size}: handlers' CPU per machine, deletion", "ms", [sum(h.cpu_between("idled", "end") for h in run.handlers) * per_vmi]),
        Figure("writes_start", f"{size}: object writes per machine, create → Running", "1", [run.writes["start"].objects / run.vmis], 5, 10),
        Figure("events_start", f"{size}: events per machine, create → Running", "1", [run.writes["start"].events / run.vmis], 2, 3),
        Figure("writes_idle", f"{size}: writes while nothing changes", "1/s", [run.writes["idle"].by_call.total() / run.span_s("settled", "idled")]),
        Figure("writes_deletion", f"{size}: object writes per machine, delete → gone", "1", [run.writes["deletion"].objects / run.vmis], 3, 6),
        Figure("events_deletion", f"{size}: events per machine, delete → gone", "1", [run.writes["deletion"].events / run.vmis], 2, 6.7),
    ]  # fmt: skip
    for queue, service in (("vmi", run.controller), ("vmi", run.handlers[0])):
        waits = [
            queue_percentile_s(run.metrics[service.name], queue, share) * 1000
            for share in (0.5, 0.99)
        ]
        who = service.name.split()[0]
        found.append(Figure(f"{who}_queue", f"{size}: {who}, wait in the queue, p50 and p99 (upper bounds)", "ms", waits))  # fmt: skip
    for who, services in (("controller", [run.controller]), ("handler", run.handlers)):
        late = [ms for service in services for ms in _stalls_ms(run, service)[0]]
        own = [ms for service in services for ms in _stalls_ms(run, service)[1]]
        found += [
            Figure(f"{who}_stall", f"{size}: {who}, longest stall of the event loop by its own computing", "ms", [max(own, default=0.0)], 50),
            Figure(f"{who}_late", f"{size}: {who}, timers late by more than 10 ms: p99 and longest", "ms", [percentile(late, 0.99), max(late, default=0.0)]),
        ]  # fmt: skip
    return found


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
        pauses = [round(s * 1000) for s in run.loops[service.name].get("collections", ())]
        lines.append(f"  {service.name:20} stalls > 50 ms: late {sum(ms > 50 for ms in late)}, own {sum(ms > 50 for ms in own)};"
                     f" full collections, ms: {sorted(pauses)[-5:]} of {len(pauses)}")  # fmt: skip
    for program, used in run.servers_cpu_s["empty"].items():
        start, deletion = (run.servers_cpu_s[m][program] for m in ("settled", "end"))
        lines.append(
            f"  {program:20} CPU s: start {start - used:.1f}, to the end {deletion - used:.1f}"
        )
    return "\n".join(lines)
