"""A deletion that the API server refused, and when it is asked again. No I/O.

Invariant: it has a pause of its own. What else is refused to the same object neither prolongs it nor waits for it.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from podvisor_common.aio.backoff import Backoff

from podvisor_controller.pauses import retry_backoff


@dataclass(slots=True)
class RefusedDeletion:
    """Why an object is still there although it was to be deleted. It is forgotten when that is over."""

    why: str = ""
    retry_at: datetime | None = None
    backoff: Backoff = field(default_factory=retry_backoff)

    def note(self, why: str, at: datetime) -> None:
        """Refused, perhaps once more: each time the pause is longer."""
        self.why = why
        self.retry_at = at + timedelta(seconds=self.backoff.next_s())
