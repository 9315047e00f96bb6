"""JSON patches of single volumes and disks. Pure.

Invariant: what stays is not written at all, so that it keeps every word of its author, and nobody's edit of it is undone. What goes
is tested to be what was seen, for a patch knows an element only by its place.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from podvisor_common.api import v1

from podvisor_controller.preconditions import operation_as_it_was_seen

Json = dict[str, Any]

TEMPLATE = ("spec", "template", "spec")
INSTANCE = ("spec",)
_DISKS = ("domain", "devices", "disks")


def edits_of(
    obj: Json,
    at: Sequence[str],
    volumes: Sequence[v1.Volume],
    disks: Sequence[v1.Disk],
    *,
    exactly: bool,
) -> list[Json]:
    """The patch that gives the specification at `at` these volumes and disks; empty where it has them.

    `obj` is as the API server has it. With `exactly` the patch conflicts with every other write, else only with one that moves what
    goes. A list that has to be made is only made where nobody wrote in between: another one might be there by then.
    """
    lists = ((("volumes",), volumes, v1.Volume), (_DISKS, disks, v1.Disk))
    edits: list[Json] = []
    is_exact = exactly
    for place, wanted, type_ in lists:
        path = (*at, *place)
        raw = _at(obj, path)
        if raw is not None:
            had = [msgspec.convert(element, type_) for element in raw]
            edits += _removals(path, raw, had, wanted)
            edits += [_addition(path, element) for element in wanted if element not in had]
        elif wanted:
            is_exact = True
            edits.append(_made(obj, path, msgspec.to_builtins(wanted)))
    if not edits:
        return []
    metadata = obj["metadata"]
    if is_exact:
        return [operation_as_it_was_seen(metadata["resourceVersion"]), *edits]
    return [{"op": "test", "path": "/metadata/uid", "value": metadata["uid"]}, *edits]


def _removals(
    path: Sequence[str], raw: Sequence[Any], had: Sequence[Any], wanted: Sequence[Any]
) -> list[Json]:
    """From the last to the first: those before one that goes keep their places."""
    found = []
    for index in reversed(range(len(had))):
        if had[index] not in wanted:
            place = _pointer([*path, str(index)])
            found.append({"op": "test", "path": place, "value": raw[index]})
            found.append({"op": "remove", "path": place})
    return found


def _addition(path: Sequence[str], element: Any) -> Json:
    return {"op": "add", "path": _pointer([*path, "-"]), "value": msgspec.to_builtins(element)}


def _made(obj: Json, path: Sequence[str], value: Any) -> Json:
    """The operation that makes what is missing on the way to a list, and the list."""
    missing = next(n for n in range(1, len(path) + 1) if _at(obj, path[:n]) is None)
    for name in reversed(path[missing:]):
        value = {name: value}
    return {"op": "add", "path": _pointer(path[:missing]), "value": value}


def _at(obj: Any, path: Sequence[str]) -> Any:
    """What stands at that path; None where nothing does."""
    for name in path:
        obj = obj.get(name) if isinstance(obj, dict) else None
    return obj


def _pointer(path: Sequence[str]) -> str:
    return "".join(f"/{name.replace('~', '~0').replace('/', '~1')}" for name in path)
