"""What the API server refused to a set, and when it is asked again. No I/O.

Invariant: a refusal is told once, and is over when what was refused has been done.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from podvisor_common.aio.backoff import Backoff
from podvisor_common.api.v1.names import Reason
from podvisor_common.kube.errors import ApiError, ApiForbidden, ApiInvalid

from podvisor_controller.pauses import retry_backoff, retry_left
from podvisor_controller.refusals import explain
from podvisor_controller.sets.conditions import Failure


@dataclass(slots=True)
class Trouble:
    """The refusals of one kind of write, such as the creation of members."""

    reason: Reason
    failure: Failure | None = None
    retry_at: datetime | None = None
    backoff: Backoff = field(default_factory=retry_backoff)

    def left(self, at: datetime) -> timedelta:
        """How long to wait before what was refused is tried again."""
        return retry_left(self.retry_at, at)

    def note(
        self, errors: Sequence[ApiError], what: str, done: str, at: datetime
    ) -> Failure | None:
        """Remember the first refusal among what went wrong with writes; the failure, where its owner has not been told yet."""
        refusals = [error for error in errors if isinstance(error, ApiForbidden | ApiInvalid)]
        if not refusals:
            return None
        before, message = self.failure, explain(what, refusals[0], done=done)
        self.failure = None if message is None else Failure(self.reason, message)
        self.retry_at = at + timedelta(seconds=self.backoff.next_s())
        return self.failure if self.failure != before else None

    def try_again(self) -> None:
        """What was refused may be right now."""
        self.retry_at = None

    def is_over(self) -> None:
        """What was refused has been done, or nobody wants it any more."""
        self.failure = self.retry_at = None
        self.backoff.reset()


def raise_unexpected(errors: Sequence[ApiError]) -> None:
    """Raise the first of what went wrong that is no refusal."""
    for error in errors:
        if not isinstance(error, ApiForbidden | ApiInvalid):
            raise error
