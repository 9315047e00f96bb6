"""The least that has to be written for a status to be as it is wanted. Pure.

Invariant: conditions differ when a reader would see it, in type, status, reason or message: never by when somebody looked.
"""

from typing import Any, Protocol, TypeVar

import msgspec
from podvisor_common.api.meta import Condition


class Status(Protocol):
    """A status that one controller writes whole."""

    @property
    def conditions(self) -> list[Condition] | None: ...


S = TypeVar("S", bound=Status)


def patch_of(current: S, wanted: S) -> dict[str, Any]:
    """The least merge patch from `current` to `wanted`; empty when a reader would see no difference."""
    patch = changes(current, wanted)
    if _same_conditions(current.conditions or [], wanted.conditions or []):
        patch.pop("conditions", None)
    return patch


def changes(current: object, wanted: object) -> dict[str, Any]:
    """The least merge patch from one status without conditions to another of its type."""
    have: dict[str, Any] = msgspec.to_builtins(current)
    want: dict[str, Any] = msgspec.to_builtins(wanted)
    patch = {key: value for key, value in want.items() if have.get(key) != value}
    return patch | {key: None for key in have if key not in want}


def _same_conditions(one: list[Condition], other: list[Condition]) -> bool:
    def facts(conditions: list[Condition]) -> set[tuple[str, str, str, str]]:
        return {(c.type, c.status, c.reason, c.message) for c in conditions}

    return facts(one) == facts(other)
