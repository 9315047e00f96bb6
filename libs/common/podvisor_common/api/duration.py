"""Durations as Kubernetes writes them (metav1.Duration): numbers with units, `1h30m` or `2.5s`. Pure."""

import math
import re
from datetime import timedelta
from decimal import Decimal

_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(h|ms|us|µs|ns|m|s)")
_MICROSECONDS = {
    "h": Decimal(3_600_000_000),
    "m": Decimal(60_000_000),
    "s": Decimal(1_000_000),
    "ms": Decimal(1_000),
    "us": Decimal(1),
    "µs": Decimal(1),
    "ns": Decimal("0.001"),
}
# A duration needs less than half of this; looking for parts in a text takes the square of its length.
MAX_LENGTH = 64
# What the longest timedelta cannot hold is no duration of anybody's.
_LIMIT = Decimal(100 * 365 * 24) * _MICROSECONDS["h"]


class DurationError(ValueError):
    """The text is no duration, or a longer one than a century."""


def parse_duration(text: str) -> timedelta:
    """The duration that a text names, which is not negative, in whole microseconds and 0 for nothing but 0; DurationError when it names none."""
    if len(text) > MAX_LENGTH:
        raise DurationError(f"a duration has at most {MAX_LENGTH} characters")
    parts = _PART.findall(text)
    if text == "0":
        return timedelta(0)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise DurationError(f"{text!r} is no duration such as 90s, 5m or 1h30m")
    total = sum((Decimal(number) * _MICROSECONDS[unit] for number, unit in parts), Decimal(0))
    if total > _LIMIT:
        raise DurationError("a duration is at most a hundred years")
    return timedelta(microseconds=math.ceil(total))
