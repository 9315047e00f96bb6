"""An event loop whose clock leaps over waiting: a minute of pauses takes milliseconds, in the right order.

When nothing is ready, the loop looks at its sockets for a moment of real time (both ends of them are in this process),
then moves its clock to the next timer. `jump()` moves the clock without running anything, as a machine that was asleep.
"""

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from typing import Any

# Long leaps are deadlines of calls: the answer may be on its way. Short ones are pauses.
_LONG_S = 1.0
_GRACE_S = {True: 0.05, False: 0.002}


class _LeapingSelector(selectors.DefaultSelector):
    loop: "VirtualTimeLoop"

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        # Only the loop's own self-pipe registered: there is no socket to wait for.
        grace_s = _GRACE_S[timeout > _LONG_S] if len(self.get_map()) > 1 else 0
        ready = super().select(min(timeout, grace_s))
        if not ready:
            self.loop.jump(timeout)
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Starts at 1000 s."""

    def __init__(self) -> None:
        self._now_s = 1000.0
        selector = _LeapingSelector()
        super().__init__(selector)
        selector.loop = self

    def time(self) -> float:
        return self._now_s

    def jump(self, by_s: float) -> None:
        """Move the clock forward."""
        self._now_s += by_s


def virtual_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test on a VirtualTimeLoop."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            runner.run(test(*args, **kwargs))

    return run


def jump(by_s: float) -> None:
    """Move the running virtual loop's clock forward at once, so that every timer in between is late."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    loop.jump(by_s)
