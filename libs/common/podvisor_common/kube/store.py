"""An informer's cache with its indexes. No I/O, no waiting.

Invariant: the indexes always describe exactly the stored objects; a stale event never replaces a newer object.
"""

import builtins
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from podvisor_common.kube.resources import KubeObject, ObjectKey, key_of

T = TypeVar("T", bound=KubeObject)
Indexer = Callable[[T], Iterable[str]]


class Change(NamedTuple, Generic[T]):
    """What became of one key; `old` is None for a new object, `new` for one that is gone."""

    key: ObjectKey
    old: T | None
    new: T | None


@dataclass(slots=True)
class _Index(Generic[T]):
    values_of: Indexer[T]
    keys: dict[str, set[ObjectKey]] = field(default_factory=dict)

    def change(self, key: ObjectKey, old: T | None, new: T | None) -> None:
        """Take one object for another."""
        if old is not None:
            for value in self.values_of(old):
                self._discard(value, key)
        if new is not None:
            for value in self.values_of(new):
                self.keys.setdefault(value, set()).add(key)

    def _discard(self, value: str, key: ObjectKey) -> None:
        keys = self.keys.get(value)
        if keys is not None:
            keys.discard(key)
            if not keys:
                del self.keys[value]


class Store(Generic[T]):
    """Objects by key, and by the values that each indexer derives from them."""

    def __init__(self, indexers: Mapping[str, Indexer[T]]) -> None:
        self._objects: dict[ObjectKey, T] = {}
        self._indexes = {name: _Index(values_of) for name, values_of in indexers.items()}

    def __len__(self) -> int:
        return len(self._objects)

    def get(self, key: ObjectKey) -> T | None:
        return self._objects.get(key)

    def list(self) -> builtins.list[T]:
        return list(self._objects.values())

    def by_index(self, name: str, value: str) -> builtins.list[T]:
        """The objects for which indexer `name` gave `value`, in key order. KeyError for an unknown indexer."""
        keys = self._indexes[name].keys.get(value, ())
        return [self._objects[key] for key in sorted(keys)]

    def replace(self, objects: Iterable[T]) -> builtins.list[Change[T]]:
        """Take a complete list as the new content, in one step; the changes against the old one."""
        fresh = {key_of(obj): obj for obj in objects}
        changes: builtins.list[Change[T]] = [
            Change(key, old, None) for key, old in self._objects.items() if key not in fresh
        ]
        for key, new in fresh.items():
            known = self._objects.get(key)
            if known is None or not _same_version(known, new):
                changes.append(Change(key, known, new))
        self._objects = fresh
        for index in self._indexes.values():
            for change in changes:
                index.change(change.key, change.old, change.new)
        return changes

    def apply(self, obj: T) -> Change[T] | None:
        """Store a new or changed object; None when this or a newer version is already here."""
        key = key_of(obj)
        old = self._objects.get(key)
        if old is not None and (_same_version(old, obj) or _is_older(obj, old)):
            return None
        self._put(key, old, obj)
        return Change(key, old, obj)

    def delete(self, obj: T) -> Change[T] | None:
        """Forget an object in its last state; None when it is unknown or has been made anew since."""
        key = key_of(obj)
        old = self._objects.get(key)
        if old is None or _is_older(obj, old):
            return None
        self._put(key, old, None)
        return Change(key, old, None)

    def _put(self, key: ObjectKey, old: T | None, new: T | None) -> None:
        for index in self._indexes.values():
            index.change(key, old, new)
        if new is None:
            self._objects.pop(key, None)
        else:
            self._objects[key] = new


def _same_version(one: KubeObject, other: KubeObject) -> bool:
    return (
        one.metadata.resource_version == other.metadata.resource_version
        and one.metadata.uid == other.metadata.uid
    )


def _is_older(one: KubeObject, other: KubeObject) -> bool:
    return is_older_version(
        one.metadata.resource_version or "", other.metadata.resource_version or ""
    )


def is_older_version(one: str, other: str) -> bool:
    """Whether resource version `one` is before `other`; versions that are not numbers have no order."""
    return one.isdecimal() and other.isdecimal() and int(one) < int(other)
