"""Multus' annotation of the networks that a pod asks for, read and written. Pure.

Invariant: what is read and written again asks for the same networks under the same names: an entry that names no interface gets one by
its place, so that the order stays, and fields that mean nothing here stay as they are.
"""

import re
from collections.abc import Sequence
from typing import Any

import msgspec

# One network: name, and namespace, interface and more where they are given.
Selection = dict[str, Any]

_LABEL = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
# One network of the short form: namespace/name@interface.
_SHORT = re.compile(
    rf"(?:(?P<namespace>{_LABEL})\s*/)?(?P<name>{_LABEL})(?:\s*@\s*(?P<interface>{_LABEL}))?"
)


class UnreadableNetworks(ValueError):
    """The annotation is neither of the two forms; Multus makes no pod of it. The text says what is wrong."""


def read_networks(text: str) -> list[Selection]:
    """The networks of an annotation, in either form: JSON, or names after commas. UnreadableNetworks."""
    if not text.strip():
        return []
    is_json = any(character in text for character in '[{"')
    return _read_json(text) if is_json else _read_names(text)


def written_networks(selections: Sequence[Selection]) -> str:
    """The text of the annotation."""
    return msgspec.json.encode(selections).decode()


def _read_json(text: str) -> list[Selection]:
    try:
        found = msgspec.json.decode(text, type=list[Selection])
    except msgspec.DecodeError as error:
        raise UnreadableNetworks(f"it is no JSON list of networks ({error})") from error
    for selection in found:
        if not isinstance(selection.get("name"), str):
            raise UnreadableNetworks("it has an entry without a name")
    return found


def _read_names(text: str) -> list[Selection]:
    found = []
    for item in text.split(","):
        match = _SHORT.fullmatch(item.strip())
        if match is None:
            raise UnreadableNetworks(
                f'"{item.strip()}" is no network: it must be `name`, `namespace/name` or `namespace/name@interface`'
            )
        found.append({key: value for key, value in match.groupdict().items() if value})
    return found
