"""YAML text of plain data, for generated files only: block style, stable, every string quoted as JSON where needed."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_PLAIN = re.compile(r"[A-Za-z_./$][A-Za-z0-9_./$-]*")
_WORDS_YAML_TAKES_FOR_VALUES = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}


def to_yaml(document: Mapping[str, Any]) -> str:
    """One YAML document; keys keep their order."""
    return "\n".join(_mapping(document, 0)) + "\n"


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        plain = _PLAIN.fullmatch(value) and value.lower() not in _WORDS_YAML_TAKES_FOR_VALUES
        return value if plain else json.dumps(value, ensure_ascii=False)
    return json.dumps(value)


def _mapping(mapping: Mapping[str, Any], indent: int) -> Iterator[str]:
    for key, value in mapping.items():
        yield from _entry(f"{' ' * indent}{_scalar(key)}:", value, indent)


def _entry(head: str, value: Any, indent: int) -> Iterator[str]:
    if isinstance(value, Mapping) and value:
        yield head
        yield from _mapping(value, indent + 2)
    elif isinstance(value, Sequence) and not isinstance(value, str) and value:
        yield head
        yield from _sequence(value, indent)
    else:
        yield f"{head} {_scalar(value)}"


def _sequence(items: Sequence[Any], indent: int) -> Iterator[str]:
    """Items stand under their key without further indentation."""
    for item in items:
        if isinstance(item, Mapping) and item:
            first, *rest = _mapping(item, indent + 2)
            yield f"{' ' * indent}- {first.lstrip()}"
            yield from rest
        else:
            yield f"{' ' * indent}- {_scalar(item)}"
