"""Work on a volume, which nothing can stop: a thread that waits for a dead server waits on when nobody does any more."""

import asyncio
from collections.abc import Callable

from podvisor_common.aio.threads import in_own_thread


class Attempt:
    """At most one piece of work at a time. Its outcome is kept until it is taken or the next begins."""

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None

    @property
    def is_under_way(self) -> bool:
        """The work goes on."""
        return self._task is not None and not self._task.done()

    def begin(self, work: Callable[[], None], *, name: str) -> None:
        """Begin `work` in a thread of its own; nothing is under way."""
        assert not self.is_under_way
        self._task = asyncio.create_task(in_own_thread(work, name=name), name=name)
        self._task.add_done_callback(_retrieve)

    async def has_ended_within(self, timeout_s: float) -> bool:
        """Wait for the end of the work, for so long."""
        assert self._task is not None
        # Waited for, not awaited: the attempt goes on when nobody waits any more.
        await asyncio.wait({self._task}, timeout=timeout_s)
        return self._task.done()

    def take(self) -> None:
        """The outcome of work that has ended. Raises what it raised."""
        assert self._task is not None
        task, self._task = self._task, None
        task.result()


def _retrieve(task: asyncio.Task[None]) -> None:
    """The failure of an attempt that nobody has waited for to the end is no news."""
    if not task.cancelled():
        task.exception()
