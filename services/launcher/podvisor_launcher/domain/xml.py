"""Typed classes that read and write XML: `@element("tag")` on a class, one specifier per field.

Invariant: parse(format(x)) == x for every element. Nothing here knows a libvirt element, and nothing here decides anything;
what a class does not declare is ignored when reading and so never written back.
"""

import types
from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import (
    Any,
    TypeVar,
    Union,
    cast,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)
from xml.etree import ElementTree

_T = TypeVar("_T")
_KIND = "podvisor.kind"
_NAME = "podvisor.name"
_TAG = "__element_tag__"


class XmlError(Exception):
    """The text is not the element it was taken for."""


def attribute(name: str | None = None, *, default: Any = MISSING) -> Any:
    """An attribute of the element; None and the empty default are not written."""
    return _specify("attribute", name, default)


def text(*, default: Any = MISSING) -> Any:
    """The text between the element's tags."""
    return _specify("text", None, default)


def leaf(name: str | None = None, *, default: Any = MISSING) -> Any:
    """A child that holds nothing but text: `<vcpu>2</vcpu>`."""
    return _specify("leaf", name, default)


def flag(name: str | None = None) -> Any:
    """A child without content whose presence means true: `<readonly/>`."""
    return _specify("flag", name, False)


def child(*, default: Any = MISSING) -> Any:
    """One child element, of the type of the field."""
    return _specify("child", None, default)


def children() -> Any:
    """Any number of child elements, in order; the field is a tuple of their type."""
    return _specify("children", None, ())


@dataclass_transform(
    frozen_default=True,
    kw_only_default=True,
    field_specifiers=(attribute, text, leaf, flag, child, children),
)
def element(tag: str) -> Callable[[type[_T]], type[_T]]:
    """Make a class the typed form of `<tag>`: an immutable dataclass of keyword arguments."""

    def decorate(cls: type[_T]) -> type[_T]:
        made = dataclass(frozen=True, slots=True, kw_only=True)(cls)
        setattr(made, _TAG, tag)
        return made

    return decorate


def format_xml(instance: object) -> str:
    """The element as text, indented for people."""
    node = to_node(instance)
    ElementTree.indent(node)
    return ElementTree.tostring(node, encoding="unicode")


def parse_xml(cls: type[_T], source: str) -> _T:
    """Read `source` as an element of type `cls`. Raises XmlError when it is not one. For libvirt's own output only."""
    try:
        node = ElementTree.fromstring(source)
    except ElementTree.ParseError as error:
        raise XmlError(f"not XML: {error}") from error
    return from_node(cls, node)


def to_node(instance: object) -> ElementTree.Element:
    """The element as a tree."""
    node = ElementTree.Element(tag_of(type(instance)))
    for each in fields(cast(Any, instance)):
        value = getattr(instance, each.name)
        if value is None or (value is False and _kind(each) == "flag"):
            continue
        _WRITERS[_kind(each)](node, _xml_name(each), value)
    return node


def from_node(cls: type[_T], node: ElementTree.Element) -> _T:
    """Read a tree as an element of type `cls`. Raises XmlError when something it needs is missing or of another type."""
    if node.tag != tag_of(cls):
        raise XmlError(f"<{node.tag}> where <{tag_of(cls)}> was expected")
    hints = _hints(cls)
    values: dict[str, object] = {}
    for each in fields(cast(Any, cls)):
        value = _READERS[_kind(each)](node, _xml_name(each), hints[each.name])
        if value is not None:
            values[each.name] = value
        elif each.default is MISSING:
            raise XmlError(f"<{node.tag}> lacks {each.name}")
    return cls(**values)


def tag_of(cls: type) -> str:
    """The tag that the class stands for."""
    return str(getattr(cls, _TAG))


def _specify(kind: str, name: str | None, default: Any) -> Any:
    return field(default=default, metadata={_KIND: kind, _NAME: name})


def _kind(each: Field[Any]) -> str:
    return str(each.metadata[_KIND])


def _xml_name(each: Field[Any]) -> str:
    return str(each.metadata[_NAME] or each.name)


def _hints(cls: type) -> dict[str, Any]:
    return {name: _required(hint) for name, hint in get_type_hints(cls).items()}


def _required(hint: Any) -> Any:
    """The type of a field without `| None`, and of a tuple field its items' type."""
    if get_origin(hint) in (types.UnionType, Union):
        return next(each for each in get_args(hint) if each is not type(None))
    if get_origin(hint) is tuple:
        return get_args(hint)[0]
    return hint


def _write_value(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _read_value(source: str | None, type_: Any) -> object | None:
    if source is None:
        return None
    if type_ is bool:
        return source == "yes"
    if type_ is int:
        try:
            return int(source, 0)
        except ValueError as error:
            raise XmlError(f"{source!r} is not a number") from error
    return source


def _write_attribute(node: ElementTree.Element, name: str, value: object) -> None:
    node.set(name, _write_value(value))


def _write_text(node: ElementTree.Element, _name: str, value: object) -> None:
    node.text = _write_value(value)


def _write_leaf(node: ElementTree.Element, name: str, value: object) -> None:
    ElementTree.SubElement(node, name).text = _write_value(value)


def _write_flag(node: ElementTree.Element, name: str, _value: object) -> None:
    ElementTree.SubElement(node, name)


def _write_child(node: ElementTree.Element, _name: str, value: object) -> None:
    node.append(to_node(value))


def _write_children(node: ElementTree.Element, _name: str, value: tuple[object, ...]) -> None:
    node.extend(to_node(item) for item in value)


def _read_attribute(node: ElementTree.Element, name: str, type_: Any) -> object | None:
    return _read_value(node.get(name), type_)


def _read_text(node: ElementTree.Element, _name: str, type_: Any) -> object | None:
    return _read_value(node.text or "", type_)


def _read_leaf(node: ElementTree.Element, name: str, type_: Any) -> object | None:
    found = node.find(name)
    return None if found is None else _read_value(found.text or "", type_)


def _read_flag(node: ElementTree.Element, name: str, _type: Any) -> object | None:
    return node.find(name) is not None


def _read_child(node: ElementTree.Element, _name: str, type_: Any) -> object | None:
    found = node.find(tag_of(type_))
    return None if found is None else from_node(type_, found)


def _read_children(node: ElementTree.Element, _name: str, type_: Any) -> object | None:
    return tuple(from_node(type_, found) for found in node.findall(tag_of(type_)))


_WRITERS: dict[str, Callable[[ElementTree.Element, str, Any], None]] = {
    "attribute": _write_attribute,
    "text": _write_text,
    "leaf": _write_leaf,
    "flag": _write_flag,
    "child": _write_child,
    "children": _write_children,
}

_READERS: dict[str, Callable[[ElementTree.Element, str, Any], object | None]] = {
    "attribute": _read_attribute,
    "text": _read_text,
    "leaf": _read_leaf,
    "flag": _read_flag,
    "child": _read_child,
    "children": _read_children,
}
