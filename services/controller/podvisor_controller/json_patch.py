"""JSON Patch (RFC 6902): operations that people wrote, read and applied to a JSON tree. Pure.

Invariant: the tree that is given is never changed. As in KubeVirt, `replace` may name a member that an object does not have. An
error names the operation and never what the tree, or the operation, holds.
"""

import copy
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

import msgspec
from podvisor_common.errors import Terminal

from podvisor_controller.webhooks.defaults_patch import pointer
from podvisor_controller.webhooks.nesting import MOST_LEVELS, decode_bounded, deep_place

# Copies of copies double: what all copies of one patch may come to.
MOST_COPIED_BYTES = 1 << 20
_NAMES = ("add", "remove", "replace", "move", "copy", "test")
_TWO_PLACES = ("move", "copy")


class PatchError(Terminal):
    """The operation of that position cannot be read, or cannot be applied. `text` says why, for a person."""

    def __init__(self, index: int, text: str) -> None:
        super().__init__(f"operation {index}: {text}")
        self.index = index
        self.text = text


class Operation(msgspec.Struct, frozen=True, omit_defaults=True, rename={"from_": "from"}):
    """One operation. Paths are JSON Pointers (RFC 6901)."""

    op: str
    path: str
    from_: str | None = None
    value: Any = msgspec.UNSET

    @property
    def places(self) -> list[str]:
        """The paths of all that the operation changes."""
        return [self.path, self.from_] if self.op == "move" and self.from_ else [self.path]


_decode = msgspec.json.Decoder(Operation).decode


def parse(texts: Sequence[str]) -> list[Operation]:
    """The operations, each of which is a text of JSON. PatchError for the first that is none."""
    return [_parsed(index, text) for index, text in enumerate(texts)]


def confine(operations: Sequence[Operation], places: Sequence[str]) -> None:
    """PatchError for the first operation that changes something else than what lies below one of these paths."""
    for index, operation in enumerate(operations):
        if not all(place.startswith(tuple(places)) for place in operation.places):
            listed = ", ".join(places[:-1]) + f" or {places[-1]}"
            raise PatchError(index, f"patching is valid only for elements under {listed}")


def text_of(op: str, path: Sequence[str | int], value: Any = msgspec.UNSET) -> str:
    """The text of an operation on the place of that path."""
    operation = Operation(op=op, path=_path(path), value=value)
    return msgspec.json.encode(operation).decode()


def applied(tree: Mapping[str, Any], operations: Sequence[Operation]) -> dict[str, Any]:
    """The tree with all operations applied, in order. PatchError for the first that cannot be."""
    result: Any = copy.deepcopy(dict(tree))
    copied = 0
    for index, operation in enumerate(operations):
        value = operation.value
        if operation.op in _TWO_PLACES:
            value = copy.deepcopy(_found(result, operation.from_ or "", index))
            copied += len(msgspec.json.encode(value))
            if copied > MOST_COPIED_BYTES:
                raise PatchError(index, f"copies more than {MOST_COPIED_BYTES} bytes")
            if operation.op == "move":
                _change(result, operation.from_ or "", "remove", None, index)
        if operation.op == "test":
            if _found(result, operation.path, index) != value:
                raise PatchError(index, "the test does not hold")
            continue
        name = "add" if operation.op in _TWO_PLACES else operation.op
        _change(result, operation.path, name, copy.deepcopy(value), index)
    checked: dict[str, Any] = result
    return checked


def _parsed(index: int, text: str) -> Operation:
    try:
        operation = decode_bounded(_decode, text.encode())
    except (msgspec.DecodeError, UnicodeEncodeError):
        raise PatchError(index, "is no operation of JSON Patch (RFC 6902)") from None
    if operation.op not in _NAMES:
        raise PatchError(index, f"op must be one of {', '.join(_NAMES)}")
    if not operation.path.startswith("/"):
        raise PatchError(index, "path must begin with a slash")
    if operation.op in _TWO_PLACES and not (operation.from_ or "").startswith("/"):
        raise PatchError(index, f"{operation.op} needs from, which begins with a slash")
    if operation.op in ("add", "replace", "test") and operation.value is msgspec.UNSET:
        raise PatchError(index, f"{operation.op} needs a value")
    if operation.value is not msgspec.UNSET and deep_place({"value": operation.value}) is not None:
        raise PatchError(index, f"holds values nested deeper than {MOST_LEVELS} levels")
    return operation


def _path(parts: Sequence[str | int]) -> str:
    return reduce(pointer, map(str, parts), "")


def _parts(path: str) -> list[str]:
    return [part.replace("~1", "/").replace("~0", "~") for part in path.split("/")[1:]]


def _found(tree: Any, path: str, index: int) -> Any:
    for part in _parts(path):
        if isinstance(tree, dict) and part in tree:
            tree = tree[part]
        elif isinstance(tree, list):
            tree = tree[_position(part, len(tree) - 1, index)]
        else:
            raise PatchError(index, "there is nothing at the path")
    return tree


def _change(tree: Any, path: str, name: str, value: Any, index: int) -> None:
    *above, last = _parts(path)
    parent = _found(tree, _path(above), index)
    if isinstance(parent, list):
        _change_list(parent, last, name, value, index)
    elif not isinstance(parent, dict):
        raise PatchError(index, "there is nothing that could have a member at the path")
    elif name != "remove":
        parent[last] = value
    elif parent.pop(last, msgspec.UNSET) is msgspec.UNSET:
        raise PatchError(index, "there is nothing at the path")


def _change_list(items: list[Any], last: str, name: str, value: Any, index: int) -> None:
    if name == "add":
        items.insert(
            len(items) if last == "-" else _position(last, len(items), index),
            value,
        )
        return
    position = _position(last, len(items) - 1, index)
    if name == "remove":
        del items[position]
    else:
        items[position] = value


def _position(part: str, most: int, index: int) -> int:
    """The position in a list that a part of a path names."""
    is_number = part.isascii() and part.isdigit() and (part == "0" or part[0] != "0")
    if not is_number or len(part) > len(str(most)) or int(part) > most:
        raise PatchError(index, "there is no such position in the list")
    return int(part)
