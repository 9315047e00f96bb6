"""Who is connected to what a guest has one of: its serial console, its screen.

Invariant: one session for each; whoever comes next has it, unless they ask not to displace anybody. It does not matter what the one
before does: its connection to the guest is cut first, and its call is ended a while later if it does not end by itself, as with a client
that does not read.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from typing import Any

from podvisor_common.errors import Terminal
from podvisor_common.rpc.errors import Aborted

ENDED_AFTER_S = 5.0


class SessionInUse(Terminal):
    """Somebody is connected, and is to stay."""

    reason = "SessionInUse"


class SessionDisplaced(Aborted):
    """Somebody else has connected in place of this session."""

    reason = "SessionDisplaced"


class Session:
    """One that is connected. `hang_up` cuts its connection to the guest, once there is one."""

    def __init__(self, task: "asyncio.Task[Any] | None") -> None:
        self.hang_up: Callable[[], None] = lambda: None
        self.is_displaced = False
        self._task = task
        self._end: asyncio.TimerHandle | None = None

    def displace(self) -> None:
        """Make room for somebody else."""
        self.is_displaced = True
        self.hang_up()
        if self._task is not None:
            loop = asyncio.get_running_loop()
            self._end = loop.call_later(ENDED_AFTER_S, self._task.cancel)

    def leave(self) -> None:
        """It has ended."""
        if self._end is not None:
            self._end.cancel()


class Sessions:
    """Those of a node."""

    def __init__(self) -> None:
        self._current: dict[Hashable, Session] = {}

    @asynccontextmanager
    async def enter(self, key: Hashable, *, preserve: bool = False) -> AsyncIterator[Session]:
        """Be the session of `key` until the block is left, which is soon after one's hang_up() is called. Raises SessionInUse."""
        previous = self._current.get(key)
        if preserve and previous is not None:
            raise SessionInUse("Somebody is connected.")
        mine = Session(asyncio.current_task())
        self._current[key] = mine
        if previous is not None:
            previous.displace()
        try:
            yield mine
        finally:
            mine.leave()
            if self._current.get(key) is mine:
                del self._current[key]
