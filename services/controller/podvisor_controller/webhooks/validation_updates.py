"""What of an update is looked at: no object becomes impossible to edit because the rules have become stricter since it was admitted. Pure.

Invariant: what an object had before, in a field that stays as it is, refuses no update. Whatever is new is refused as it would be of a
new object. Kubernetes calls that ratcheting, and does the same with the schemas of custom resources.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from podvisor_controller.webhooks.validation_fields import Cause, CauseReason, Undecodable

Raw = Mapping[str, Any]

_STEP = re.compile(r"\[(\d+)\]|([^.\[\]]+)")
_INDEX = re.compile(r"\[\d+\]")


def update_causes(obj: Raw, old: Raw, causes_of: Callable[[Raw], list[Cause]]) -> list[Cause]:
    """Why `obj` may not take the place of `old`, given what is wrong with an object by itself.

    One that is being deleted is let go: nothing is made of it any more, and its finalizers have to come off.
    """
    if is_unchanged(obj, old) or _is_being_deleted(obj):
        return []
    causes = causes_of(obj)
    return new_causes(causes, causes_of(old), obj, old) if causes else []


def is_unchanged(obj: Raw, old: Raw) -> bool:
    """What the object shall be stays as it is."""
    return bool(obj.get("spec") == old.get("spec"))


def immutable_causes(obj: Raw, old: Raw) -> list[Cause]:
    """Why `obj` may not take the place of `old`, where what an object shall be is said once and for all."""
    text = "spec is immutable after creation"
    return [] if is_unchanged(obj, old) else [Cause("spec", text, CauseReason.NOT_SUPPORTED)]


def new_causes(causes: Iterable[Cause], known: Iterable[Cause], obj: Raw, old: Raw) -> list[Cause]:
    """Those of `causes`, what is wrong with `obj`, that are not among `known`, what was wrong with `old`.

    One that does not decode is refused all the same: nobody knows what else is wrong with it.
    """
    before = {_identity(cause, old) for cause in known}
    return [
        cause
        for cause in causes
        if isinstance(cause, Undecodable) or _identity(cause, obj) not in before
    ]


def _is_being_deleted(obj: Raw) -> bool:
    metadata = obj.get("metadata")
    return isinstance(metadata, Mapping) and metadata.get("deletionTimestamp") is not None


def _identity(cause: Cause, obj: Raw) -> tuple[object, ...]:
    """Equal for a cause before and after: the place by the names of elements, which may move up in their lists; the words without
    places; and the value, where it is none that holds others: of those the words tell which one is wrong.
    """
    place: list[object] = []
    value: Any = obj
    for index, key in _STEP.findall(cause.field):
        if index:
            value = (
                value[int(index)] if isinstance(value, list) and int(index) < len(value) else None
            )
            name = value.get("name") if isinstance(value, Mapping) else None
            place.append(index if name is None else (name,))
        else:
            value = value.get(key) if isinstance(value, Mapping) else None
            place.append(key)
    words = _INDEX.sub("[]", cause.message.replace(cause.field, ""))
    holds_others = isinstance(value, Mapping | list)
    return (str(place), words, cause.reason, b"" if holds_others else msgspec.json.encode(value))
