"""Volumes that may stop to answer, kept apart: who waits for one touches no other.

Invariants: there is one piece of work at a time for each volume, and a bounded number in all; nobody waits for longer than was said.
Nothing can stop a thread that waits for a dead server: its work goes on when nobody waits any more, and until it is over its
volume is left alone.
"""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

import structlog
from podvisor_common.aio.threads import in_own_thread

from podvisor_launcher.storage.errors import DiskUnavailable

_T = TypeVar("_T")
_log = structlog.stdlib.get_logger(__name__)

_MOST = 64  # volumes at a time; each is a thread, or a qemu-img


class VolumeHangs(DiskUnavailable):
    """Work on the volume takes longer than anybody waits. It goes on, and is worth asking for again."""

    reason = "VolumeHangs"


class Bulkheads:
    """The volumes of one machine, by name."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._under_way: dict[str, asyncio.Task[Any]] = {}
        self._hanging: set[str] = set()

    async def run(
        self, volume: str, work: Callable[[], Coroutine[Any, Any, _T]], timeout_s: float
    ) -> _T:
        """The outcome of `work`, which must wait for the volume in threads alone. Raises what it raises, and VolumeHangs; at once
        while earlier work on the volume goes on."""
        if volume in self._under_way or len(self._under_way) >= self._most:
            raise _hangs(volume)
        task = asyncio.create_task(work(), name=f"volume {volume}")
        self._under_way[volume] = task
        task.add_done_callback(partial(self._over, volume))
        # Waited for, not awaited: it goes on when nobody waits any more.
        await asyncio.wait({task}, timeout=timeout_s)
        if not task.done():
            self._hanging.add(volume)
            _log.warning("a volume does not answer", volume=volume, hanging=len(self._hanging))
            raise _hangs(volume)
        return task.result()

    async def run_in_thread(self, volume: str, work: Callable[[], _T], timeout_s: float) -> _T:
        """The same for work that blocks."""
        named = partial(in_own_thread, work, name=f"volume {volume}")
        return await self.run(volume, named, timeout_s)

    def _over(self, volume: str, task: asyncio.Task[Any]) -> None:
        del self._under_way[volume]
        if not task.cancelled():
            task.exception()  # what nobody waits for is no news
        if volume in self._hanging:
            self._hanging.remove(volume)
            _log.info("a volume answers again", volume=volume, hanging=len(self._hanging))


def _hangs(volume: str) -> VolumeHangs:
    return VolumeHangs(f'Volume "{volume}": its file system does not answer.')


async def in_volume_thread(work: Callable[..., _T], *arguments: object) -> _T:
    """For the steps of work on a volume that block: no pool's threads are used up by those that hang."""
    return await in_own_thread(partial(work, *arguments), name="volume")
