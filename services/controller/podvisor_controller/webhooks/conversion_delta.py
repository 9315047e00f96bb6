"""The difference between two JSON trees as a list of edits that survives edits of the first tree.

Invariant: apply_edits(base, edits_between(base, full)) equals full. Lists whose items carry unique names are walked by
name, not by position, so edits still fit when items were added to or taken from the base meanwhile; an edit whose item
is gone is dropped.
"""

import copy
from collections.abc import Iterator, Sequence
from typing import Any

# [path, value] sets, [path] removes; a path is a list of keys and, inside named lists, names.
Edit = list[Any]


def edits_between(base: Any, full: Any) -> list[Edit]:
    """The edits that turn `base` into `full`."""
    return list(_edits(base, full, []))


def apply_edits(base: Any, edits: Sequence[Edit]) -> Any:
    """A copy of `base` with the edits made. Edits of the wrong shape are ignored: they come from an annotation."""
    result = copy.deepcopy(base)
    for edit in edits:
        if _is_edit(edit):
            result = _apply(result, edit)
    return result


def _edits(base: Any, full: Any, path: list[str]) -> Iterator[Edit]:
    if _same(base, full):
        return
    if isinstance(base, dict) and isinstance(full, dict):
        for key in base.keys() - full.keys():
            yield [[*path, key]]
        for key, value in full.items():
            if key in base:
                yield from _edits(base[key], value, [*path, key])
            else:
                yield [[*path, key], value]
        return
    base_names, full_names = item_names(base), item_names(full)
    if base_names is not None and base_names == full_names:
        for name, old, new in zip(base_names, base, full, strict=True):
            yield from _edits(old, new, [*path, name])
        return
    yield [path, full]


def item_names(value: Any) -> list[str] | None:
    """The names of a list's items, None unless every item has one and all differ."""
    if not isinstance(value, list):
        return None
    names = [item.get("name") if isinstance(item, dict) else None for item in value]
    if not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
        return None
    return [name for name in names if name is not None]


def _same(left: Any, right: Any) -> bool:
    """Equal as JSON: 1, 1.0 and true differ."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(_same(left[k], right[k]) for k in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(_same, left, right))
    return bool(left == right)


def _is_edit(edit: Any) -> bool:
    return (
        isinstance(edit, list)
        and len(edit) in (1, 2)
        and isinstance(edit[0], list)
        and all(isinstance(key, str) for key in edit[0])
    )


def _apply(root: Any, edit: Edit) -> Any:
    path = edit[0]
    if not path:
        return copy.deepcopy(edit[1]) if len(edit) == 2 else root
    parent = root
    for key in path[:-1]:
        parent = _step_into(parent, key, create=len(edit) == 2)
    _change(parent, path[-1], edit)
    return root


def _step_into(parent: Any, key: str, *, create: bool) -> Any:
    """The child to go on with; None when there is none and none can be made."""
    if isinstance(parent, dict):
        if key not in parent and create:
            parent[key] = {}
        return parent.get(key)
    if isinstance(parent, list):
        return next((i for i in parent if isinstance(i, dict) and i.get("name") == key), None)
    return None


def _change(parent: Any, key: str, edit: Edit) -> None:
    if not isinstance(parent, dict):
        return
    if len(edit) == 2:
        parent[key] = copy.deepcopy(edit[1])
    else:
        parent.pop(key, None)
