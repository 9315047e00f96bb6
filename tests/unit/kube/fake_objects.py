"""What the fake API server does to objects: patches, selectors, generations. Pure functions on plain JSON."""

import copy
import re
from collections.abc import Mapping
from typing import Any

Object = dict[str, Any]


class PatchFailed(Exception):
    """A JSON patch does not apply."""


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge_patch(result.get(name), value)
    return result


def json_patch(target: Object, operations: list[Object]) -> Object:
    """RFC 6902 without move and copy."""
    result = copy.deepcopy(target)
    for operation in operations:
        *parents, last = [
            part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]
        ]
        try:
            node: Any = result
            for part in parents:
                node = node[int(part)] if isinstance(node, list) else node[part]
            _apply_operation(node, last, operation)
        except (KeyError, IndexError) as error:
            raise PatchFailed(operation["path"]) from error
    return result


def _apply_operation(node: Any, last: str, operation: Object) -> None:
    place: Any = last
    if isinstance(node, list):
        place = len(node) if last == "-" else int(last)
    match operation["op"]:
        case "test":
            if node[place] != operation["value"]:
                raise PatchFailed(operation["path"])
        case "remove":
            del node[place]
        case "add" if isinstance(node, list):
            node.insert(place, operation["value"])
        case "add":
            node[place] = operation["value"]
        case "replace":
            node[place]  # it must exist
            node[place] = operation["value"]
        case unknown:
            raise PatchFailed(f"operation {unknown}")


def matches(obj: Object, query: Mapping[str, str]) -> bool:
    """Whether the object is selected by labelSelector and fieldSelector (equality, existence, and `in`)."""
    labels = obj["metadata"].get("labels") or {}
    for term in filter(None, re.split(r",(?![^(]*\))", query.get("labelSelector", ""))):
        if member := re.fullmatch(r"(\S+) in \((.*)\)", term):
            if labels.get(member[1]) not in member[2].split(","):
                return False
            continue
        name, is_equality, value = term.replace("==", "=").partition("=")
        if name.endswith("!"):
            if labels.get(name[:-1]) == value:
                return False
        elif name not in labels or (is_equality and labels[name] != value):
            return False
    for term in filter(None, query.get("fieldSelector", "").split(",")):
        name, _, value = term.replace("==", "=").partition("=")
        is_unequal = name.endswith("!")
        node: Any = obj
        for part in name.rstrip("!").split("."):
            node = node.get(part) if isinstance(node, dict) else None
        if ((node or "") == value) == is_unequal:
            return False
    return True


def changed(old: Object, new: Object, *, subresource: str) -> Object:
    """What is stored when `new` is written over `old`: status and the rest are written apart, identity stays."""
    if subresource == "status":
        result = copy.deepcopy(old)
        result["status"] = new.get("status", {})
        return result
    result = copy.deepcopy(new)
    result.pop("status", None)
    if "status" in old:
        result["status"] = old["status"]
    for name in ("uid", "name", "namespace", "creationTimestamp", "deletionTimestamp"):
        if name in old["metadata"]:
            result["metadata"][name] = old["metadata"][name]
    is_new_generation = result.get("spec") != old.get("spec")
    result["metadata"]["generation"] = old["metadata"]["generation"] + is_new_generation
    return result
