"""Many writes of one kind, some at a time.

Invariant: never more than PARALLEL_WRITES at once; unless told to go on, no other batch is begun after one in which a write failed.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from podvisor_common.aio.tasks import spawn
from podvisor_common.kube.errors import ApiError

PARALLEL_WRITES = 16

T = TypeVar("T")


async def in_batches(
    items: Sequence[T],
    act: Callable[[T], Awaitable[None]],
    *,
    first: int = 1,
    goes_on: bool = False,
) -> list[ApiError]:
    """Do `act` for each item, in batches of `first` and then of twice as many as before; what the API server refused.

    The slow start keeps one cause, such as an exhausted quota, from being refused for every item. Where each item may have a cause
    of its own, the rest `goes_on`.
    """
    errors: list[ApiError] = []

    async def one(item: T) -> None:
        try:
            await act(item)
        except ApiError as error:
            errors.append(error)

    begun, size = 0, min(first, PARALLEL_WRITES)
    while begun < len(items) and (goes_on or not errors):
        batch = items[begun : begun + size]
        async with asyncio.TaskGroup() as group:
            for number, item in enumerate(batch, start=begun):
                spawn(group, one(item), name=f"write-{number}")
        begun += len(batch)
        size = min(2 * size, PARALLEL_WRITES)
    return errors
