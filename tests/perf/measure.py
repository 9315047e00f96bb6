"""What every measurement shares: figures with their spread, the audit log, what processes cost.

Invariant: a figure keeps all its samples; how they are summed up is decided where they are shown.
"""

import json
import os
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.support.cluster import ROOT

AUDIT_LOG = ROOT / ".dev/audit.log"
OURS = ("virt-controller", "virt-handler")
READING = frozenset({"get", "list", "watch"})
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_MIB = 1024.0


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured quantity. `budget` is what SPECIFICATION.md promises of its median, `upstream` what KubeVirt needs."""

    key: str
    title: str
    unit: str
    samples: Sequence[float]
    budget: float | None = None
    upstream: float | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    def as_json(self) -> dict[str, Any]:
        """The figure as it is stored, its spread written out for readers without a calculator."""
        content = {k: v for k, v in asdict(self).items() if v is not None and k != "key"}
        content["samples"] = [round(value, 4) for value in self.samples]
        spread = {"min": min(self.samples), "median": self.median, "max": max(self.samples)}
        return content | {name: round(value, 4) for name, value in spread.items()}

    @classmethod
    def from_json(cls, key: str, content: dict[str, Any]) -> "Figure":
        """The inverse of as_json()."""
        return cls(
            key, content["title"], content["unit"], content["samples"],
            content.get("budget"), content.get("upstream"),
        )  # fmt: skip


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest value that `share` of all values do not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


@dataclass(slots=True)
class Writes:
    """API writes about one namespace, as `account verb resource[/subresource]`, and what became of them."""

    by_call: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)

    @property
    def objects(self) -> int:
        """All but events."""
        return self.by_call.total() - self.events

    @property
    def events(self) -> int:
        return sum(count for call, count in self.by_call.items() if call.endswith(" events"))


def audit_mark() -> int:
    """A position in the audit log: what is logged from now on comes after it."""
    return AUDIT_LOG.stat().st_size


def writes_since(
    mark: int, namespace: str | None, accounts: Sequence[str] = OURS, *, leases: bool = False
) -> Writes:
    """The writes of `accounts` after `mark`; with `namespace` None those about all namespaces and about none."""
    writes = Writes()
    with AUDIT_LOG.open("rb") as log:
        log.seek(mark)
        for line in log:
            entry = json.loads(line)
            target = entry.get("objectRef", {})
            account = entry["user"]["username"].rsplit(":", 1)[-1]
            if entry["verb"] in READING or account not in accounts:
                continue
            if entry["stage"] != "ResponseComplete" or "dryRun=All" in entry["requestURI"]:
                continue
            if namespace is not None and target.get("namespace") != namespace:
                continue
            if target.get("resource") == "leases" and not leases:
                continue
            what = "/".join(filter(None, (target.get("resource"), target.get("subresource"))))
            call = f"{account} {entry['verb']} {what}"
            writes.by_call[call] += 1
            code = entry.get("responseStatus", {}).get("code", 0)
            if code >= 300:
                writes.refused[f"{call} {code}"] += 1
    return writes


def can_virtualise() -> bool:
    """Whether guests have hardware virtualisation here, or are emulated."""
    words = set(Path("/proc/cpuinfo").read_text().split())
    return bool(words & {"vmx", "svm"})


def cpu_s(pid: int) -> float:
    """CPU seconds that a process of this host has used, its reaped children included."""
    return parse_stat(Path(f"/proc/{pid}/stat").read_text())


def parse_stat(text: str) -> float:
    """CPU seconds in the content of /proc/PID/stat, those of reaped children included."""
    fields = text.rsplit(")", 1)[1].split()
    return sum(int(value) for value in fields[11:15]) / _TICKS_PER_S


def memory_mib(pid: int) -> dict[str, float]:
    """RSS, PSS and private memory of a process of this host, in MiB."""
    return parse_rollup(Path(f"/proc/{pid}/smaps_rollup").read_text())


def parse_rollup(text: str) -> dict[str, float]:
    """The content of /proc/PID/smaps_rollup as MiB: `rss`, `pss`, `private`."""
    kib = {
        line.split(":")[0]: int(line.split()[1])
        for line in text.splitlines()
        if line.endswith("kB")
    }
    return {
        "rss": kib["Rss"] / _MIB,
        "pss": kib["Pss"] / _MIB,
        "private": (kib["Private_Clean"] + kib["Private_Dirty"]) / _MIB,
    }
