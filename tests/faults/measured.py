"""How long recoveries took: kept for the whole run, held against their limits, and shown at its end."""

import json
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_PROPERTY = "measured"


@dataclass(frozen=True, slots=True)
class Measured:
    """What a test measures. `note` takes a name and a value into the test's report, which comes from another process when tests
    run side by side."""

    note: Callable[[str, object], None]

    def add(self, what: str, duration_s: float, *, limit_s: float) -> None:
        """Take note of one duration; it must not be longer than `limit_s`."""
        self.note(_PROPERTY, [what, duration_s, limit_s])
        assert duration_s <= limit_s, f"{what}: {duration_s:.2f} s, at most {limit_s:g} s allowed"


@dataclass(slots=True)
class Durations:
    """Durations in seconds of a whole run, by what was measured."""

    durations_s: dict[str, list[float]] = field(default_factory=dict)
    limits_s: dict[str, float] = field(default_factory=dict)

    def take(self, properties: Iterable[tuple[str, Any]]) -> None:
        """What a test's report has of Measured."""
        for name, value in properties:
            if name == _PROPERTY:
                what, duration_s, limit_s = value
                self.durations_s.setdefault(what, []).append(duration_s)
                self.limits_s[what] = limit_s

    def table(self) -> list[str]:
        """One line for each thing measured."""
        return [
            f"{what:<60} n={len(times):<3} median {statistics.median(times):6.2f} s"
            f"   max {max(times):6.2f} s   limit {self.limits_s[what]:g} s"
            for what, times in self.durations_s.items()
        ]

    def save(self, path: Path) -> None:
        """Write all of it down as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {
            what: {"limit_s": self.limits_s[what], "durations_s": times}
            for what, times in self.durations_s.items()
        }
        path.write_text(json.dumps(content, indent=1))
