"""What the controller keeps of contents and VolumeSnapshots, and by what they, snapshots and machines can be looked up.

Invariant: pure. What a content kept of a machine and its claims may be large, and is read from the API server by whoever needs it:
here are the names alone.
"""

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace
from podvisor_common.api import v1
from podvisor_common.api.meta import ObjectMeta
from podvisor_common.api.snapshot import (
    SourceSpec,
    VirtualMachineSnapshot,
    VirtualMachineSnapshotContent,
    VolumeBackup,
)
from podvisor_common.api.snapshot import names as snapshot_names
from podvisor_common.api.storage import VolumeSnapshot
from podvisor_common.api.v1 import names
from podvisor_common.kube.resources import ObjectKey

SNAPSHOT_INDEX = "snapshot"
SOURCE_INDEX = "source"
LOCK_INDEX = "snapshot-in-progress"

_FINAL = frozenset({snapshot_names.SnapshotPhase.SUCCEEDED, snapshot_names.SnapshotPhase.FAILED})


def content_outline(content: VirtualMachineSnapshotContent) -> VirtualMachineSnapshotContent:
    """A content without what it kept: of the machine its name and the names and sources of its volumes, of claims name and class."""
    old = content.metadata
    metadata = ObjectMeta(
        name=old.name,
        namespace=old.namespace,
        uid=old.uid,
        resource_version=old.resource_version,
        deletion_timestamp=old.deletion_timestamp,
        finalizers=old.finalizers,
    )
    spec = content.spec
    machine = spec.source.virtual_machine
    source = SourceSpec(virtual_machine=_machine_outline(machine) if machine is not None else None)
    backups = [
        replace(backup, persistent_volume_claim=_claim_outline(backup.persistent_volume_claim))
        for backup in spec.volume_backups or ()
    ]
    return replace(
        content, metadata=metadata, spec=replace(spec, source=source, volume_backups=backups)
    )


def volume_snapshot_outline(snapshot: VolumeSnapshot) -> VolumeSnapshot:
    """A VolumeSnapshot without labels, annotations and finalizers."""
    old = snapshot.metadata
    metadata = ObjectMeta(
        name=old.name,
        namespace=old.namespace,
        uid=old.uid,
        resource_version=old.resource_version,
        deletion_timestamp=old.deletion_timestamp,
        owner_references=old.owner_references,
    )
    return replace(snapshot, metadata=metadata)


def kept_volumes(content: VirtualMachineSnapshotContent) -> list[dict[str, Any]]:
    """The volumes of the machine that was kept, by the outline of its content: each with its name and its source."""
    return _volumes(content.spec.source.virtual_machine or {})


def claim_of(backup: VolumeBackup) -> tuple[str, str | None]:
    """Name and StorageClass of the claim that was kept."""
    claim = backup.persistent_volume_claim
    name, class_ = part(claim, "metadata").get("name"), part(claim, "spec").get("storageClassName")
    return str(name or ""), str(class_) if class_ else None


def content_key(content: VirtualMachineSnapshotContent) -> ObjectKey:
    """The key of the snapshot that the content is of."""
    name = content.spec.virtual_machine_snapshot_name or ""
    return ObjectKey(content.metadata.namespace, name)


def by_snapshot(content: VirtualMachineSnapshotContent) -> list[str]:
    """The index of contents by their snapshot."""
    return [str(content_key(content))]


def by_source(snapshot: VirtualMachineSnapshot) -> list[str]:
    """The index of snapshots by the machine that they wait for or have locked; what is over has let go of it."""
    if snapshot.status.phase in _FINAL or snapshot.spec.source.kind != names.VIRTUAL_MACHINE:
        return []
    return [str(ObjectKey(snapshot.metadata.namespace, snapshot.spec.source.name))]


def by_lock(vm: v1.VirtualMachine) -> list[str]:
    """The index of machines by the snapshot that has locked them."""
    name = vm.status.snapshot_in_progress
    return [str(ObjectKey(vm.metadata.namespace, name))] if name else []


def owner_of(snapshot: VolumeSnapshot) -> ObjectKey | None:
    """The key of the content that a VolumeSnapshot belongs to; None when it belongs to none."""
    owner = snapshot.metadata.controller_reference()
    if owner is None or owner.kind != snapshot_names.SNAPSHOT_CONTENT:
        return None
    return ObjectKey(snapshot.metadata.namespace, owner.name)


def _machine_outline(machine: Mapping[str, Any]) -> dict[str, Any]:
    name = str(part(machine, "metadata").get("name") or "")
    volumes = [
        {key: (str(value) if key == "name" else {}) for key, value in volume.items()}
        for volume in _volumes(machine)
    ]
    return {
        "metadata": {"name": name},
        "spec": {"template": {"spec": {"volumes": volumes}}},
    }


def _claim_outline(claim: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "metadata": {"name": part(claim, "metadata").get("name")},
        "spec": {"storageClassName": part(claim, "spec").get("storageClassName")},
    }


def _volumes(machine: Mapping[str, Any]) -> list[dict[str, Any]]:
    volumes = part(machine, "spec", "template", "spec").get("volumes")
    return [v for v in volumes if isinstance(v, dict)] if isinstance(volumes, list) else []


def part(obj: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    """What stands there; empty when it is no object: what is kept is anybody's to have written."""
    for name in path:
        child = obj.get(name)
        obj = child if isinstance(child, Mapping) else {}
    return obj
