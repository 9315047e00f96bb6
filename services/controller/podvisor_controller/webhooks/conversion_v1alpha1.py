"""VirtualMachine specifications between v1alpha1 and v1, as far as both can say the same.

In v1alpha1 a disk names its volume; in v1 disk and volume share a name. Going up, the volume takes the disk's name and
the old name is handed back to be remembered; going down, the remembered names are given again. Values of an unexpected
type pass unchanged: conversion happens before validation.
"""

import copy
from collections.abc import Mapping
from typing import Any

from msgspec import inspect as types
from podvisor_common.api import v1alpha1
from podvisor_common.api.v1 import names

Json = dict[str, Any]

_STATUS_TYPE = types.type_info(v1alpha1.VirtualMachineStatus)
_SPEC_TYPE = types.type_info(v1alpha1.VirtualMachineSpec)


def spec_to_v1(spec: Any) -> tuple[Json, dict[str, str]]:
    """The v1 specification, and v1alpha1's volume names by the names disks and volumes have in v1."""
    template = copy.deepcopy(spec)
    old_names: dict[str, str] = {}
    if isinstance(template, dict):
        disks = _items(_child(_child(template, "domain"), "devices"), "disks")
        volumes = _items(template, "volumes")
        if volumes or disks:
            new_volumes, old_names = _volumes_to_v1(volumes, disks)
            if volumes:
                template["volumes"] = new_volumes
        for disk in disks:
            disk.pop("volumeName", None)
    return {"runStrategy": names.RunStrategy.ONCE.value, "template": {"spec": template}}, old_names


def _volumes_to_v1(volumes: list[Json], disks: list[Json]) -> tuple[list[Json], dict[str, str]]:
    """Each volume under the name of its disk: the first disk's in its place, copies for others at the end."""
    disk_names = [disk.get("name") for disk in disks]
    pairs = [
        (disk["name"], disk["volumeName"])
        for disk in disks
        if isinstance(disk.get("name"), str) and isinstance(disk.get("volumeName"), str)
    ]
    old_names = dict(pairs)
    taken = {name for name in disk_names if isinstance(name, str)}
    taken |= {volume["name"] for volume in volumes if isinstance(volume.get("name"), str)}
    result: list[Json] = []
    copies: list[Json] = []
    for volume in volumes:
        source = {key: value for key, value in volume.items() if key != "name"}
        if "registryDisk" in source:
            source["containerDisk"] = source.pop("registryDisk")
        old_name = volume.get("name")
        if not isinstance(old_name, str):
            result.append({**_name(old_name), **source})
            continue
        users = [new for new, old in pairs if old == old_name]
        if not users and old_name in disk_names:
            users = [_free_name(f"{old_name}-volume", taken)]
            old_names[users[0]] = old_name
        if not users:
            result.append({"name": old_name, **source})
            continue
        first, *others = users
        result.append({"name": first, **source})
        copies += [{"name": other, **copy.deepcopy(source)} for other in others]
    changed = {new: old for new, old in old_names.items() if new != old}
    return result + copies, changed


def spec_to_v1alpha1(spec: Any, old_names: Mapping[str, str]) -> Json:
    """What v1alpha1 can say of a v1 specification."""
    template = copy.deepcopy(_child(_child(spec, "template"), "spec"))
    volumes = _items(template, "volumes")
    names_given: dict[str, str] = {}
    if volumes:
        template["volumes"], names_given = _volumes_to_v1alpha1(volumes, old_names)
    for disk in _items(_child(_child(template, "domain"), "devices"), "disks"):
        name = disk.get("name")
        if isinstance(name, str):
            disk["volumeName"] = names_given.get(name, old_names.get(name, name))
    picked = _pick(template, _SPEC_TYPE)
    return picked if isinstance(picked, dict) else {}


def _volumes_to_v1alpha1(
    volumes: list[Json], old_names: Mapping[str, str]
) -> tuple[list[Json], dict[str, str]]:
    """Volumes under their remembered names, copies of one left out; and the names given, by name in v1."""
    names_given: dict[str, str] = {}
    sources: dict[str, Json] = {}
    result: list[Json] = []
    for volume in volumes:
        source = {key: value for key, value in volume.items() if key != "name"}
        if "containerDisk" in source:
            source["registryDisk"] = source.pop("containerDisk")
        v1_name = volume.get("name")
        if not isinstance(v1_name, str):
            result.append({**_name(v1_name), **source})
            continue
        if v1_name in names_given:
            # Twice in v1 as well: validation refuses it, under the name it was written with.
            result.append({"name": names_given[v1_name], **source})
            continue
        name = old_names.get(v1_name, v1_name)
        is_copy = name != v1_name and sources.get(name) == source
        if name in sources and not is_copy:
            name = _free_name(v1_name, set(sources))
        names_given[v1_name] = name
        if not is_copy:
            sources[name] = source
            result.append({"name": name, **source})
    return result, names_given


def status_to_v1alpha1(status: Any) -> Any:
    """What v1alpha1 can say of a v1 status. Going up, it is taken as it is."""
    return _pick(status, _STATUS_TYPE)


def _pick(value: Any, kind: types.Type) -> Any:
    """The parts of a value that a type has fields for."""
    if isinstance(kind, types.Metadata):
        return _pick(value, kind.type)
    if isinstance(kind, types.UnionType):
        members = [member for member in kind.types if not isinstance(member, types.NoneType)]
        return _pick(value, members[0]) if len(members) == 1 else value
    if isinstance(kind, types.StructType) and isinstance(value, dict):
        return {
            field.encode_name: _pick(value[field.encode_name], field.type)
            for field in kind.fields
            if field.encode_name in value
        }
    if isinstance(kind, types.ListType) and isinstance(value, list):
        return [_pick(item, kind.item_type) for item in value]
    return value


def _child(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, dict) else None


def _items(value: Any, key: str) -> list[Json]:
    """The list under a key when it is a list of objects, else an empty one."""
    items = _child(value, key)
    if isinstance(items, list) and all(isinstance(item, dict) for item in items):
        return items
    return []


def _name(name: Any) -> Json:
    return {} if name is None else {"name": name}


def _free_name(wanted: str, taken: set[Any]) -> str:
    """`wanted`, or with a number that makes it free; taken from then on."""
    name, number = wanted, 2
    while name in taken:
        name, number = f"{wanted}-{number}", number + 1
    taken.add(name)
    return name
