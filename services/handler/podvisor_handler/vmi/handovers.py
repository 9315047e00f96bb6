"""The hand-overs of volumes to the launcher of one pod, and when each is tried again.

Invariant: what goes wrong with a volume is that volume's problem and nobody else's: it is remembered, never raised, and nothing
waits for it.
"""

import asyncio
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import structlog
from podvisor_common.aio.backoff import Backoff
from podvisor_common.errors import Retryable, Terminal

from podvisor_handler.launchers.connection import LauncherConnection
from podvisor_handler.storage.handover import HandoverRefused, Receiver, VolumeHandover
from podvisor_handler.storage.plan import HandOver
from podvisor_handler.storage.volumes import VolumeRefused, VolumeSilent
from podvisor_handler.vmi.plan import Attempt
from podvisor_handler.vmi.problems import printable

# A launcher that has taken a volume has it attached by then, or has lost it.
_ATTACHED_WITHIN_S = 5.0
# What fails once is not worth a word.
_FAILURE_LASTS_AFTER_S = 10.0

_log = structlog.get_logger(__name__)


class HandoverFailed(Retryable):
    """virt-handler broke down over a hand-over."""

    def __init__(self, volume: str) -> None:
        super().__init__(f'Volume "{volume}": virt-handler failed over it, as its log tells.')


@dataclass(slots=True)
class _Attempt:
    order: HandOver
    since_s: float  # monotonic, the first in a row
    due_s: float = 0.0
    backoff: Backoff = field(default_factory=lambda: Backoff(initial_s=0.5))
    failure: Exception | None = None
    is_taken: bool = False

    def end(self, failure: Exception | None) -> None:
        """The launcher has the volume, unless there is a `failure`."""
        volume, known = self.order.access.volume, str(self.failure)
        if failure is None:
            _log.info("volume handed over", volume=volume)
            self.since_s = time.monotonic()
        elif str(failure) != known:
            _log.warning("volume not handed over", volume=volume, error=printable(str(failure)))
        self.failure, self.is_taken = failure, failure is None
        least_s = _ATTACHED_WITHIN_S if failure is None else 0.0
        self.due_s = time.monotonic() + self.backoff.next_s(at_least_s=least_s)


class Handovers:
    """What was handed over to the launcher of one pod. `changed` is called whenever there is something new to observe."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._attempts: dict[str, _Attempt] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def close(self) -> None:
        """Nobody is interested any more. What cannot be stopped goes on until it ends, unheard."""
        for task in self._tasks.values():
            task.cancel()

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
                is_taken=attempt.is_taken,
                is_due=attempt.due_s <= now_s,
                problem=_problem(attempt, now_s),
            )
            for name, attempt in self._attempts.items()
        }

    @property
    def in_flight(self) -> frozenset[str]:
        """The volumes that are being handed over still."""
        return frozenset(self._tasks)

    def begin(self, order: HandOver, connection: LauncherConnection, pods_directory: str) -> None:
        """Begins to hand over one volume, which is not being handed over, and remembers how that goes."""
        volume = order.access.volume
        assert volume not in self._tasks
        attempt = self._attempts.get(volume)
        if attempt is None or attempt.order != order:
            attempt = self._attempts[volume] = _Attempt(order, time.monotonic())
        try:
            receiver = Receiver(connection.pod.uid, connection.process)
            handover = VolumeHandover(pods_directory, order, receiver)
        except (Retryable, Terminal) as error:
            attempt.end(error)
            return
        task = asyncio.create_task(self._follow(handover, attempt), name=f"hand-over-{volume}")
        self._tasks[volume] = task
        task.add_done_callback(lambda _: self._forget_task(volume))

    async def _follow(self, handover: VolumeHandover, attempt: _Attempt) -> None:
        """To the end of the hand-over. One that is late is told of when it is, and believed whenever it ends."""
        while True:
            try:
                await handover.arrives()
            except VolumeSilent as error:
                if str(error) != str(attempt.failure):
                    attempt.end(error)
                    self._changed()
            except (Retryable, Terminal) as error:
                return attempt.end(error)
            except Exception:
                # One volume must not keep the handler busy; how it failed is nothing for a status.
                _log.exception("hand-over failed", volume=attempt.order.access.volume)
                return attempt.end(HandoverFailed(attempt.order.access.volume))
            else:
                return attempt.end(None)

    def _forget_task(self, volume: str) -> None:
        del self._tasks[volume]
        self._changed()

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
    is_told = isinstance(failure, HandoverRefused | VolumeRefused | VolumeSilent)
    if failure is None or not (is_told or now_s - attempt.since_s >= _FAILURE_LASTS_AFTER_S):
        return ""
    return printable(str(failure))
