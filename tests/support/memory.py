"""What an object of a cache costs."""

import tracemalloc
from collections.abc import Callable

COPIES = 200


def cost_of_each(make: Callable[[], object]) -> float:
    """What each of many costs, in bytes: the least of three looks, since what the process does besides, and for the first time, is traced too."""
    return min(_look(make) for _ in range(3))


def _look(make: Callable[[], object]) -> float:
    kept = [make()]
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        kept += [make() for _ in range(COPIES)]
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return (after - before) / COPIES
