"""The work queue of a controller: deduplicating, delaying, rate limiting.

Invariants: a key is never given to two workers at once; a key added while it is worked on is given out once more
afterwards; a key waits in the queue at most once. Not for threads: everything happens in one event loop.
The size is bounded by the number of distinct keys, which is the number of objects.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from podvisor_common.aio.backoff import Backoff
from podvisor_common.kube import metrics

K = TypeVar("K", bound=Hashable)

RETRY_INITIAL_S = 0.005
RETRY_MAX_S = 60.0
RETRY_JITTER = 0.5


def _retry_backoff() -> Backoff:
    return Backoff(RETRY_INITIAL_S, 2.0, RETRY_MAX_S, RETRY_JITTER)


class WorkQueue(Generic[K]):
    """Keys to work on, in the order in which they became due."""

    def __init__(self, name: str, *, backoff: Callable[[], Backoff] = _retry_backoff) -> None:
        self._ready: deque[K] = deque()
        self._dirty: dict[K, float] = {}
        self._processing: dict[K, float] = {}
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._failures: dict[K, tuple[int, Backoff]] = {}
        self._getters: deque[asyncio.Future[None]] = deque()
        self._new_backoff = backoff
        self._depth = metrics.QUEUE_DEPTH.labels(name)
        self._adds = metrics.QUEUE_ADDS.labels(name)
        self._retries = metrics.QUEUE_RETRIES.labels(name)
        self._queue_seconds = metrics.QUEUE_SECONDS.labels(name)
        self._work_seconds = metrics.WORK_SECONDS.labels(name)

    def __len__(self) -> int:
        """Keys that wait for a worker; those worked on or delayed are not counted."""
        return len(self._ready)

    def add(self, key: K) -> None:
        """Have `key` worked on soon; nothing happens when it already waits."""
        if key in self._dirty:
            return
        self._dirty[key] = self._now_s()
        self._adds.inc()
        if key not in self._processing:
            self._make_ready(key)

    def add_after(self, key: K, delay_s: float) -> None:
        """Have `key` worked on after `delay_s`; of several delays of one key the earliest end counts."""
        if delay_s <= 0:
            self.add(key)
            return
        due_s = self._now_s() + delay_s
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= due_s:
                return
            timer.cancel()
        self._timers[key] = asyncio.get_running_loop().call_at(due_s, self._on_timer, key)

    def add_rate_limited(
        self, key: K, *, at_least_s: float = 0.0, at_most_s: float = math.inf
    ) -> int:
        """Have `key` worked on after a pause that grows with each call, until forget(); the number of calls since.

        The bounds are those of this pause, before jitter.
        """
        count, backoff = self._failures.get(key) or (0, self._new_backoff())
        self._failures[key] = (count + 1, backoff)
        self._retries.inc()
        self.add_after(key, backoff.next_s(at_least_s=at_least_s, at_most_s=at_most_s))
        return count + 1

    def forget(self, key: K) -> None:
        """The key was worked on successfully: its next failure starts with the shortest pause."""
        self._failures.pop(key, None)

    def failures(self, key: K) -> int:
        """How often the key was added rate limited since it was last forgotten."""
        count, _ = self._failures.get(key, (0, None))
        return count

    async def get(self) -> K:
        """The next key; done() must follow when it has been worked on."""
        while not self._ready:
            getter = asyncio.get_running_loop().create_future()
            self._getters.append(getter)
            try:
                await getter
            except asyncio.CancelledError:
                if getter.done() and not getter.cancelled():
                    self._wake_one()  # this waiter's turn goes to the next one
                elif getter in self._getters:
                    self._getters.remove(getter)
                raise
        key = self._ready.popleft()
        now_s = self._now_s()
        self._queue_seconds.observe(now_s - self._dirty.pop(key))
        self._depth.set(len(self._ready))
        self._processing[key] = now_s
        return key

    def done(self, key: K) -> None:
        """The key is not worked on any more; if it was added meanwhile, it waits again."""
        self._work_seconds.observe(self._now_s() - self._processing.pop(key))
        if key in self._dirty:
            self._make_ready(key)

    def close(self) -> None:
        """Drop all delays; what waits is left for those who still ask."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _on_timer(self, key: K) -> None:
        self._timers.pop(key, None)
        self.add(key)

    def _make_ready(self, key: K) -> None:
        self._ready.append(key)
        self._depth.set(len(self._ready))
        self._wake_one()

    def _wake_one(self) -> None:
        while self._getters:
            getter = self._getters.popleft()
            if not getter.done():
                getter.set_result(None)
                return

    @staticmethod
    def _now_s() -> float:
        return asyncio.get_running_loop().time()
