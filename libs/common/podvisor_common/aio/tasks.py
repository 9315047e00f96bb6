"""Tasks with a name and an owner, and the life of a service process.

Invariant: a task is always a child of a TaskGroup or awaited by whoever started it; nothing is started and forgotten.
"""

import asyncio
import gc
import signal
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import structlog

_T = TypeVar("_T")
_log = structlog.get_logger(__name__)

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def spawn(
    group: asyncio.TaskGroup, coro: Coroutine[Any, Any, _T], *, name: str
) -> asyncio.Task[_T]:
    """Start `coro` as a named child of `group`, which awaits it and fails with it."""
    return group.create_task(coro, name=name)


def run_service(main: Callable[[asyncio.Event], Awaitable[None]]) -> int:
    """Run `main(stop)` to its end and return the exit code of the process.

    The first SIGTERM or SIGINT sets `stop`; a second one cancels `main`. 0: main returned or was cancelled that way;
    1: it raised, which is logged here and nowhere else. What exists by now, the imported modules, is kept out of garbage
    collections: going through it would stop the loop for tens of milliseconds each time, and finds nothing.
    """
    gc.freeze()
    try:
        asyncio.run(_supervise(main))
    except asyncio.CancelledError:
        return 0
    except Exception:
        _log.exception("service failed")
        return 1
    return 0


async def _supervise(main: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    task = asyncio.current_task()
    assert task is not None

    def on_signal(number: signal.Signals) -> None:
        if stop.is_set():
            _log.warning("second stop signal, cancelling", signal=number.name)
            task.cancel()
            return
        _log.info("stopping", signal=number.name)
        stop.set()

    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, on_signal, number)
    try:
        await main(stop)
    finally:
        for number in STOP_SIGNALS:
            loop.remove_signal_handler(number)
