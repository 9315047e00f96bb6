"""Bounds how often somebody whom nobody vouches for makes the handler do something."""

import asyncio
import math
import time
from collections.abc import Callable


class Pace:
    """Lets `burst` turns through at once and `per_s` a second in the long run."""

    def __init__(
        self, burst: int, per_s: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._allowance_s = (burst - 1) / per_s
        self._interval_s = 1 / per_s
        self._clock = clock
        self._due_s = -math.inf

    async def turn(self) -> None:
        """Returns when it is the caller's turn."""
        await asyncio.sleep(max(0.0, self.next_turn_s()))

    def take_turn(self) -> bool:
        """Takes a turn if one is to be had now; whether it was."""
        now_s = self._clock()
        due_s = max(self._due_s, now_s - self._allowance_s)
        if due_s > now_s:
            return False
        self._due_s = due_s + self._interval_s
        return True

    def next_turn_s(self) -> float:
        """Takes a turn; how long it is away, in seconds, not positive when it is now."""
        now_s = self._clock()
        self._due_s = max(self._due_s, now_s - self._allowance_s)
        wait_s = self._due_s - now_s
        self._due_s += self._interval_s
        return wait_s
