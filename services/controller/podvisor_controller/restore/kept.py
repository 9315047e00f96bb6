"""What a content says was kept of a machine. Pure.

Invariant: a content is anybody's to have written: what does not have the shape of a machine, or of a claim, is none.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from podvisor_common.api import core, v1
from podvisor_common.api.snapshot import VirtualMachineSnapshotContent

from podvisor_controller.snapshot.outline import claim_of


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


def _has_shape(obj: Any, type_: type[msgspec.Struct]) -> bool:
    try:
        msgspec.convert(obj, type_)
    except msgspec.ValidationError:
        return False
    return True
