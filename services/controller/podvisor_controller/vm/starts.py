"""Which machines an instance is being asked for: so long nobody takes them for stopped.

Invariant: a machine counts as starting from before the API server is asked until its instance is in the cache, or none came.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from podvisor_common.kube.resources import ObjectKey


class Starts:
    """Knows them. `over` is called with the machine when its instance is there, or none came of it."""

    def __init__(self, over: Callable[[ObjectKey], None]) -> None:
        self._over = over
        self._asked_for: set[ObjectKey] = set()

    @contextmanager
    def asking_for(self, machine: ObjectKey) -> Iterator[None]:
        """An instance is being asked for. One worker at a time has a machine."""
        self._asked_for.add(machine)
        try:
            yield
        finally:
            self._asked_for.discard(machine)
            self._over(machine)

    def is_under_way(self, machine: ObjectKey) -> bool:
        """An instance is being asked for at this moment."""
        return machine in self._asked_for
