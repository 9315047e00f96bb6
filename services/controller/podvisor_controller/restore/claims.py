"""The claims that a restore makes of the volumes that were kept. Pure.

Invariant: the names of a restore's claims follow from the restore and what was kept, so that whoever goes on with it finds them.
"""

from collections.abc import Mapping
from typing import Any

from podvisor_common.api import core, v1
from podvisor_common.api.snapshot import (
    VirtualMachineRestore,
    VirtualMachineSnapshotContent,
    VolumeBackup,
    VolumeRestore,
    VolumeRestoreOverride,
    names,
)
from podvisor_common.api.snapshot.names import VolumeOwnershipPolicy, VolumeRestorePolicy
from podvisor_common.api.storage import VolumeSnapshot
from podvisor_common.kube.resources import PERSISTENT_VOLUME_CLAIMS

from podvisor_controller.restore.machine import mark_of
from podvisor_controller.snapshot.kept import spec_of_restored
from podvisor_controller.snapshot.outline import claim_of, part
from podvisor_controller.webhooks.defaults_instance import owner_reference

Json = dict[str, Any]

# What others noted on the claim that was kept, and on nothing that is made of it.
_NOTES_OF_OTHERS = (
    "pv.kubernetes.io",
    "volume.beta.kubernetes.io",
    "volume.kubernetes.io",
    "cdi.kubevirt.io",
    "k8s.io/CloneRequest",
    "k8s.io/CloneOf",
    "kubectl.kubernetes.io/last-applied-configuration",
)


def volumes_of(
    restore: VirtualMachineRestore, content: VirtualMachineSnapshotContent
) -> list[VolumeRestore]:
    """What becomes of each volume whose content was kept."""
    return [
        VolumeRestore(
            volume_name=backup.volume_name,
            persistent_volume_claim=_name(restore, backup),
            volume_snapshot_name=backup.volume_snapshot_name,
        )
        for backup in content.spec.volume_backups or ()
        if backup.volume_snapshot_name
    ]


def is_in_place(restore: VirtualMachineRestore, volume: str) -> bool:
    """The claim of that volume takes the place of the one that was kept: said by the restore alone, whatever else is gone."""
    is_wanted = restore.spec.volume_restore_policy == VolumeRestorePolicy.IN_PLACE
    return is_wanted and not _override(restore, volume).restore_name


def is_what_was_kept(claim: core.PersistentVolumeClaim, backup: VolumeBackup) -> bool:
    """The claim is the one that was kept, or one that a restore has made since."""
    if claim.metadata.annotation(names.LAST_RESTORE_ANNOTATION) is not None:
        return True
    return claim.metadata.uid == part(backup.persistent_volume_claim, "metadata").get("uid")


def is_to_be_owned(
    restore: VirtualMachineRestore, volume: str, backup: VolumeBackup | None
) -> bool:
    """The claim of that volume goes with the machine. One that takes another's place does if that one is known to have."""
    if restore.spec.volume_ownership_policy == VolumeOwnershipPolicy.NONE:
        return False
    if not is_in_place(restore, volume):
        return True
    kept = backup.persistent_volume_claim if backup is not None else {}
    owners = part(kept, "metadata").get("ownerReferences")
    return isinstance(owners, list) and any(
        isinstance(owner, Mapping) and owner.get("kind") == v1.names.VIRTUAL_MACHINE
        for owner in owners
    )


def manifest_of(
    restore: VirtualMachineRestore,
    backup: VolumeBackup,
    snapshot: VolumeSnapshot,
    *,
    source: str,
    target: v1.VirtualMachine | None,
) -> Json:
    """The claim for one volume of the machine `source`. It belongs to `target` where that is there and is to own it."""
    namespace = restore.metadata.namespace
    override = _override(restore, backup.volume_name)
    old = backup.persistent_volume_claim.get("metadata") or {}
    labels = {
        **(old.get("labels") or {}),
        names.RESTORE_SOURCE_NAME_LABEL: source,
        names.RESTORE_SOURCE_NAMESPACE_LABEL: namespace,
        **(override.labels or {}),
    }
    annotations = {
        **_own_annotations(old.get("annotations") or {}),
        **(override.annotations or {}),
        names.RESTORE_NAME_ANNOTATION: restore.metadata.name,
        names.LAST_RESTORE_ANNOTATION: mark_of(restore),
    }
    metadata: Json = {
        "name": _name(restore, backup),
        "namespace": namespace,
        "labels": labels,
        "annotations": annotations,
    }
    if target is not None and is_to_be_owned(restore, backup.volume_name, backup):
        metadata["ownerReferences"] = [owner_reference(target.metadata.name, target.metadata.uid)]
    return {
        "apiVersion": PERSISTENT_VOLUME_CLAIMS.api_version,
        "kind": PERSISTENT_VOLUME_CLAIMS.kind,
        "metadata": metadata,
        "spec": spec_of_restored(backup, snapshot.status.restore_size),
    }


def _own_annotations(annotations: Mapping[str, str]) -> dict[str, str]:
    return {
        key: value for key, value in annotations.items() if not key.startswith(_NOTES_OF_OTHERS)
    }


def _override(restore: VirtualMachineRestore, volume: str) -> VolumeRestoreOverride:
    overrides = restore.spec.volume_restore_overrides or ()
    found = (one for one in overrides if one.volume_name == volume)
    return next(found, VolumeRestoreOverride())


def _name(restore: VirtualMachineRestore, backup: VolumeBackup) -> str:
    if given := _override(restore, backup.volume_name).restore_name:
        return given
    match restore.spec.volume_restore_policy:
        case VolumeRestorePolicy.IN_PLACE:
            return claim_of(backup)[0]
        case VolumeRestorePolicy.PREFIX_TARGET_NAME:
            return f"{restore.spec.target.name}-{backup.volume_name}"
        case _:
            return f"restore-{restore.metadata.uid}-{backup.volume_name}"
