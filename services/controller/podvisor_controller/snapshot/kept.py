"""What a content says was kept of a machine, and the claims that are made of it. Pure.

Invariant: a content is anybody's to have written: what does not have the shape of a machine, or of a claim, is none.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from podvisor_common.api import core, v1
from podvisor_common.api.quantity import Quantity, QuantityError, parse_quantity
from podvisor_common.api.snapshot import VirtualMachineSnapshotContent, VolumeBackup
from podvisor_common.kube.resources import VOLUME_SNAPSHOTS

from podvisor_controller.snapshot.outline import claim_of, part

_OF_SPEC = ("accessModes", "resources", "storageClassName", "volumeMode")


def machine_in(content: VirtualMachineSnapshotContent) -> Mapping[str, Any] | None:
    """The machine that was kept; None where that is no machine."""
    found = content.spec.source.virtual_machine
    inner: Any = found
    for name in ("spec", "template", "spec"):
        inner = inner.get(name) if isinstance(inner, dict) else None
    is_whole = isinstance(inner, dict) and isinstance((found or {}).get("metadata"), dict)
    return found if is_whole and _has_shape(found, v1.VirtualMachine) else None


def fault_of(content: VirtualMachineSnapshotContent) -> str:
    """What was to be kept and is not there, for a person; empty when all of it is."""
    name = content.metadata.name
    if machine_in(content) is None:
        return f"VMSnapshotContent {name} holds no VirtualMachine"
    for backup in content.spec.volume_backups or ():
        claim = backup.persistent_volume_claim
        if not (claim_of(backup)[0] and _has_shape(claim, core.PersistentVolumeClaim)):
            return f'VMSnapshotContent {name} holds no PersistentVolumeClaim of volume "{backup.volume_name}"'
    return ""


def spec_of_restored(backup: VolumeBackup, restore_size: Quantity | None) -> dict[str, Any]:
    """The specification of a claim with the content that was kept, which needs `restore_size`."""
    kept = part(backup.persistent_volume_claim, "spec")
    spec = {key: kept[key] for key in _OF_SPEC if key in kept}
    resources = spec.get("resources") or {}
    requests = dict(resources.get("requests") or {})
    requests["storage"] = _larger(requests.get("storage"), restore_size)
    return spec | {
        "resources": resources | {"requests": requests},
        "dataSource": {
            "apiGroup": VOLUME_SNAPSHOTS.group,
            "kind": VOLUME_SNAPSHOTS.kind,
            "name": backup.volume_snapshot_name,
        },
    }


def _larger(asked: Quantity | None, needed: Quantity | None) -> Quantity:
    """The larger one, in the words in which it was said."""
    given = [size for size in (asked, needed) if size is not None]
    try:
        return max(given, key=parse_quantity, default="0")
    except QuantityError:
        return given[0]


def _has_shape(obj: Any, type_: type[msgspec.Struct]) -> bool:
    try:
        msgspec.convert(obj, type_)
    except msgspec.ValidationError:
        return False
    return True
