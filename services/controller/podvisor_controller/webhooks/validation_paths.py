"""Causes and warnings in the words of the version a client wrote.

Validation runs on the v1 form; a v1alpha1 client has never seen `spec.template` or `containerDisk`, and calls its
volumes by other names.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from podvisor_common.api.v1 import names

from podvisor_controller.webhooks.conversion import convert
from podvisor_controller.webhooks.validation_fields import Cause, CauseReason

_TEMPLATE = "spec.template.spec."
_VOLUME = re.compile(r"spec\.volumes\[(\d+)\]")
_VOLUME_NAME = re.compile(r"spec\.template\.spec\.volumes\[(\d+)\]\.name")
_DISK_NAME = re.compile(r"spec\.domain\.devices\.disks\[(\d+)\]\.name")


def causes_as_written(
    causes: Iterable[Cause], api_version: str, obj: Mapping[str, Any]
) -> list[Cause]:
    """The causes for a client that wrote `api_version`. `obj` is the v1 form that was checked."""
    if api_version != names.API_VERSION_V1ALPHA1:
        return list(causes)
    written = convert(obj, names.API_VERSION_V1ALPHA1)
    return [
        _cause_as_written(cause, obj, written)
        for cause in causes
        if not _is_made_by_conversion(cause, obj)
    ]


def warnings_as_written(
    warnings: Iterable[str], api_version: str, obj: Mapping[str, Any]
) -> list[str]:
    """The warnings for a client that wrote `api_version`."""
    if api_version != names.API_VERSION_V1ALPHA1:
        return list(warnings)
    written = convert(obj, names.API_VERSION_V1ALPHA1)
    return [_text_as_written(warning, obj, written) for warning in warnings]


def _is_made_by_conversion(cause: Cause, obj: Mapping[str, Any]) -> bool:
    """Two volumes of one name in v1 whose disks share that name: the disks are at fault, and get a cause of their own."""
    volume = _VOLUME_NAME.fullmatch(cause.field)
    if cause.reason != CauseReason.DUPLICATE or not volume:
        return False
    spec = obj["spec"]["template"]["spec"]
    name = spec["volumes"][int(volume[1])]["name"]
    return [disk["name"] for disk in _disks(spec)].count(name) > 1


def _cause_as_written(cause: Cause, obj: Mapping[str, Any], written: Mapping[str, Any]) -> Cause:
    field = _text_as_written(cause.field, obj, written)
    message = _text_as_written(cause.message, obj, written)
    disk = _DISK_NAME.fullmatch(field)
    if disk and cause.reason == CauseReason.NOT_FOUND:
        named = written["spec"]["domain"]["devices"]["disks"][int(disk[1])].get("volumeName")
        field = field.removesuffix("name") + "volumeName"
        message = f"{field} '{named}' not found: there is no volume of that name."
    return replace(cause, field=field, message=message)


def _text_as_written(text: str, obj: Mapping[str, Any], written: Mapping[str, Any]) -> str:
    """Every path in a text as it is in v1alpha1."""
    text = text.replace(_TEMPLATE, "spec.").replace("spec.template.metadata.", "metadata.")
    text = text.replace(".containerDisk", ".registryDisk").replace("containerDisk", "registryDisk")
    return _VOLUME.sub(lambda match: f"spec.volumes[{_index(int(match[1]), obj, written)}]", text)


def _index(index: int, obj: Mapping[str, Any], written: Mapping[str, Any]) -> int:
    """Where the volume stands in v1alpha1: copies made for further disks stand behind all others in v1."""
    name = _objects(obj["spec"]["template"]["spec"], "volumes")[index].get("name")
    disks = _disks(written["spec"])
    volume_name = next((d.get("volumeName") for d in disks if d.get("name") == name), None)
    places = [v.get("name") for v in _objects(written["spec"], "volumes")]
    return places.index(volume_name) if index >= len(places) and volume_name in places else index


def _disks(spec: Any) -> list[dict[str, Any]]:
    for key in ("domain", "devices"):
        spec = spec.get(key) if isinstance(spec, Mapping) else None
    return _objects(spec, "disks")


def _objects(value: Any, key: str) -> list[dict[str, Any]]:
    """The list under a key, with an empty object for whatever is none: what did not decode has a cause as well."""
    items = value.get(key) if isinstance(value, Mapping) else None
    return (
        [item if isinstance(item, dict) else {} for item in items]
        if isinstance(items, list)
        else []
    )
