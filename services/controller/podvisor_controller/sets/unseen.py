"""What was done to the members of one set and the cache does not show yet. No I/O.

Invariant: an object is noted before it is asked for, and stays noted until the cache shows it or it is known not to exist: a request
without an answer is repeated under the same name, and one that was answered is never repeated.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Generic

from podvisor_controller.sets.claims import M


@dataclass(slots=True)
class Unseen(Generic[M]):
    """Creations by name, deletions by UID. `None` stands for a creation that was not answered."""

    made: dict[str, M | None] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    # Deletions that were asked for without an answer: the first to be asked for again.
    doubtful: set[str] = field(default_factory=set)

    @property
    def unanswered(self) -> list[str]:
        """The names under which something was asked for that may or may not exist."""
        return [name for name, obj in self.made.items() if obj is None]

    @property
    def answered(self) -> list[M]:
        """What exists, as far as this process knows, and is not in the cache."""
        return [obj for obj in self.made.values() if obj is not None]

    def settle(self, cached: Callable[[str], M | None], known: Iterable[M]) -> None:
        """Forget what the cache shows. `cached` looks up a name in it, `known` are the members that it has."""
        for name in [name for name in self.made if cached(name) is not None]:
            del self.made[name]
        if self.deleted or self.doubtful:
            remaining = {m.metadata.uid for m in known if not m.metadata.is_being_deleted}
            self.deleted &= remaining
            self.doubtful &= remaining

    def confirm(self, live: Iterable[M], cached: Callable[[str], M | None]) -> None:
        """Take over the complete list of members as the API server has them, read after all that was answered."""
        by_name = {obj.metadata.name: obj for obj in live}
        for obj in self.answered:
            if obj.metadata.name not in by_name:
                del self.made[obj.metadata.name]
        for name, obj in by_name.items():
            if cached(name) is None:
                self.made[name] = obj
