"""Conversion of objects between the served versions, without loss.

Invariant: of the metadata only one annotation changes, as the API server demands, and converting there and back gives
the same specification and status. In v1 the annotation holds the volume names only v1alpha1 can say; in v1alpha1 it
holds what only v1 can say. An annotation that makes no sense counts as absent: it is user input.
"""

import copy
import json
from collections.abc import Mapping
from typing import Any

from podvisor_common.api.v1 import names
from podvisor_common.errors import Terminal

from podvisor_controller.webhooks.conversion_delta import apply_edits, edits_between
from podvisor_controller.webhooks.conversion_v1alpha1 import (
    Json,
    spec_to_v1,
    spec_to_v1alpha1,
    status_to_v1alpha1,
)

_SAME_SCHEMA = (names.API_VERSION, names.API_VERSION_V1ALPHA3)


class ConversionError(Terminal):
    """The object's kind is not served in the version it has or shall have."""


def convert(obj: Mapping[str, Any], desired_api_version: str) -> Json:
    """A copy of the object in another version. Raises ConversionError for a kind or version not served."""
    current = obj.get("apiVersion")
    result = copy.deepcopy(dict(obj))
    if current == desired_api_version:
        return result
    for version in (current, desired_api_version):
        if version not in _SAME_SCHEMA and not (
            version == names.API_VERSION_V1ALPHA1 and obj.get("kind") == names.VIRTUAL_MACHINE
        ):
            raise ConversionError(f"{obj.get('kind')} is not served in version {version}")
    if current == names.API_VERSION_V1ALPHA1:
        result = _to_v1(result)
    elif desired_api_version == names.API_VERSION_V1ALPHA1:
        result = _to_v1alpha1(result)
    return {**result, "apiVersion": desired_api_version}


def written_as_v1alpha1(obj: Mapping[str, Any]) -> bool:
    """The v1 object was created through v1alpha1: its specification stays free of admission defaults."""
    return _note_of(obj).get("origin") == names.API_VERSION_V1ALPHA1


def _to_v1(obj: Json) -> Json:
    note = _note_of(obj)
    origin = note.get("origin", names.API_VERSION_V1ALPHA1)
    new_note: Json = {}
    if "spec" in obj:
        spec, old_names = spec_to_v1(obj["spec"])
        obj["spec"] = apply_edits(spec, _edits_in(note, "spec"))
        if old_names:
            new_note["volumeNames"] = old_names
    _edit_status(obj, note)
    if new_note or origin == names.API_VERSION_V1ALPHA1:
        new_note["origin"] = origin
    return _with_note(obj, new_note)


def _to_v1alpha1(obj: Json) -> Json:
    note = _note_of(obj)
    origin = note.get("origin", names.API_VERSION)
    new_note: Json = {}
    if "spec" in obj:
        full = obj["spec"]
        obj["spec"] = spec_to_v1alpha1(full, _volume_names_in(note))
        new_note["spec"] = edits_between(spec_to_v1(obj["spec"])[0], full)
    if "status" in obj:
        full = obj["status"]
        obj["status"] = status_to_v1alpha1(full)
        new_note["status"] = edits_between(obj["status"], full)
    new_note = {key: edits for key, edits in new_note.items() if edits}
    if new_note or origin != names.API_VERSION_V1ALPHA1:
        new_note["origin"] = origin
    return _with_note(obj, new_note)


def _edit_status(obj: Json, note: Mapping[str, Any]) -> None:
    edits = _edits_in(note, "status")
    if "status" in obj:
        obj["status"] = apply_edits(obj["status"], edits)


def _edits_in(note: Mapping[str, Any], key: str) -> list[Any]:
    edits = note.get(key)
    return edits if isinstance(edits, list) else []


def _volume_names_in(note: Mapping[str, Any]) -> dict[str, str]:
    volume_names = note.get("volumeNames")
    if not isinstance(volume_names, dict):
        return {}
    return {new: old for new, old in volume_names.items() if isinstance(old, str)}


def _note_of(obj: Mapping[str, Any]) -> Json:
    """What the conversion annotation says; empty when there is none or it makes no sense."""
    metadata = obj.get("metadata")
    annotations = metadata.get("annotations") if isinstance(metadata, Mapping) else None
    text = (
        annotations.get(names.CONVERSION_ANNOTATION) if isinstance(annotations, Mapping) else None
    )
    try:
        note = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return {}
    if not isinstance(note, dict):
        return {}
    if note.get("origin") not in (*_SAME_SCHEMA, names.API_VERSION_V1ALPHA1):
        return {}
    return note


def _with_note(obj: Json, note: Json) -> Json:
    """The object with the annotation that the note becomes, or without one when it is empty."""
    metadata = obj.setdefault("metadata", {})
    annotations = dict(metadata.get("annotations") or {})
    annotations.pop(names.CONVERSION_ANNOTATION, None)
    if note:
        text = json.dumps(note, separators=(",", ":"), sort_keys=True, ensure_ascii=False)
        annotations[names.CONVERSION_ANNOTATION] = text
    if annotations:
        metadata["annotations"] = annotations
    else:
        metadata.pop("annotations", None)
    return obj
