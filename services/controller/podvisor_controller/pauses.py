"""How long is waited before another try, and pauses that end at a time of day. Pure.

Invariant: an end that is farther ahead than any pause lasts was written by a clock that has been set back since: it is no reason
to wait, for that would last as long as the clock was wrong.
"""

from datetime import datetime, timedelta

from podvisor_common.aio.backoff import Backoff

RETRY_MAX_S = 300.0
# After what a policy or somebody's webhook refused to change of a pod: nobody tells when it would not any more.
REFUSED_CHANGE_S = 30.0
_LONGEST_RETRY = 2 * timedelta(seconds=RETRY_MAX_S)


def left_of(end: datetime, at: datetime, *, longest: timedelta) -> timedelta:
    """What is left of a pause; zero when it is over, or when no pause lasts so long."""
    left = end - at
    return left if timedelta(0) < left <= longest else timedelta(0)


def retry_backoff() -> Backoff:
    """The pauses, in seconds, before what the API server refused is tried again: longer each time, up to RETRY_MAX_S."""
    return Backoff(initial_s=2.0, max_s=RETRY_MAX_S, jitter=0.1)


def retry_left(retry_at: datetime | None, at: datetime) -> timedelta:
    """What is left of such a pause; zero where nothing was refused."""
    return timedelta(0) if retry_at is None else left_of(retry_at, at, longest=_LONGEST_RETRY)
