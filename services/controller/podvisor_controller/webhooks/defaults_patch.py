"""RFC 6902 patches from a JSON tree before and after. Pure; knows nothing of what the trees mean."""

from collections.abc import Iterator
from typing import Any

Operation = dict[str, Any]


def patch_between(before: Any, after: Any, path: str = "") -> list[Operation]:
    """The operations that turn `before` into `after`, as few and as deep in the tree as is simple."""
    return list(_operations(before, after, path))


def _operations(before: Any, after: Any, path: str) -> Iterator[Operation]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in before.keys() - after.keys():
            yield {"op": "remove", "path": pointer(path, key)}
        for key, value in after.items():
            if key in before:
                yield from _operations(before[key], value, pointer(path, key))
            else:
                yield {"op": "add", "path": pointer(path, key), "value": value}
    elif isinstance(before, list) and isinstance(after, list) and len(before) <= len(after):
        for index, old in enumerate(before):
            yield from _operations(old, after[index], f"{path}/{index}")
        for value in after[len(before) :]:
            yield {"op": "add", "path": f"{path}/-", "value": value}
    elif before != after:
        yield {"op": "replace", "path": path, "value": after}


def pointer(path: str, key: str) -> str:
    """The JSON Pointer (RFC 6901) of a member of what is at `path`."""
    return f"{path}/{key.replace('~', '~0').replace('/', '~1')}"
