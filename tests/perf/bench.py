"""`make bench`: measures what SPECIFICATION.md promises, compares with the run before, keeps figures and plots.

    python -m tests.perf.bench [PART...] [--samples 10] [--vmis 1000] [--out docs/benchmarks]

Parts: start, volumes, network, burst, sets, lifecycle, recovery, idle, scale. Those not named keep the figures of their last run. Needs the development
cluster with podvisor, for itself. Nothing here passes or fails: a budget that is missed is shown as such.
"""

import argparse
import asyncio
import json
import os
import platform
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.perf import burst, footprint, lifecycle, network, recovery, sets, start, volumes
from tests.perf.measure import Figure, can_virtualise
from tests.perf.plot import Row, chart
from tests.perf.specification import with_figures
from tests.support.cluster import ROOT

RESULTS = ROOT / "docs/benchmarks"
SPECIFICATION = ROOT / "SPECIFICATION.md"
SCHEMA = 1
_PLOTS = {"s": "seconds", "MiB": "memory", "1": "writes", "CPU s": "cpu"}


@dataclass(frozen=True, slots=True)
class Part:
    """The figures of one part, and the medians of the run before."""

    figures: Mapping[str, Figure]
    before: Mapping[str, float] = field(default_factory=dict)
    at: str = ""
    commit: str = ""

    def as_json(self) -> dict[str, Any]:
        return {
            "at": self.at,
            "commit": self.commit,
            "figures": {key: figure.as_json() for key, figure in self.figures.items()},
            "before": dict(self.before),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Part":
        """The inverse of as_json()."""
        figures = {key: Figure.from_json(key, one) for key, one in content["figures"].items()}
        return cls(figures, content["before"], content["at"], content["commit"])

    def successor(self, figures: list[Figure]) -> "Part":
        """A new run of the same part, compared with this one."""
        before = {key: round(figure.median, 4) for key, figure in self.figures.items()}
        fresh = {figure.key: figure for figure in figures}
        at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%MZ")
        return Part(fresh, before, at, _commit())


def load(path: Path) -> dict[str, Part]:
    """The parts that were measured so far."""
    if not path.exists():
        return {}
    content = json.loads(path.read_text())
    return {name: Part.from_json(part) for name, part in content["parts"].items()}


def save(directory: Path, parts: Mapping[str, Part]) -> None:
    """latest.json and the plots."""
    directory.mkdir(parents=True, exist_ok=True)
    content = {
        "schema": SCHEMA,
        "machine": {
            "cpus": os.cpu_count(),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
            "architecture": platform.machine(),
            "guests": "KVM" if can_virtualise() else "emulated (TCG)",
        },
        "parts": {name: part.as_json() for name, part in parts.items()},
    }
    (directory / "latest.json").write_text(json.dumps(content, indent=1) + "\n")
    (directory / "latest.txt").write_text(table(parts) + "\n")
    for name, text in plots(parts).items():
        (directory / f"{name}.svg").write_text(text)
    if directory == RESULTS:
        _into_specification(parts)


def _into_specification(parts: Mapping[str, Part]) -> None:
    def figure(part: str, key: str) -> Figure | None:
        return parts[part].figures.get(key) if part in parts else None

    SPECIFICATION.write_text(with_figures(SPECIFICATION.read_text(), figure))


def plots(parts: Mapping[str, Part]) -> dict[str, str]:
    """The plots by name: all budgets in one, then everything by its unit."""
    budgets = [
        _row(figure, part.before.get(key), scale=100 / figure.budget)
        for part in parts.values()
        for key, figure in part.figures.items()
        if figure.budget
    ]
    found = {"budgets": chart("Figures in percent of their budgets", "%", budgets, limit=300)}
    for unit, name in _PLOTS.items():
        rows = [
            _row(figure, part.before.get(key))
            for part in parts.values()
            for key, figure in part.figures.items()
            if figure.unit == unit
        ]
        found[name] = chart(f"Benchmarks: {name}", unit, rows)
    return found


def _row(figure: Figure, before: float | None, scale: float = 1.0) -> Row:
    def scaled(value: float | None) -> float | None:
        return None if value is None else value * scale

    return Row(
        title=figure.title,
        low=min(figure.samples) * scale,
        median=figure.median * scale,
        high=max(figure.samples) * scale,
        shown=f"{figure.median:.3g} {figure.unit.replace('1', '')}".strip(),
        before=scaled(before),
        budget=scaled(figure.budget),
        upstream=scaled(figure.upstream),
    )


def table(parts: Mapping[str, Part]) -> str:
    """For people: what was measured, its spread, its budget, KubeVirt's figure and the run before."""
    heads = ("n", "min", "median", "max", "budget", "KubeVirt", "before")
    lines = []
    for name, part in parts.items():
        lines.append(f"\n{name} ({part.at}, {part.commit})".ljust(82) + "".join(f"{h:>10}" for h in heads))  # fmt: skip
        for key, figure in part.figures.items():
            numbers = (
                min(figure.samples),
                figure.median,
                max(figure.samples),
                figure.budget,
                figure.upstream,
                part.before.get(key),
            )
            cells = "".join(f"{_shown(number):>10}" for number in numbers)
            missed = " !" if figure.budget is not None and figure.median > figure.budget else ""
            lines.append(f"{figure.title + ', ' + figure.unit:81}{len(figure.samples):>10}{cells}{missed}")  # fmt: skip
    return "\n".join(lines)


def _shown(number: float | None) -> str:
    return "-" if number is None else f"{number:.2f}"


def _commit() -> str:
    command = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


async def _starts(samples: int) -> list[Figure]:
    found = await start.starts(samples)
    print(start.ledger(found))
    return start.figures(found)


async def _scale(vmis: int) -> list[Figure]:
    from tests.perf.scale.__main__ import measured
    from tests.perf.scale.report import figures, table

    run = await measured(vmis, max(2, vmis // 200))
    print(table(run))
    return figures(run)


async def main() -> None:
    """Parse the arguments, measure, keep, show."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART")
    parser.add_argument("--samples", type=int, default=10, help="of a single start")
    parser.add_argument("--vmis", type=int, default=1000, help="of the scale part")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    every: dict[str, Callable[[], Awaitable[list[Figure]]]] = {
        "idle": footprint.footprint,
        "start": lambda: _starts(options.samples),
        "volumes": volumes.volumes,
        "network": network.network,
        "burst": burst.burst,
        "sets": sets.sets,
        "lifecycle": lifecycle.lifecycle,
        "recovery": recovery.recovery,
        "scale": lambda: _scale(options.vmis),
    }
    unknown = set(options.parts) - every.keys()
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    parts = load(options.out / "latest.json")
    for name in options.parts or every:
        began = time.monotonic()
        print(f"» {name}", flush=True)
        figures = await every[name]()
        parts[name] = parts.get(name, Part({})).successor(figures)
        # After each part: what was measured stays, whatever becomes of the next one.
        save(options.out, {name: parts[name] for name in every if name in parts})
        print(f"» {name} took {time.monotonic() - began:.0f} s", flush=True)
    print(table(parts))


if __name__ == "__main__":
    asyncio.run(main())
