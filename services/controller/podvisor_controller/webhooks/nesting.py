"""JSON that nests deeper than anything the API has: made harmless before it is decoded, and found in what was decoded.

Invariant: pure, and nothing here recurses. What is cut off here is refused afterwards: the cut is far below the deepest
place that is admitted.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

Decoded = TypeVar("Decoded")

# The API's own types, with the metadata that the API server adds, have less than half of this.
MOST_LEVELS = 64
_CUT_BELOW = 2 * MOST_LEVELS
# So much of the path of a place is enough to find it.
_KEYS_SHOWN = 8
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.?)*+(?:"|\Z)|[\[\]{}]', re.DOTALL)


def decode_bounded(decode: Callable[[bytes], Decoded], text: bytes) -> Decoded:
    """What `decode` makes of a JSON text; of one too deep for it, with null for what lies too deep."""
    try:
        return decode(text)
    except RecursionError:
        return decode(cut(text))


def deep_place(obj: Any) -> str | None:
    """The path of an object or a list that lies too deep, or as much of it as is worth showing; None when there is none.

    What the API server notes in `metadata.managedFields` repeats the paths of the other fields, and is not looked at.
    """
    level: list[tuple[tuple[str, ...], Any]] = [((), _without_managed_fields(obj))]
    for _ in range(MOST_LEVELS):
        level = [
            ((*path, key) if len(path) < _KEYS_SHOWN else path, child)
            for path, value in level
            for key, child in _children(value)
            if isinstance(child, dict | list)
        ]
    return "".join(level[0][0]).removeprefix(".") if level else None


def _without_managed_fields(obj: Any) -> Any:
    metadata = obj.get("metadata") if isinstance(obj, dict) else None
    if not isinstance(metadata, dict):
        return obj
    return obj | {"metadata": {k: v for k, v in metadata.items() if k != "managedFields"}}


def _children(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        yield from ((f".{key}", child) for key, child in value.items())
    else:
        yield from ((f"[{index}]", child) for index, child in enumerate(value))


def cut(text: bytes) -> bytes:
    """The text with null in place of each object and list that lies below the cut."""
    kept: list[bytes] = []
    depth, start = 0, 0
    for token in _TOKEN.finditer(text):
        if token[0] in (b"{", b"["):
            if depth == _CUT_BELOW:
                kept += [text[start : token.start()], b"null"]
            depth += 1
        elif token[0] in (b"}", b"]"):
            depth -= 1
            if depth == _CUT_BELOW:
                start = token.end()
    kept.append(text[start:] if depth <= _CUT_BELOW else b"")
    return b"".join(kept)
