"""Bad manifests: good ones with one to three things wrong, each of which is enough for a refusal.

Invariant: what comes out depends on the draws alone. `places` says where the faults are; a refusal that helps names one of
them, an object around it, or something in it.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from hypothesis import HealthCheck, Phase, assume, given, seed, settings
from hypothesis import strategies as st

from tests.support.manifests import bad_values
from tests.support.manifests.contradictions import CONTRADICTIONS, place
from tests.support.manifests.good import Good, good_manifests
from tests.support.manifests.places import (
    Field,
    Json,
    Place,
    fields_of,
    holds,
    put,
    take,
    value_at,
    written,
)

Draw = st.DrawFn

_WRONG: dict[str, tuple[Any, ...]] = {
    "string": ("text", ""),
    "integer": (7, 0, -1),
    "number": (1.5,),
    "boolean": (True, False),
    "object": ({"a": 1}, {}),
    "array": (["x"], [], [[]]),
    "null": (None,),
}
# What admission fills in when it is missing or null, so that no refusal follows.
_FILLED = frozenset(
    {"architecture", "bus", "cpu", "devices", "disk", "disks", "firmware", "guest", "imagePullPolicy", "interfaces",
     "machine", "memory", "model", "networks", "readonly", "requests", "resources", "serial", "tray", "type", "uuid"}
)  # fmt: skip
_DEEPEST = 150


@dataclass(frozen=True, slots=True)
class BadManifest:
    """What a client sends, what is wrong with it in words, and where."""

    good: Good = field(repr=False)
    manifest: Json
    faults: tuple[str, ...]
    places: tuple[str, ...]

    def is_named_by(self, field: str) -> bool:
        """The field of a refusal leads to one of the faults; `spec` alone leads nowhere."""
        return field != "spec" and any(
            _leads(field, place) or _leads(place, field) for place in self.places
        )


def _leads(above: str, below: str) -> bool:
    return below == above or (below.startswith(above) and below[len(above)] in ".[")


@dataclass(frozen=True, slots=True)
class _Subject:
    good: Good
    manifest: Json
    fields: tuple[Field, ...]

    def under_spec(self, text: str) -> Place:
        return (*self.good.spec_path.split("."), *place(text))

    def has_room_for(self, text: str) -> bool:
        """There is the object around a place, or the list that it is in or next in."""
        *around, last = self.under_spec(text)
        value = value_at(self.manifest, tuple(around))
        if isinstance(value, list):
            return last in range(len(value) + 1)
        return isinstance(value, dict)

    def reachable(self) -> list[Field]:
        """The fields that can be set without making an object around them."""
        return [
            f
            for f in self.fields
            if isinstance(value_at(self.manifest, f.place[:-1]), (dict, list))
        ]


Fault = Callable[[Draw, _Subject], Sequence[str]]
"""Makes one thing wrong and says where; nowhere when it does not fit the manifest."""


def _wrong_type(draw: Draw, subject: _Subject) -> Sequence[str]:
    """A value of a JSON type that the field does not have."""
    typed = [f for f in subject.reachable() if not f.is_opaque and f.place != ("spec",)]
    chosen = draw(st.sampled_from(typed))
    kinds = set(_WRONG) - chosen.types
    if chosen.place[-1] in _FILLED:
        kinds -= {"null"}
    kind = draw(st.sampled_from(sorted(kinds)))
    put(subject.manifest, chosen.place, draw(st.sampled_from(_WRONG[kind])))
    return [written(chosen.place)]


def _from_table(table: dict[tuple[str, ...], st.SearchStrategy[Any]]) -> Fault:
    def fault(draw: Draw, subject: _Subject) -> Sequence[str]:
        fitting = [
            (field, values)
            for field in subject.reachable()
            if (values := bad_values.find(table, field.place)) is not None
        ]
        if not fitting:
            return []
        chosen, values = draw(st.sampled_from(fitting))
        put(subject.manifest, chosen.place, draw(values))
        return [written(chosen.place)]

    return fault


def _quantity(draw: Draw, subject: _Subject) -> Sequence[str]:
    """An amount that is none, is negative, or is more or less than there can be."""
    amounts = [f for f in subject.reachable() if f.is_quantity]
    if not amounts:
        return []
    chosen = draw(st.sampled_from(amounts))
    memory = chosen.place[-1] in ("memory", "guest")
    put(
        subject.manifest, chosen.place, draw(bad_values.MEMORY if memory else bad_values.QUANTITIES)
    )
    return [written(chosen.place)]


def _missing(draw: Draw, subject: _Subject) -> Sequence[str]:
    """A field that has to be there is not."""
    there = [
        f for f in subject.fields
        if f.is_required and len(f.place) > 1 and holds(subject.manifest, f.place) and f.place[-1] not in _FILLED
    ]  # fmt: skip
    if not there:
        return []
    chosen = draw(st.sampled_from(there))
    take(subject.manifest, chosen.place)
    return [written(chosen.place)]


def _unserved(draw: Draw, subject: _Subject) -> Sequence[str]:
    """A field that the API has and podvisor does not serve yet, with a value that asks for something."""
    opaque = [f for f in subject.reachable() if f.is_opaque]
    if not opaque:
        return []
    chosen = draw(st.sampled_from(opaque))
    put(subject.manifest, chosen.place, draw(bad_values.UNSERVED))
    return [written(chosen.place)]


def _nested(draw: Draw, subject: _Subject) -> Sequence[str]:
    """Objects in objects, where the schema looks at nothing, and lists in lists, where it does."""
    fitting = [f for f in subject.reachable() if f.is_opaque or f.types == {"string"}]
    if not fitting:
        return []
    chosen = draw(st.sampled_from(fitting))
    value: Any = 1
    for _ in range(draw(st.integers(20, _DEEPEST))):
        value = {"a": value} if chosen.is_opaque else [value]
    put(subject.manifest, chosen.place, value)
    return [written(chosen.place)]


def _duplicate(draw: Draw, subject: _Subject) -> Sequence[str]:
    """A second item of one name."""
    lists = [
        subject.under_spec(text)
        for text in ("volumes", "domain.devices.disks", "networks", "domain.devices.interfaces")
    ]
    filled = [(where, items) for where in lists if (items := value_at(subject.manifest, where))]
    if not filled:
        return []
    where, items = draw(st.sampled_from(filled))
    items.append(copy.deepcopy(draw(st.sampled_from(items))))
    return [written((*where, len(items) - 1))]


def _dangling(draw: Draw, subject: _Subject) -> Sequence[str]:
    """A disk whose volume is not there. From v1alpha3 on a CD-ROM drive without one is empty, and good."""
    disks = value_at(subject.manifest, subject.under_spec("domain.devices.disks"))
    is_first = subject.good.version == "v1alpha1"
    indexes = [index for index, disk in enumerate(disks) if is_first or "cdrom" not in disk]
    name = "volumeName" if is_first else "name"
    where = subject.under_spec(f"domain.devices.disks.{draw(st.sampled_from(indexes))}.{name}")
    put(subject.manifest, where, "ghost")
    return [written(where)]


def _contradiction(draw: Draw, subject: _Subject) -> Sequence[str]:
    """Values that are good alone and bad together."""
    fitting = [row for row in CONTRADICTIONS if all(map(subject.has_room_for, row[1]))]
    if not fitting or subject.good.version == "v1alpha1":
        return []
    _, changes, pointed = draw(st.sampled_from(fitting))
    for text, value in changes.items():
        where = subject.under_spec(text)
        if value is not None:
            put(subject.manifest, where, value)
        elif holds(subject.manifest, where):
            take(subject.manifest, where)
    return [written(subject.under_spec(text)) for text in pointed]


def _bad_key(draw: Draw, subject: _Subject) -> Sequence[str]:
    """A key, or the value of a label, that no pod can have."""
    maps = [
        f
        for f in subject.reachable()
        if f.place[-1] in bad_values.KEYS and holds(subject.manifest, f.place)
    ]
    if not maps:
        return []
    chosen = draw(st.sampled_from(maps))
    name = chosen.place[-1]
    if name in ("requests", "limits") or draw(st.booleans()):
        put(subject.manifest, (*chosen.place, draw(bad_values.KEYS[str(name)])), "1")
    else:
        put(subject.manifest, (*chosen.place, "key"), draw(bad_values.LABEL_VALUES))
    return [written(chosen.place)]


def _bad_metadata(draw: Draw, subject: _Subject) -> Sequence[str]:
    """A name that no pod can carry, a reserved label, or an annotation that is not served."""
    kind = draw(st.sampled_from(["name", "label", "annotation"]))
    if kind == "name":
        put(subject.manifest, ("metadata", "name"), draw(bad_values.LONG_NAMES))
        return ["metadata.name"]
    if subject.good.version == "v1alpha1":
        return []
    around: Place = (
        ("metadata",) if subject.good.kind != "VirtualMachine" else ("spec", "template", "metadata")
    )
    if not isinstance(value_at(subject.manifest, around), dict):
        return []
    if kind == "label":
        put(subject.manifest, (*around, "labels", "kubevirt.io/created-by"), "me")
        return [written((*around, "labels"))]
    served = st.sampled_from(bad_values.OUR_ANNOTATIONS)
    where = (*around, "annotations")
    values = served if around == ("metadata",) else bad_values.ANNOTATIONS
    put(subject.manifest, (*where, draw(values)), "x")
    return [written(where)]


def _two_strategies(_: Draw, subject: _Subject) -> Sequence[str]:
    """A machine that says twice, or not at all, when it runs."""
    spec = subject.manifest["spec"]
    if (
        subject.good.kind != "VirtualMachine"
        or subject.good.version == "v1alpha1"
        or not isinstance(spec, dict)
    ):
        return []
    spec["running"] = True
    return ["spec.running"]


_VALUE_FAULTS: dict[str, Fault] = {
    "number out of range": _from_table(bad_values.NUMBERS),
    "unknown value": _from_table(bad_values.ENUMERATIONS),
    "bad text": _from_table(bad_values.TEXTS),
    "bad quantity": _quantity,
    "field not served": _unserved,
    "duplicate": _duplicate,
    "dangling reference": _dangling,
    "contradiction": _contradiction,
    "bad key": _bad_key,
    "bad metadata": _bad_metadata,
    "two strategies": _two_strategies,
}
_SHAPE_FAULTS: dict[str, Fault] = {
    "wrong type": _wrong_type,
    "missing field": _missing,
    "deep nesting": _nested,
}
FAULTS = tuple(_VALUE_FAULTS) + tuple(_SHAPE_FAULTS)


@cache
def _fields(name: str) -> tuple[Field, ...]:
    [manifest] = [good.manifest for good in good_manifests() if good.name == name]
    return fields_of(manifest)


@st.composite
def bad_manifests(draw: Draw) -> BadManifest:
    """A good manifest with values made wrong, then perhaps its shape: what is wrong with values needs the shape."""
    good = draw(st.sampled_from(good_manifests()))
    subject = _Subject(good, copy.deepcopy(good.manifest), _fields(good.name))
    shape = draw(st.sampled_from([None, None, *_SHAPE_FAULTS]))
    values = st.sampled_from(list(_VALUE_FAULTS))
    names = draw(st.lists(values, min_size=0 if shape else 1, max_size=2, unique=True))
    faults: list[str] = []
    places: list[str] = []
    for name in [*names, *([shape] if shape else [])]:
        fault = _VALUE_FAULTS.get(name) or _SHAPE_FAULTS[name]
        where = fault(draw, subject)
        faults += [name] if where else []
        places += where
    assume(places)
    return BadManifest(good, subject.manifest, tuple(faults), tuple(places))


def some_bad_manifests(count: int, *, of_seed: int) -> list[BadManifest]:
    """That many of them, always the same ones for a seed."""
    found: list[BadManifest] = []

    @seed(of_seed)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(bad_manifests())
    def collect(bad: BadManifest) -> None:
        found.append(bad)

    collect()
    return found
