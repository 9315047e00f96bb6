"""What every check shares: the cause of a refusal, the forms names have, and the walk for fields not supported yet."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any

import msgspec
from msgspec import inspect as types
from podvisor_common.api.quantity import Quantity, QuantityError, parse_quantity
from podvisor_common.api.unsupported import UNSUPPORTED

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_MAX_SUBDOMAIN_LENGTH = 253
_MAX_QUOTED_LENGTH = 64
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_MAX_PATH_BYTES = 4095
LABEL_RULE = "must be at most 63 lower-case letters, digits or dashes, and start and end with one of the first two"
FILE_PATH_RULE = (
    "must be an absolute path to a file without relative elements or control characters"
)


class CauseReason(StrEnum):
    """Kubernetes' names for what can be wrong with a field."""

    REQUIRED = "FieldValueRequired"
    INVALID = "FieldValueInvalid"
    DUPLICATE = "FieldValueDuplicate"
    NOT_FOUND = "FieldValueNotFound"
    NOT_SUPPORTED = "FieldValueNotSupported"


@dataclass(frozen=True, slots=True)
class Cause:
    """Why an object is refused: the path of the field, and a sentence that a person can act on."""

    field: str
    message: str
    reason: str = CauseReason.INVALID


@dataclass(frozen=True, slots=True)
class Undecodable(Cause):
    """The object is not even of the form that the API says, and was looked at no further."""


def invalid(field: str, text: str, reason: CauseReason = CauseReason.INVALID) -> Cause:
    """A cause whose message starts with the field's path."""
    return Cause(field, f"{field} {text}", reason)


def quoted(value: object) -> str:
    """A user's value for a message: in quotes, and cut when it is long."""
    text = str(value)
    return f"'{text}'" if len(text) <= _MAX_QUOTED_LENGTH else f"'{text[:_MAX_QUOTED_LENGTH]}…'"


def is_dns_label(text: str) -> bool:
    """A DNS-1123 label: at most 63 lower-case letters, digits and inner dashes."""
    return _LABEL.fullmatch(text) is not None


def is_dns_subdomain(text: str) -> bool:
    """DNS-1123 labels joined by dots, at most 253 characters."""
    return len(text) <= _MAX_SUBDOMAIN_LENGTH and _SUBDOMAIN.fullmatch(text) is not None


def is_label_key(text: str) -> bool:
    """A qualified name: at most 63 letters, digits, dashes, dots and underscores, after a domain and a slash or alone."""
    prefix, slash, name = text.rpartition("/")
    return _LABEL_NAME.fullmatch(name) is not None and (not slash or is_dns_subdomain(prefix))


def is_label_value(text: str) -> bool:
    """Empty, or at most 63 letters, digits, dashes, dots and underscores."""
    return not text or _LABEL_NAME.fullmatch(text) is not None


def is_file_path(text: str) -> bool:
    """An absolute path that can be one of a file, and leads nowhere but down."""
    return (
        text.startswith("/")
        and not any(part in ("", ".", "..") for part in text.split("/")[1:])
        and not has_control(text)
        and len(text.encode()) <= _MAX_PATH_BYTES
    )


def has_control(text: str) -> bool:
    """There are control characters in it."""
    return _CONTROL.search(text) is not None


def object_name_causes(name: str, field: str, kind: str) -> Iterator[Cause]:
    """Why no object of a kind has that name."""
    if not name:
        yield invalid(field, f"is empty: it must name a {kind}.", CauseReason.REQUIRED)
    elif not is_dns_subdomain(name):
        yield invalid(field, f"{quoted(name)} is not the name of a {kind}.")


def word_causes(value: str, field: str, allowed: Sequence[str]) -> Iterator[Cause]:
    """A value that is none of those there are. Empty is not given."""
    if value and value not in allowed:
        text = f"{quoted(value)} must be one of: {', '.join(allowed)}"
        yield invalid(field, text, CauseReason.NOT_SUPPORTED)


def raw_at(raw: object, *path: str | int) -> dict[str, object]:
    """The object at a path of keys and indexes, empty when there is none."""
    for key in path:
        if isinstance(raw, dict) and isinstance(key, str):
            raw = raw.get(key)
        elif isinstance(raw, list) and isinstance(key, int) and key < len(raw):
            raw = raw[key]
        else:
            return {}
    return raw if isinstance(raw, dict) else {}


def label_causes(labels: Mapping[str, str], field: str) -> Iterator[Cause]:
    """Why the pod would be refused that carries these labels, or selects by them."""
    for key, value in labels.items():
        if not is_label_key(key):
            yield invalid(field, f"holds {quoted(key)}, which is not the key of a label.")
        elif not is_label_value(value):
            yield invalid(
                field, f"holds {quoted(value)} for {key}, which is not the value of a label."
            )


def bad_quantity(field: str, value: Quantity) -> Cause | None:
    """The cause when the value is no quantity or is negative."""
    try:
        amount = parse_quantity(value)
    except QuantityError as error:
        return invalid(field, str(error))
    if amount < 0:
        return invalid(field, f"{quoted(value)}: must be greater than or equal to 0.")
    return None


def unsupported(raw: Any, struct: type[msgspec.Struct], path: str) -> Iterator[Cause]:
    """A cause for each field in use that the API knows and podvisor does not implement yet."""
    for at, kind, obj in _objects(raw, struct, path):
        for name in UNSUPPORTED.get(kind, ()):
            if asks_for_something(obj.get(name)):
                yield invalid(f"{at}.{name}", "is not supported yet", CauseReason.NOT_SUPPORTED)


def unknown(raw: Any, struct: type[msgspec.Struct], path: str) -> Iterator[Cause]:
    """A cause for each field in use that the API does not know at all."""
    for at, kind, obj in _objects(raw, struct, path):
        known = {name for name, _ in _served(kind)} | {*UNSUPPORTED.get(kind, ())}
        for name, value in obj.items():
            if name not in known and asks_for_something(value):
                yield invalid(f"{at}.{name}", "is not a field", CauseReason.NOT_SUPPORTED)


Place = tuple[str, type[msgspec.Struct], Mapping[str, Any]]


def _objects(raw: Any, struct: type[msgspec.Struct], path: str) -> Iterator[Place]:
    """An object and all that stand in it in fields of the API, with their paths and types."""
    if not isinstance(raw, Mapping):
        return
    yield path, struct, raw
    for name, kind in _served(struct):
        if name in raw:
            yield from _in_value(raw[name], kind, f"{path}.{name}")


@cache
def _served(struct: type[msgspec.Struct]) -> tuple[tuple[str, types.Type], ...]:
    """JSON names and types of a struct's fields. To look at types takes far longer than to look at an object."""
    fields = msgspec.structs.fields(struct)
    return tuple((field.encode_name, types.type_info(field.type)) for field in fields)


def asks_for_something(value: Any) -> bool:
    """A value that is not the same as leaving the field out: an empty object is a request, an empty list is none."""
    return value is not None and value is not False and value not in ("", [])


def _in_value(value: Any, kind: types.Type, path: str) -> Iterator[Place]:
    if isinstance(kind, types.Metadata):
        yield from _in_value(value, kind.type, path)
    elif isinstance(kind, types.UnionType):
        for member in kind.types:
            if isinstance(member, types.StructType | types.ListType):
                yield from _in_value(value, member, path)
    elif isinstance(kind, types.ListType) and isinstance(value, list):
        for index, item in enumerate(value):
            yield from _in_value(item, kind.item_type, f"{path}[{index}]")
    elif isinstance(kind, types.StructType):
        yield from _objects(value, kind.cls, path)
