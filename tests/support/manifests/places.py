"""The places of a manifest, as the schema of its kind knows them.

Invariant: pure but for reading the definitions of the chart once. A place is a path of keys and indexes; in a refusal it is
written as Kubernetes does, `spec.volumes[0].name`.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import yaml

from tests.support.cluster import ROOT

Json = dict[str, Any]
Place = tuple[str | int, ...]

OPAQUE = "x-kubernetes-preserve-unknown-fields"
EITHER = "x-kubernetes-int-or-string"
_DEFINITIONS = ROOT / "charts/podvisor/crds"
_NOTHING = object()


@dataclass(frozen=True, slots=True)
class Field:
    """A place under `spec`, and what the schema says of it."""

    place: Place
    schema: Json
    is_required: bool

    @property
    def is_opaque(self) -> bool:
        """The API has this field and podvisor does not serve it."""
        return "type" not in self.schema and bool(self.schema.get(OPAQUE))

    @property
    def is_quantity(self) -> bool:
        """An amount, as text or as an integer."""
        return bool(self.schema.get(EITHER))

    @property
    def types(self) -> frozenset[str]:
        """The JSON types that the schema lets through."""
        if self.is_quantity:
            return frozenset({"string", "integer"})
        nullable = {"null"} if self.schema.get("nullable") else set()
        return frozenset({str(self.schema["type"]), *nullable})


def written(place: Place) -> str:
    """The place as refusals name it."""
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in place)
    return text.removeprefix(".")


@cache
def schema_of(kind: str, version: str) -> Json:
    """The schema of a kind in a version, from the definitions of the chart."""
    for path in sorted(_DEFINITIONS.glob("*.yaml")):
        definition = yaml.load(path.read_text(), yaml.CSafeLoader)
        if definition["spec"]["names"]["kind"] != kind:
            continue
        for served in definition["spec"]["versions"]:
            if served["name"] == version:
                schema: Json = served["schema"]["openAPIV3Schema"]
                return schema
    raise LookupError(f"no definition of {kind} in {version}")


def fields_of(manifest: Json) -> tuple[Field, ...]:
    """Every place that the schema knows under `spec`: in lists each item there is, or one that could be."""
    version = manifest["apiVersion"].rpartition("/")[2]
    spec = schema_of(manifest["kind"], version)["properties"]["spec"]
    return tuple(_fields(spec, manifest["spec"], ("spec",), is_required=True))


def _fields(schema: Json, value: Any, place: Place, *, is_required: bool) -> Iterator[Field]:
    yield Field(place, schema, is_required)
    required = schema.get("required", ())
    for name, below in schema.get("properties", {}).items():
        inner = value.get(name) if isinstance(value, dict) else None
        yield from _fields(below, inner, (*place, name), is_required=name in required)
    if "additionalProperties" in schema:
        for key in list(value or ()) or ["example"]:
            inner = value.get(key) if isinstance(value, dict) else None
            below = schema["additionalProperties"]
            yield from _fields(below, inner, (*place, key), is_required=False)
    if "items" in schema:
        for index, item in enumerate(value or [None]):
            yield from _fields(schema["items"], item, (*place, index), is_required=False)


def holds(manifest: Json, place: Place) -> bool:
    """The manifest has a value there."""
    return _at(manifest, place) is not _NOTHING


def value_at(manifest: Json, place: Place) -> Any:
    """The value there; None when there is none."""
    return _at(manifest, place) if holds(manifest, place) else None


def _at(value: Any, place: Place) -> Any:
    for key in place:
        try:
            value = value[key]
        except (LookupError, TypeError):
            return _NOTHING
    return value


def put(manifest: Json, place: Place, value: Any) -> None:
    """Set a place, in an object or in a list or next in it; objects that are missing on the way there are made."""
    *around, last = place
    target: Any = manifest
    for key in around:
        target = target.setdefault(key, {}) if isinstance(target, dict) else target[key]
    if isinstance(target, list) and last == len(target):
        target.append(copy.deepcopy(value))
    else:
        target[last] = copy.deepcopy(value)


def take(manifest: Json, place: Place) -> None:
    """Remove what stands there."""
    target: Any = value_at(manifest, place[:-1])
    del target[place[-1]]
