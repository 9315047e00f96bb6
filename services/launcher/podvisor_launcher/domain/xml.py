"""Typed classes that read and write XML: `@element("tag")` on a class, one specifier per field.

Invariant: parse(format(x)) == x for every element. Nothing here knows a libvirt element, and nothing here decides anything;
what a class does not declare is ignored when reading and so never written back.
"""

import types
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar, Union, dataclass_transform, get_args, get_origin
from typing import get_type_hints as resolve_annotations
from xml.etree import ElementTree

_T = TypeVar("_T")
_REQUIRED = object()


class XmlError(Exception):
    """The text is not the element it was taken for."""


class _Field:
    """How one field of an element is written. `type` is what its values, or the items of its tuple, are."""

    __slots__ = ("default", "kind", "name", "type")

    def __init__(self, kind: str, name: str | None, default: Any) -> None:
        self.kind = kind
        self.name = name or ""
        self.default = default
        self.type: Any = (
            None  # resolved when the class is first read: annotations may name later classes
        )


def attribute(name: str | None = None, *, default: Any = _REQUIRED) -> Any:
    """An attribute of the element; None is not written."""
    return _Field("attribute", name, default)


def text(*, default: Any = _REQUIRED) -> Any:
    """The text between the element's tags."""
    return _Field("text", None, default)


def leaf(name: str | None = None, *, default: Any = _REQUIRED) -> Any:
    """A child that holds nothing but text: `<vcpu>2</vcpu>`."""
    return _Field("leaf", name, default)


def flag(name: str | None = None, *, default: bool = False) -> Any:
    """A child without content whose presence means true: `<readonly/>`."""
    return _Field("flag", name, default)


def child(*, default: Any = _REQUIRED) -> Any:
    """One child element, of the type of the field."""
    return _Field("child", None, default)


def children(*, default: tuple[()] = ()) -> Any:
    """Any number of child elements, in order; the field is a tuple of their type."""
    return _Field("children", None, default)


@dataclass_transform(
    frozen_default=True,
    kw_only_default=True,
    field_specifiers=(attribute, text, leaf, flag, child, children),
)
def element(tag: str) -> Callable[[type[_T]], type[_T]]:
    """Make a class the typed form of `<tag>`: an immutable value made of keyword arguments.

    It behaves as a frozen dataclass; it is none because generating the code of fifty of them would be a fifth of the
    launcher's start.
    """

    def decorate(cls: type[_T]) -> type[_T]:
        declared = {name: each for name, each in vars(cls).items() if isinstance(each, _Field)}
        for name, each in declared.items():
            each.name = each.name or name
            delattr(cls, name)
        members = {
            "__element_tag__": tag,
            "__element_fields__": declared,
            "__init__": _init,
            "__eq__": _eq,
            "__hash__": _hash,
            "__repr__": _repr,
            "__setattr__": _refuse_change,
        }
        for name, member in members.items():
            setattr(cls, name, member)
        return cls

    return decorate


def fields_of(cls: type) -> dict[str, _Field]:
    """The fields of an element class by name, with their types."""
    declared: dict[str, _Field] = cls.__element_fields__  # type: ignore[attr-defined]
    if any(each.type is None for each in declared.values()):
        for name, hint in resolve_annotations(cls).items():
            declared[name].type = _value_type(hint)
    return declared


def _init(self: Any, **values: object) -> None:
    declared = type(self).__element_fields__
    for name, each in declared.items():
        value = values.pop(name, each.default)
        if value is _REQUIRED:
            raise TypeError(f"{type(self).__name__} needs {name}")
        object.__setattr__(self, name, value)
    if values:
        raise TypeError(f"{type(self).__name__} has no {', '.join(values)}")


def _eq(self: Any, other: object) -> bool:
    return type(self) is type(other) and vars(self) == vars(other)


def _hash(self: Any) -> int:
    return hash((type(self), *vars(self).values()))


def _repr(self: Any) -> str:
    values = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
    return f"{type(self).__name__}({values})"


def _refuse_change(self: Any, name: str, value: object) -> NoReturn:
    raise AttributeError(f"{type(self).__name__} is immutable")


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
    for name, each in fields_of(type(instance)).items():
        value = getattr(instance, name)
        if value is None or (value is False and each.kind == "flag"):
            continue
        _WRITERS[each.kind](node, each.name, value)
    return node


def from_node(cls: type[_T], node: ElementTree.Element) -> _T:
    """Read a tree as an element of type `cls`. Raises XmlError when something it needs is missing or of another type."""
    if node.tag != tag_of(cls):
        raise XmlError(f"<{node.tag}> where <{tag_of(cls)}> was expected")
    values: dict[str, object] = {}
    for name, each in fields_of(cls).items():
        value = _READERS[each.kind](node, each.name, each.type)
        if value is not None:
            values[name] = value
        elif each.default is _REQUIRED:
            raise XmlError(f"<{node.tag}> lacks {name}")
    return cls(**values)


def tag_of(cls: type) -> str:
    """The tag that the class stands for."""
    return str(cls.__element_tag__)  # type: ignore[attr-defined]


def _value_type(hint: Any) -> Any:
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
