"""The clock of every deadline of a machine."""

import time


def boottime_ms() -> int:
    """Milliseconds of CLOCK_BOOTTIME, which runs on while the host sleeps, and nobody can set it."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
