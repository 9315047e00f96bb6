"""Every element class, both ways."""

import inspect
import random
from typing import Any

import pytest
from podvisor_launcher.domain import (
    board_elements,
    device_elements,
    disk_elements,
    elements,
    filesystem_elements,
    hyperv_elements,
    place_elements,
)
from podvisor_launcher.domain.place_elements import Boot
from podvisor_launcher.domain.xml import XmlError, fields_of, format_xml, parse_xml

CLASSES = [
    each
    for module in (
        board_elements,
        device_elements,
        disk_elements,
        elements,
        filesystem_elements,
        hyperv_elements,
        place_elements,
    )
    for _, each in inspect.getmembers(module, inspect.isclass)
    if each.__module__ == module.__name__
]
_TEXT = "plain", "with space", "<&>\"'", "ünïcode", "0x1f"


def arbitrary(cls: type, rng: random.Random, depth: int = 0) -> Any:
    """Some element of class `cls`, every optional field there or not."""
    values: dict[str, object] = {}
    for name, each in fields_of(cls).items():
        optional = each.default is None
        if each.kind == "children":
            values[name] = tuple(
                arbitrary(each.type, rng, depth + 1) for _ in range(rng.randrange(3))
            )
        elif optional and (depth > 6 or rng.random() < 0.4):
            continue
        elif each.kind == "child":
            values[name] = arbitrary(each.type, rng, depth + 1)
        else:
            values[name] = _arbitrary_value(each.type, rng)
    return cls(**values)


def _arbitrary_value(type_: type, rng: random.Random) -> object:
    if type_ is bool:
        return rng.random() < 0.5
    return rng.randrange(1 << 40) if type_ is int else rng.choice(_TEXT)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_what_is_written_is_read_back(cls: type) -> None:
    # Two elements of one tag in one place can only be told apart by their content.
    rng = random.Random(cls.__name__)
    for _ in range(50):
        instance = arbitrary(cls, rng)
        if cls.__name__ in {"Disk", "Devices", "Domain", "BackingStore"}:
            assert format_xml(parse_xml(cls, format_xml(instance))) == format_xml(instance)
        assert parse_xml(cls, format_xml(instance)) == instance


def test_elements_are_values() -> None:
    one = Boot(order=1)
    assert one == Boot(order=1)
    assert hash(one) == hash(Boot(order=1))
    assert one != Boot(order=2)
    assert repr(one) == "Boot(order=1)"
    with pytest.raises(AttributeError):
        one.order = 2  # type: ignore[misc]
    with pytest.raises(TypeError):
        Boot()  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        Boot(order=1, other=2)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "text", ["", "<boot", "<other order='1'/>", "<boot/>", "<boot order='first'/>"]
)
def test_what_is_not_the_element_is_refused(text: str) -> None:
    with pytest.raises(XmlError):
        parse_xml(Boot, text)


def test_what_is_not_declared_is_ignored() -> None:
    assert parse_xml(Boot, "<boot order='3' loadparm='x'><y/></boot>") == Boot(order=3)
