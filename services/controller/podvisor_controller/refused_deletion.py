"""A deletion that the API server refused, and when it is asked again. No I/O.

Invariant: it has a pause of its own. What else is refused to the same object neither prolongs it nor waits for it.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from podvisor_common.aio.backoff import Backoff

from podvisor_controller.pauses import left_of

RETRY_MAX_S = 300.0
_LONGEST_PAUSE = 2 * timedelta(seconds=RETRY_MAX_S)


def _retry_backoff() -> Backoff:
    return Backoff(initial_s=2.0, max_s=RETRY_MAX_S, jitter=0.1)


@dataclass(slots=True)
class RefusedDeletion:
    """Why an object is still there although it was to be deleted. It is forgotten when that is over."""

    why: str = ""
    retry_at: datetime | None = None
    backoff: Backoff = field(default_factory=_retry_backoff)

    def note(self, why: str, at: datetime) -> None:
        """Refused, perhaps once more: each time the pause is longer."""
        self.why = why
        self.retry_at = at + timedelta(seconds=self.backoff.next_s())


def retry_left(retry_at: datetime | None, at: datetime) -> timedelta:
    """How long to wait before a deletion is tried again; nothing where none was refused."""
    if retry_at is None:
        return timedelta(0)
    return left_of(retry_at, at, longest=_LONGEST_PAUSE)
