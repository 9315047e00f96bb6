"""Structural OpenAPI schemas, as a CustomResourceDefinition wants them, from the API's structs.

Invariant: a pure function of the types; the same types always give the same schema. Decoding limits are not looked
at: what narrows a field is what its `doc(...)` says.
"""

import inspect
from typing import Any

import msgspec
from msgspec import inspect as types

from podvisor_common.api.base import ApiStruct
from podvisor_common.api.meta import ObjectMeta
from podvisor_common.api.unsupported import UNSUPPORTED, UNSUPPORTED_SETTINGS

Schema = dict[str, Any]

_PRESERVE = "x-kubernetes-preserve-unknown-fields"
_SCALARS: dict[type[types.Type], str] = {
    types.StrType: "string",
    types.IntType: "integer",
    types.BoolType: "boolean",
    types.FloatType: "number",
}
# What says of a field that is there that it asks for nothing; without one, to be there is to ask.
_ASKS_NOTHING = {
    "boolean": " || !self.{}",
    "string": " || size(self.{}) == 0",
    "array": " || size(self.{}) == 0",
}
_ENVELOPE = ("apiVersion", "kind", "metadata")


def object_schema(kind: type[ApiStruct]) -> Schema:
    """The schema of a whole object: apiVersion, kind and metadata stay the API server's business."""
    schema = _struct_schema(_struct_info(kind))
    properties = schema["properties"]
    for name in _ENVELOPE:
        properties.pop(name)
    schema["properties"] = {
        "apiVersion": {"type": "string", "description": "Version of this representation."},
        "kind": {"type": "string", "description": "Kind of the object."},
        "metadata": {"type": "object"},
        **properties,
    }
    schema["required"] = [name for name in schema.get("required", []) if name not in _ENVELOPE]
    if not schema["required"]:
        del schema["required"]
    return schema


def _struct_info(struct: type[ApiStruct]) -> types.StructType:
    info = types.type_info(struct)
    assert isinstance(info, types.StructType)
    return info


def _struct_schema(info: types.StructType) -> Schema:
    """An object with one property per field, and one opaque property per field not implemented yet."""
    properties = {field.encode_name: _field_schema(field.type) for field in info.fields}
    for name in UNSUPPORTED.get(info.cls, ()):
        properties[name] = {"description": "Not supported yet.", _PRESERVE: True}
    refused = UNSUPPORTED_SETTINGS.get(info.cls, {})
    for name, value in refused.items():
        properties[name] = {**value, "description": "Not supported yet."}
    schema: Schema = {
        "type": "object",
        "description": inspect.cleandoc(info.cls.__doc__ or ""),
    }
    if refused:
        schema["x-kubernetes-validations"] = [
            _refusal(name, value["type"]) for name, value in refused.items()
        ]
    if properties:
        schema["properties"] = properties
    required = [field.encode_name for field in info.fields if field.required]
    if required:
        schema["required"] = required
    return schema


def _refusal(name: str, kind: str) -> Schema:
    """The rule by which the API server itself refuses a setting that is not implemented yet."""
    return {
        "rule": f"!has(self.{name})" + _ASKS_NOTHING.get(kind, "").format(name),
        "message": f"{name} is not supported yet",
        "fieldPath": f".{name}",
        "reason": "FieldValueForbidden",
    }


def _field_schema(field: types.Type) -> Schema:
    """The schema of a field: its type, narrowed and described by its annotation."""
    if not isinstance(field, types.Metadata):
        return _type_schema(field)
    return {**_type_schema(field.type), **(field.extra_json_schema or {})}


def _type_schema(kind: types.Type) -> Schema:
    if isinstance(kind, types.UnionType):
        return _union_schema(kind)
    if isinstance(kind, types.StructType):
        return _metadata_schema() if kind.cls is ObjectMeta else _struct_schema(kind)
    if isinstance(kind, types.ListType):
        return {"type": "array", "items": _field_schema(kind.item_type)}
    if isinstance(kind, types.DictType):
        if isinstance(kind.value_type, types.AnyType):
            return {"type": "object", _PRESERVE: True}
        return {"type": "object", "additionalProperties": _field_schema(kind.value_type)}
    scalar = _SCALARS.get(type(kind))
    if scalar is None:
        raise TypeError(f"no structural schema for {kind!r}")
    return {"type": scalar}


def _union_schema(union: types.UnionType) -> Schema:
    """`X | None` is an optional X; text or integer is a quantity, kept as the user wrote it."""
    members = [member for member in union.types if not isinstance(member, types.NoneType)]
    if len(members) == 1:
        return _field_schema(members[0])
    if {type(member) for member in members} == {types.StrType, types.IntType}:
        return {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "x-kubernetes-int-or-string": True,
        }
    raise TypeError(f"no structural schema for {union!r}")


def _metadata_schema() -> Schema:
    """Metadata inside a template: every field of ObjectMeta passes, labels and annotations are checked."""
    texts = {"type": "object", "additionalProperties": {"type": "string"}}
    return {
        "type": "object",
        _PRESERVE: True,
        "properties": {
            "annotations": {**texts, "description": "Annotations, not for selection."},
            "labels": {**texts, "description": "Labels, for selection."},
        },
    }


def json_fields(struct: type[msgspec.Struct]) -> tuple[str, ...]:
    """JSON names of the fields a struct implements."""
    return tuple(field.encode_name for field in msgspec.structs.fields(struct))
