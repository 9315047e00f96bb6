"""Waiting for files that may stop to answer: those of one volume hold up nobody who wants another's.

Invariant: nothing can stop a thread that waits for a dead server, so nobody waits for one longer than was said, a volume has few
of them, and while one is left behind nothing new is begun on its volume. What it opens after all is closed. None holds up the end of
the process.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

import structlog
from podvisor_common.aio.threads import in_own_thread

# Threads that one volume has at a time for what is short; more wait for their turn.
MOST = 4

_T = TypeVar("_T")
_log = structlog.get_logger(__name__)


class NoAnswer(Exception):
    """Files are not answered for in time, or still not since an earlier attempt. The message says which, for a person."""


class Storage:
    """A volume, or a directory of the pod's own; `title` is what a person is told that it is."""

    def __init__(self, title: str, *, most: int = MOST) -> None:
        self._title = title
        self._turns = asyncio.Semaphore(most)
        self._left: set[asyncio.Future[Any]] = set()

    @property
    def is_stuck(self) -> bool:
        """Somebody has given up waiting for it, and what they waited for goes on."""
        return bool(self._left)

    async def run(
        self, work: Callable[[], _T], timeout_s: float, late: Callable[[_T], None] | None = None
    ) -> _T:
        """The outcome of `work` in a thread of its own; `late` is given what comes when nobody waits for it any more.

        Raises what `work` raises, and NoAnswer; that at once while it is stuck.
        """
        if self.is_stuck:
            raise self._no_answer()
        task = asyncio.create_task(self._in_turn(work), name=self._title)
        return await self.wait_for(task, timeout_s, late)

    async def wait_for(
        self,
        outcome: asyncio.Future[_T],
        timeout_s: float,
        late: Callable[[_T], None] | None = None,
    ) -> _T:
        """The outcome of work on it that is under way, whatever there is of other work. Raises NoAnswer."""
        is_taken = False
        try:
            # Waited for, not awaited: it goes on when nobody waits any more.
            await asyncio.wait({outcome}, timeout=timeout_s)
            is_taken = outcome.done()
        finally:
            if not is_taken:
                self._left.add(outcome)
                outcome.add_done_callback(partial(self._over, late))
        if not is_taken:
            _log.warning("no answer", of=self._title, left=len(self._left))
            raise self._no_answer()
        return outcome.result()

    async def _in_turn(self, work: Callable[[], _T]) -> _T:
        async with self._turns:
            return await in_own_thread(work, name=self._title)

    def _over(self, late: Callable[[_T], None] | None, outcome: asyncio.Future[_T]) -> None:
        self._left.discard(outcome)
        if outcome.cancelled() or outcome.exception() is not None or late is None:
            return
        name = f"{self._title}, late"
        threading.Thread(target=late, args=(outcome.result(),), name=name, daemon=True).start()

    def _no_answer(self) -> NoAnswer:
        return NoAnswer(f"{self._title} does not answer.")


class Worker:
    """A thread that does one thing after the other. Unlike that of an executor it holds up nobody's end when it hangs."""

    def __init__(self, name: str) -> None:
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        threading.Thread(target=_serve, args=(self._work,), name=name, daemon=True).start()

    def submit(self, work: Callable[[], _T]) -> asyncio.Future[_T]:
        """The outcome of `work`."""
        return asyncio.wrap_future(self._put(work))

    def end(self, last: Callable[[], None]) -> None:
        """Do `last` behind all that there is to do, and nothing after it. Does not wait for it."""
        self._put(last)
        self._work.put(None)

    def _put(self, work: Callable[[], _T]) -> Future[_T]:
        outcome: Future[_T] = Future()
        self._work.put(partial(_settle, outcome, work))
        return outcome


def _serve(queue: SimpleQueue[Callable[[], None] | None]) -> None:
    while (work := queue.get()) is not None:
        work()


def _settle(outcome: Future[_T], work: Callable[[], _T]) -> None:
    if not outcome.set_running_or_notify_cancel():
        return
    try:
        outcome.set_result(work())
    except BaseException as error:
        outcome.set_exception(error)
