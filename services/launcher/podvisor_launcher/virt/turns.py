"""Whose turn it is, of those of whom only one can be served at a time.

Invariant: whoever is to go first waits for the one who is being served, and for nobody who came later or is not to go first.
"""

import asyncio
from collections import deque
from contextlib import suppress


class Turns:
    """Of one thing, in one event loop."""

    def __init__(self) -> None:
        self._is_taken = False
        self._first: deque[asyncio.Future[None]] = deque()
        self._last: deque[asyncio.Future[None]] = deque()

    @property
    def is_taken(self) -> bool:
        """Somebody is being served."""
        return self._is_taken

    async def take(self, *, goes_first: bool) -> None:
        """Wait for one's turn, which then lasts until give_back()."""
        if not self._is_taken:
            self._is_taken = True
            return
        waiting = self._first if goes_first else self._last
        turn = asyncio.get_running_loop().create_future()
        waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it has come meanwhile
                self.give_back()
            with suppress(ValueError):
                waiting.remove(turn)
            raise

    def give_back(self) -> None:
        """The turn is over: it is the next one's."""
        for waiting in (self._first, self._last):
            while waiting:
                turn = waiting.popleft()
                if not turn.done():
                    turn.set_result(None)
                    return
        self._is_taken = False
