"""Pauses that end at a time of day. Pure.

Invariant: an end that is farther ahead than any pause lasts was written by a clock that has been set back since: it is no reason
to wait, for that would last as long as the clock was wrong.
"""

from datetime import datetime, timedelta


def left_of(end: datetime, at: datetime, *, longest: timedelta) -> timedelta:
    """What is left of a pause; zero when it is over, or when no pause lasts so long."""
    left = end - at
    return left if timedelta(0) < left <= longest else timedelta(0)
