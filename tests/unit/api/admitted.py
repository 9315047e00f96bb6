"""Instances as admission leaves them."""

import copy
from typing import Any

from podvisor_controller.webhooks.defaults import ClusterDefaults, default_virtual_machine_instance

Json = dict[str, Any]


def apply(document: Any, operations: list[Json]) -> Any:
    """RFC 6902, as the API server does it."""
    result = copy.deepcopy(document)
    for operation in operations:
        keys = [k.replace("~1", "/").replace("~0", "~") for k in operation["path"].split("/")[1:]]
        if not keys:
            result = operation["value"]
            continue
        target = result
        for key in keys[:-1]:
            target = target[int(key)] if isinstance(target, list) else target[key]
        last = keys[-1]
        if isinstance(target, list):
            if operation["op"] == "add":
                target.insert(len(target) if last == "-" else int(last), operation["value"])
            else:
                target[int(last)] = operation["value"]
        elif operation["op"] == "remove":
            del target[last]
        else:
            assert (last in target) == (operation["op"] == "replace")
            target[last] = operation["value"]
    return result


def instance(**spec: Any) -> Json:
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": "x"},
        "spec": {"domain": {"devices": {}}, **spec},
    }


def defaulted(obj: Json, defaults: ClusterDefaults | None = None) -> Any:
    return apply(obj, default_virtual_machine_instance(obj, defaults))
