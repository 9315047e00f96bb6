"""The hand-overs of volumes to the launcher of one pod, and when each is tried again.

Invariant: what goes wrong with a volume is that volume's problem and nobody else's: it is remembered, never raised.
"""

import time
from collections.abc import Collection
from dataclasses import dataclass, field

import structlog
from podvisor_common.aio.backoff import Backoff
from podvisor_common.errors import Retryable, Terminal

from podvisor_handler.launchers.connection import LauncherConnection
from podvisor_handler.storage.handover import HandoverRefused, Receiver, VolumeHandovers
from podvisor_handler.storage.plan import HandOver
from podvisor_handler.storage.volumes import VolumeRefused
from podvisor_handler.vmi.plan import Attempt
from podvisor_handler.vmi.problems import printable

# A launcher that has taken a volume has it attached by then, or has lost it.
_ATTACHED_WITHIN_S = 5.0
# What fails once is not worth a word.
_FAILURE_LASTS_AFTER_S = 10.0

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Attempt:
    order: HandOver
    since_s: float  # monotonic, the first in a row
    due_s: float = 0.0
    backoff: Backoff = field(default_factory=lambda: Backoff(initial_s=0.5))
    failure: Exception | None = None


class Handovers:
    """What was handed over to the launcher of one pod."""

    def __init__(self) -> None:
        self._attempts: dict[str, _Attempt] = {}
        self._work = VolumeHandovers()

    def forget_except(self, volumes: Collection[str]) -> None:
        """Others are gone from the manifest."""
        for name in self._attempts.keys() - set(volumes):
            del self._attempts[name]

    def observe(self) -> dict[str, Attempt]:
        """The last attempt at each volume."""
        now_s = time.monotonic()
        return {
            name: Attempt(
                attempt.order,
                is_taken=attempt.failure is None,
                is_due=attempt.due_s <= now_s,
                problem=_problem(attempt, now_s),
            )
            for name, attempt in self._attempts.items()
        }

    @property
    def in_flight(self) -> str:
        """The volume that is being handed over still; empty for none."""
        return self._work.in_flight

    async def carry_out(
        self, order: HandOver, connection: LauncherConnection, pods_directory: str
    ) -> None:
        """Hands over one volume and remembers how that went."""
        volume = order.access.volume
        attempt = self._attempts.get(volume)
        if attempt is None or attempt.order != order:
            attempt = self._attempts[volume] = _Attempt(order, time.monotonic())
        known, failure = str(attempt.failure), None
        try:
            receiver = Receiver(connection.pod.uid, connection.process)
            await self._work.run(pods_directory, order, receiver)
        except (Retryable, Terminal) as error:
            failure = error
        if failure is None:
            _log.info("volume handed over", volume=volume)
            attempt.since_s = time.monotonic()
        elif str(failure) != known:
            _log.warning("volume not handed over", volume=volume, error=printable(str(failure)))
        attempt.failure = failure
        least_s = _ATTACHED_WITHIN_S if failure is None else 0.0
        attempt.due_s = time.monotonic() + attempt.backoff.next_s(at_least_s=least_s)

    def next_look_s(self, awaited: Collection[str]) -> float | None:
        """How long until one of the volumes may be handed over again; None if none is to be waited for."""
        now_s = time.monotonic()
        left = [
            attempt.due_s - now_s for name, attempt in self._attempts.items() if name in awaited
        ]
        return min((left_s for left_s in left if left_s > 0), default=None)


def _problem(attempt: _Attempt, now_s: float) -> str:
    """What is to be said of a failure; empty while it may pass by itself."""
    failure = attempt.failure
    is_refused = isinstance(failure, HandoverRefused | VolumeRefused)
    if failure is None or not (is_refused or now_s - attempt.since_s >= _FAILURE_LASTS_AFTER_S):
        return ""
    return printable(str(failure))
