"""Which objects are a set's: those it manages, those it may take and those it has to let go. Pure.

Invariant: what somebody else manages is never touched, and what is on its way out is neither taken nor let go.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import msgspec
from podvisor_common.api import v1
from podvisor_common.api.meta import ObjectMeta

from podvisor_controller.preconditions import as_it_was_seen
from podvisor_controller.sets.selectors import matches


class Member(Protocol):
    """An object that a set can manage."""

    @property
    def metadata(self) -> ObjectMeta: ...


M = TypeVar("M", bound=Member)


CLAIM_INDEX = "claim"


def claimable(kind: str) -> Callable[[Member], list[str]]:
    """An indexer of what sets of that kind may claim: what one of them manages, and what nobody does."""

    def keys(obj: Member) -> list[str]:
        namespace, owner = obj.metadata.namespace, obj.metadata.controller_reference()
        if owner is None:
            return [managed_by(namespace, "")]
        return [managed_by(namespace, owner.uid)] if owner.kind == kind else []

    return keys


def managed_by(namespace: str, uid: str) -> str:
    """What the objects of a set are indexed by, those of nobody under no UID. In its namespace: elsewhere anybody may write its UID."""
    return f"{namespace}/{uid}"


@dataclass(frozen=True, slots=True)
class Claims(Generic[M]):
    """The objects of a namespace as one set sees them. Each is in one of the lists, or does not concern the set."""

    own: tuple[M, ...]
    orphans: tuple[M, ...]  # to be adopted
    strays: tuple[
        M, ...
    ]  # to be released: the set manages them, and its selector does not select them


def claim(objects: Iterable[M], uid: str, selector: v1.LabelSelector) -> Claims[M]:
    """Sort out the objects for the set of that UID."""
    own: list[M] = []
    orphans: list[M] = []
    strays: list[M] = []
    for obj in objects:
        owner = obj.metadata.controller_reference()
        is_selected = matches(selector, obj.metadata.labels)
        if owner is None:
            if is_selected and not obj.metadata.is_being_deleted:
                orphans.append(obj)
        elif owner.uid == uid:
            is_own = is_selected or obj.metadata.is_being_deleted
            (own if is_own else strays).append(obj)
    return Claims(tuple(own), tuple(orphans), tuple(strays))


def adoption(metadata: ObjectMeta, reference: Mapping[str, Any]) -> dict[str, Any]:
    """The merge patch by which an object, only as it was seen, gets an owner that manages it."""
    others = [msgspec.to_builtins(owner) for owner in metadata.owner_references or ()]
    return _owned_by(metadata, [*others, dict(reference)])


def release(metadata: ObjectMeta, uid: str) -> dict[str, Any]:
    """The merge patch by which an object, only as it was seen, loses the owner of that UID."""
    others = [
        msgspec.to_builtins(owner) for owner in metadata.owner_references or () if owner.uid != uid
    ]
    return _owned_by(metadata, others)


def _owned_by(metadata: ObjectMeta, owners: list[dict[str, Any]]) -> dict[str, Any]:
    return {"metadata": as_it_was_seen(metadata) | {"ownerReferences": owners}}
