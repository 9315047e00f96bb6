"""What of a clone's source its target does not get, as the patches of a restore. Pure.

Invariant: a target is nobody's double: it has neither addresses nor the firmware's identity of its source, unless it is given them by name.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from podvisor_common.api.clone import VirtualMachineClone
from podvisor_common.api.snapshot.names import LAST_RESTORE_ANNOTATION

from podvisor_controller.json_patch import applied, parse, text_of
from podvisor_controller.webhooks.defaults import ClusterDefaults, default_virtual_machine_instance

_METADATA = ("metadata",)
_TEMPLATE = ("spec", "template", "metadata")
_SPEC = ("spec", "template", "spec")
_NETWORKS = (*_SPEC, "networks")
_DOMAIN = (*_SPEC, "domain")
_DEVICES = (*_DOMAIN, "devices")
_INTERFACES = (*_DEVICES, "interfaces")
_FIRMWARE = (*_DOMAIN, "firmware")


def patches_of(
    clone: VirtualMachineClone, kept: Mapping[str, Any], defaults: ClusterDefaults
) -> list[str]:
    """The operations, in order, that make the target from what was kept of its source. The user's own come last.

    `defaults` is what the cluster gives machines that name no network.
    """
    spec = clone.spec
    template = spec.template
    return [
        *_addresses(kept, spec.new_mac_addresses or {}, defaults),
        *_identity(_at(kept, *_FIRMWARE), spec.new_smbios_serial),
        *_left_out(kept, (*_METADATA, "labels"), spec.label_filters),
        *_left_out(kept, (*_METADATA, "annotations"), spec.annotation_filters),
        *_left_out(kept, (*_TEMPLATE, "labels"), template.label_filters),
        *_left_out(kept, (*_TEMPLATE, "annotations"), template.annotation_filters),
        *(spec.patches or ()),
    ]


def unknown_interfaces(clone: VirtualMachineClone, kept: Mapping[str, Any]) -> list[str]:
    """The names that addresses are given for, and that no interface of what was kept has."""
    known = _names(_interfaces_of(kept, ClusterDefaults()))
    return [name for name in clone.spec.new_mac_addresses or () if name not in known]


def is_kept(key: str, filters: Sequence[str]) -> bool:
    """A key passes the filters: one of them takes it in, and none leaves it out."""
    without = [one[1:] for one in filters if one.startswith("!")]
    taken = [one for one in filters if not one.startswith("!")]
    return _matches(key, taken) and not _matches(key, without)


def _matches(key: str, patterns: Iterable[str]) -> bool:
    return any(key.startswith(one[:-1]) if one.endswith("*") else key == one for one in patterns)


def _addresses(
    kept: Mapping[str, Any], given: Mapping[str, str], defaults: ClusterDefaults
) -> Iterator[str]:
    interfaces = _interfaces_of(kept, defaults)
    if not _at(kept, *_INTERFACES) and any(given.get(name) for name in _names(interfaces)):
        # Only what is there can have an address: the target is told what it would be given without a word.
        yield text_of("add", _NETWORKS, _at(_with_network(kept, defaults), "networks"))
        if not isinstance(_at(kept, *_DEVICES), Mapping):
            yield text_of("add", _DEVICES, {})
        yield text_of("add", _INTERFACES, interfaces)
    for index, interface in enumerate(interfaces):
        if not isinstance(interface, Mapping):
            continue
        path = (*_INTERFACES, index, "macAddress")
        if address := given.get(str(interface.get("name"))):
            yield text_of("add", path, address)
        elif "macAddress" in interface:
            yield text_of("remove", path)


def _names(interfaces: Iterable[Any]) -> set[str]:
    return {str(one.get("name")) for one in interfaces if isinstance(one, Mapping)}


def _interfaces_of(kept: Mapping[str, Any], defaults: ClusterDefaults) -> list[Any]:
    """Those of the machine, or the one that its instance is given where it has none."""
    found = _at(_with_network(kept, defaults), "domain", "devices", "interfaces")
    return found if isinstance(found, list) else []


def _with_network(kept: Mapping[str, Any], defaults: ClusterDefaults) -> Mapping[str, Any]:
    """What an instance of the machine says of its network, and nothing else."""
    devices = _at(kept, *_DEVICES)
    names = ("interfaces", "autoattachPodInterface")
    known = devices if isinstance(devices, Mapping) else {}
    spec: dict[str, Any] = {
        "domain": {"devices": {name: known[name] for name in names if name in known}}
    }
    if networks := _at(kept, *_NETWORKS):
        spec["networks"] = networks
    instance = {"metadata": {}, "spec": spec}
    operations = default_virtual_machine_instance(instance, defaults)
    texts = [msgspec.json.encode(one).decode() for one in operations]
    told: Mapping[str, Any] = applied(instance, parse(texts))["spec"]
    return told


def _identity(firmware: Any, serial: str | None) -> Iterator[str]:
    known = firmware if isinstance(firmware, dict) else {}
    if "uuid" in known:
        yield text_of("remove", (*_FIRMWARE, "uuid"))
    if serial and not isinstance(firmware, dict):
        yield text_of("add", _FIRMWARE, {"serial": serial})
    elif serial:
        yield text_of("add", (*_FIRMWARE, "serial"), serial)
    elif "serial" in known:
        yield text_of("remove", (*_FIRMWARE, "serial"))


def _left_out(
    kept: Mapping[str, Any], path: tuple[str, ...], filters: Sequence[str] | None
) -> Iterator[str]:
    given = _at(kept, *path)
    if filters is None or not isinstance(given, dict):
        return
    for key in given:
        # The mark of a restore is never taken over.
        if key != LAST_RESTORE_ANNOTATION and not is_kept(key, filters):
            yield text_of("remove", (*path, key))


def _at(tree: Any, *path: str) -> Any:
    for name in path:
        tree = tree.get(name) if isinstance(tree, Mapping) else None
    return tree
