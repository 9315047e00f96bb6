"""Workers that bring objects towards their desired state, one key at a time.

Invariants: reconcile() gets a key and nothing else; the same key never runs twice at once; every failure is tried again
with growing pauses unless it is Terminal; one bad object neither stops nor slows the others. The log has one line at the
first unexpected failure of a key and one each time the count of its failures in a row doubles from SILENT_FAILURES on.
"""

import asyncio
import math
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog
from structlog.contextvars import bound_contextvars

from podvisor_common.aio.tasks import spawn
from podvisor_common.errors import Retryable, Terminal
from podvisor_common.kube import metrics
from podvisor_common.kube.errors import ApiError, ApiUnavailable
from podvisor_common.kube.queue import WorkQueue
from podvisor_common.kube.resources import ObjectKey

RECONCILE_TIMEOUT_S = 120.0
SILENT_FAILURES = 5
# Between two attempts while the API server is away: nobody tells a key that it is back.
AWAY_RETRY_S = 10.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Requeue:
    """Reconcile the same key again after this time, whatever happens until then."""

    after_s: float


Reconcile = Callable[[ObjectKey], Awaitable[Requeue | None]]


class Controller:
    """A queue of keys and the workers that reconcile them."""

    def __init__(
        self,
        name: str,
        reconcile: Reconcile,
        *,
        workers: int = 4,
        timeout_s: float = RECONCILE_TIMEOUT_S,
        queue: WorkQueue[ObjectKey] | None = None,
    ) -> None:
        self.name = name
        self._reconcile = reconcile
        self._workers = workers
        self._timeout_s = timeout_s
        self._queue = queue or WorkQueue(name)
        self._errors = metrics.RECONCILE_ERRORS.labels(name)
        self._seconds = metrics.RECONCILE_SECONDS.labels(name)
        self._active = metrics.ACTIVE_WORKERS.labels(name)
        self._results = {
            result: metrics.RECONCILES.labels(name, result)
            for result in ("success", "requeue_after", "retry", "terminal", "error")
        }

    def enqueue(self, key: ObjectKey) -> None:
        """Have `key` reconciled soon."""
        self._queue.add(key)

    async def run(self) -> None:
        """Work until cancelled. Start it when the caches it reads are synced."""
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(self._workers):
                    spawn(group, self._work(), name=f"{self.name}-worker-{number}")
        finally:
            self._queue.close()

    async def _work(self) -> None:
        while True:
            key = await self._queue.get()
            try:
                with (
                    bound_contextvars(
                        controller=self.name,
                        namespace=key.namespace,
                        name=key.name,
                        reconcile_id=uuid.uuid4().hex[:8],
                    ),
                    self._active.track_inprogress(),
                    self._seconds.time(),
                ):
                    await self._reconcile_one(key)
            finally:
                self._queue.done(key)
            # A key with nothing to do is worked on without ever waiting, and so would be all that wait behind it.
            await asyncio.sleep(0)

    async def _reconcile_one(self, key: ObjectKey) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                result = await self._reconcile(key)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # Something inside was cancelled, not this worker: a failure like any other.
            self._retry_unexpected(key, error)
        except Terminal as error:
            self._queue.forget(key)
            self._errors.inc()
            self._results["terminal"].inc()
            _log.error("reconcile failed for good", error=str(error), kind=type(error).__name__)
        except Retryable as error:
            self._retry_quietly(key, error)
        except Exception as error:
            self._retry_unexpected(key, error)
        else:
            self._queue.forget(key)
            self._results["requeue_after" if result else "success"].inc()
            if result:
                self._queue.add_after(key, result.after_s)

    def _retry_quietly(self, key: ObjectKey, error: Retryable) -> None:
        self._results["retry"].inc()
        retry_after_s = (error.retry_after_s if isinstance(error, ApiError) else None) or 0.0
        at_most_s = AWAY_RETRY_S if isinstance(error, ApiUnavailable) else math.inf
        failures = self._queue.add_rate_limited(
            key, at_least_s=retry_after_s, at_most_s=max(at_most_s, retry_after_s)
        )
        facts = {"error": str(error), "kind": type(error).__name__, "failures": failures}
        if _is_worth_a_line(failures):
            _log.warning("reconcile still fails", **facts)
        else:
            _log.debug("reconcile to be retried", **facts)

    def _retry_unexpected(self, key: ObjectKey, error: BaseException) -> None:
        self._errors.inc()
        self._results["error"].inc()
        failures = self._queue.add_rate_limited(key)
        if failures == 1:
            _log.error("reconcile failed", exc_info=error)
        elif _is_worth_a_line(failures):
            _log.error("reconcile still fails", error=repr(error), failures=failures)


def _is_worth_a_line(failures: int) -> bool:
    """At SILENT_FAILURES and at every doubling of it."""
    times, rest = divmod(failures, SILENT_FAILURES)
    return rest == 0 and times & (times - 1) == 0
