"""Work that blocks, or changes what its thread is: a thread that does one thing and ends.

Unlike those of a pool, such a thread holds up no other work, and not the end of the process.
"""

import asyncio
import errno
import threading
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")


class NoThread(OSError):
    """There are too many threads, of this process or of its control group. What was to be done has not begun."""


async def in_own_thread(work: Callable[[], _T], *, name: str) -> _T:
    """The result of `work()`, run in a new thread that ends with it.

    Cancelling the caller does not stop `work`, which must bound itself. Raises NoThread and what `work` does.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[_T] = loop.create_future()

    def settle(result: _T | None, error: BaseException | None) -> None:
        if outcome.done():
            return
        if error is not None:
            outcome.set_exception(error)
        else:
            outcome.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        try:
            result = work()
        except BaseException as error:
            report(None, error)
        else:
            report(result, None)

    def report(result: _T | None, error: BaseException | None) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, result, error)

    try:
        threading.Thread(target=run, name=name, daemon=True).start()
    except RuntimeError as error:  # all that Python says of it
        raise NoThread(errno.EAGAIN, "there is no thread to be had") from error
    return await outcome
