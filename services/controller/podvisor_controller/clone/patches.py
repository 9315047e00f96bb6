"""What of a clone's source its target does not get, as the patches of a restore. Pure.

Invariant: a target is nobody's double: it has neither addresses nor the firmware's identity of its source, unless it is given them by name.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from podvisor_common.api.clone import VirtualMachineClone
from podvisor_common.api.snapshot.names import LAST_RESTORE_ANNOTATION

from podvisor_controller.json_patch import text_of

_METADATA = ("metadata",)
_TEMPLATE = ("spec", "template", "metadata")
_DOMAIN = ("spec", "template", "spec", "domain")
_INTERFACES = (*_DOMAIN, "devices", "interfaces")
_FIRMWARE = (*_DOMAIN, "firmware")


def patches_of(clone: VirtualMachineClone, kept: Mapping[str, Any]) -> list[str]:
    """The operations, in order, that make the target from what was kept of its source. The user's own come last."""
    spec = clone.spec
    template = spec.template
    return [
        *_addresses(_at(kept, *_INTERFACES), spec.new_mac_addresses or {}),
        *_identity(_at(kept, *_FIRMWARE), spec.new_smbios_serial),
        *_left_out(kept, (*_METADATA, "labels"), spec.label_filters),
        *_left_out(kept, (*_METADATA, "annotations"), spec.annotation_filters),
        *_left_out(kept, (*_TEMPLATE, "labels"), template.label_filters),
        *_left_out(kept, (*_TEMPLATE, "annotations"), template.annotation_filters),
        *(spec.patches or ()),
    ]


def is_kept(key: str, filters: Sequence[str]) -> bool:
    """A key passes the filters: one of them takes it in, and none leaves it out."""
    without = [one[1:] for one in filters if one.startswith("!")]
    taken = [one for one in filters if not one.startswith("!")]
    return _matches(key, taken) and not _matches(key, without)


def _matches(key: str, patterns: Iterable[str]) -> bool:
    return any(key.startswith(one[:-1]) if one.endswith("*") else key == one for one in patterns)


def _addresses(interfaces: Any, given: Mapping[str, str]) -> Iterator[str]:
    for index, interface in enumerate(interfaces if isinstance(interfaces, list) else ()):
        if not isinstance(interface, Mapping):
            continue
        path = (*_INTERFACES, index, "macAddress")
        if address := given.get(str(interface.get("name"))):
            yield text_of("add", path, address)
        elif "macAddress" in interface:
            yield text_of("remove", path)


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
