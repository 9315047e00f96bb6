"""Who is connected to what a guest has one of: its serial console, its screen.

Invariant: one session for each; whoever comes next has it, unless they ask not to displace anybody.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from podvisor_common.errors import Terminal
from podvisor_common.rpc.errors import Aborted

_LEAVES_WITHIN_S = 5.0


class SessionInUse(Terminal):
    """Somebody is connected, and is to stay."""

    reason = "SessionInUse"


class SessionDisplaced(Aborted):
    """Somebody else has connected in place of this session."""

    reason = "SessionDisplaced"


@dataclass(eq=False, slots=True)
class Session:
    """One that is connected. `hang_up` is called when it has to end."""

    hang_up: Callable[[], None] = lambda: None
    is_displaced: bool = False
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def displace(self) -> None:
        """Make room for somebody else."""
        self.is_displaced = True
        self.hang_up()


class Sessions:
    """Those of a node."""

    def __init__(self) -> None:
        self._current: dict[Hashable, Session] = {}

    @asynccontextmanager
    async def enter(self, key: Hashable, *, preserve: bool = False) -> AsyncIterator[Session]:
        """Be the session of `key` until the block is left, which is soon after one's hang_up() is called. Raises SessionInUse, and
        SessionDisplaced where others come faster."""
        if preserve and key in self._current:
            raise SessionInUse("Somebody is connected.")
        mine, previous = Session(), self._current.get(key)
        self._current[key] = mine
        try:
            if previous is not None:
                previous.displace()
                async with asyncio.timeout(_LEAVES_WITHIN_S):
                    await previous.over.wait()
            if mine.is_displaced:
                raise SessionDisplaced("Somebody else has connected.")
            yield mine
        except TimeoutError as error:
            raise SessionInUse("Whoever is connected does not leave.") from error
        finally:
            mine.over.set()
            if self._current.get(key) is mine:
                del self._current[key]
