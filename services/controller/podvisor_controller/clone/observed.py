"""All that a decision about one VirtualMachineClone depends on, and the questions asked of it. Pure.

Invariant: an Observed is read in one go and never changes; every property is a fact, never a wish.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from podvisor_common.api import core, meta, v1
from podvisor_common.api.clone import VirtualMachineClone
from podvisor_common.api.clone import names as clone_names
from podvisor_common.api.clone.names import ClonePhase, EventReason
from podvisor_common.api.snapshot import (
    VirtualMachineRestore,
    VirtualMachineSnapshot,
    VirtualMachineSnapshotContent,
)
from podvisor_common.api.snapshot.names import ConditionType, SnapshotPhase
from podvisor_common.api.v1 import names

from podvisor_controller.clone.manifests import restore_name, snapshot_name, target_name
from podvisor_controller.snapshot.outline import kept_volumes

_EARLY = ("", ClonePhase.SNAPSHOT_IN_PROGRESS)
_CLAIM_SOURCES = ("persistentVolumeClaim", "dataVolume")


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a clone does not get on: for an event and a condition."""

    reason: EventReason
    message: str


@dataclass(frozen=True, slots=True)
class Observed:
    """One clone, its source, its target, and the snapshot and the restore that it is made by.

    `source` is the machine, where that is the source. `content` is the outline of the snapshot's. `volume_claims` are those of the
    restore. `refusal` is what the API server refused last, for a person. `unknown_interfaces` are the names of none that new addresses are for.
    """

    clone: VirtualMachineClone
    at: datetime
    source: v1.VirtualMachine | None = None
    snapshot: VirtualMachineSnapshot | None = None
    content: VirtualMachineSnapshotContent | None = None
    restore: VirtualMachineRestore | None = None
    target: v1.VirtualMachine | None = None
    volume_claims: Mapping[str, core.PersistentVolumeClaim] = field(default_factory=dict)
    refusal: str = ""
    unknown_interfaces: Sequence[str] = ()

    @property
    def phase(self) -> str:
        """How far it is, as the status says."""
        return self.clone.status.phase

    @property
    def is_of_machine(self) -> bool:
        """The source is a machine, of which a snapshot is taken for the clone alone."""
        return self.clone.spec.source.kind == names.VIRTUAL_MACHINE

    @property
    def has_own_snapshot(self) -> bool:
        """The snapshot that was taken for the clone is there."""
        return self.is_of_machine and self._is_own(self.snapshot)

    @property
    def has_own_restore(self) -> bool:
        """The restore that was made for the clone is there."""
        return self._is_own(self.restore)

    @property
    def is_snapshot_ready(self) -> bool:
        """A machine can be restored from the snapshot."""
        return self.snapshot is not None and self.snapshot.status.ready_to_use is True

    @property
    def is_restored(self) -> bool:
        """The restore is complete."""
        return self.restore is not None and self.restore.status.complete is True

    @property
    def are_claims_bound(self) -> bool:
        """All claims of the target have what was to be in them: the snapshot is not needed any more."""
        made = (self.restore.status.restores if self.restore is not None else None) or ()
        found = [self.volume_claims.get(one.persistent_volume_claim) for one in made]
        return self.is_restored and all(claim is not None and claim.is_bound for claim in found)

    @property
    def is_restore_over(self) -> bool:
        """Nothing more is to come of the restore."""
        return self.phase == ClonePhase.FAILED or self.are_claims_bound

    @property
    def pending(self) -> Trouble | None:
        """What the clone waits for before it begins."""
        if self.snapshot is not None or self.phase not in _EARLY:
            return None
        source, namespace = self.clone.spec.source, self.clone.metadata.namespace
        if not self.is_of_machine or self.source is None:
            message = f"{source.kind} {source.name} in namespace {namespace} does not exist"
            return Trouble(EventReason.SOURCE_DOES_NOT_EXIST, message)
        message = ", ".join(_unsupported(self.source))
        return Trouble(EventReason.VOLUME_SNAPSHOTS_INVALID, message) if message else None

    @property
    def failure(self) -> Trouble | None:
        """Why nothing can come of the clone any more."""
        if self.phase == ClonePhase.SUCCEEDED or self.is_restored:
            return None
        return self._of_restore() or self._of_snapshot()

    def _of_snapshot(self) -> Trouble | None:
        snapshot, name = self.snapshot, snapshot_name(self.clone)
        if snapshot is None:
            if self.phase in _EARLY:
                return None
            message = f"snapshot {name} does not exist anymore"
            return Trouble(EventReason.SNAPSHOT_DELETED, message)
        if self.is_of_machine and not self.has_own_snapshot:
            message = f"VirtualMachineSnapshot {name} exists and is not of this clone"
            return Trouble(EventReason.SNAPSHOT_CONTENT_INVALID, message)
        if snapshot.status.phase == SnapshotPhase.FAILED:
            message = f"snapshot {name} failed: {_why(snapshot.status.conditions)}"
            return Trouble(EventReason.SNAPSHOT_CONTENT_INVALID, message)
        if lost := _lost(snapshot, self.content):
            message = (
                f"snapshot {name} is not ready anymore: VolumeSnapshots ({','.join(lost)}) missing"
            )
            return Trouble(EventReason.SNAPSHOT_CONTENT_INVALID, message)
        missing = _not_kept(self.content) if self.is_snapshot_ready else []
        if missing:
            message = f"volume {', '.join(missing)} is not backed up in snapshot {name}"
            return Trouble(EventReason.SNAPSHOT_CONTENT_INVALID, message)
        return None

    def _of_restore(self) -> Trouble | None:
        reason, name = EventReason.RESTORE_CREATION_FAILED, restore_name(self.clone)
        restore = self.restore
        if restore is None and self.target is not None:
            message = f"VirtualMachine {target_name(self.clone)} exists already"
            return Trouble(reason, message)
        if restore is None:
            unknown = ", ".join(self.unknown_interfaces)
            message = f"spec.newMacAddresses: the source has no interface {unknown}"
            return Trouble(reason, message) if unknown else None
        if not self.has_own_restore:
            message = f"VirtualMachineRestore {name} exists and is not of this clone"
            return Trouble(reason, message)
        why = _why(restore.status.conditions)
        return Trouble(reason, f"restore {name} failed: {why}") if why else None

    def _is_own(self, obj: VirtualMachineSnapshot | VirtualMachineRestore | None) -> bool:
        owner = obj.metadata.controller_reference() if obj is not None else None
        return (
            owner is not None
            and owner.kind == clone_names.CLONE
            and owner.uid == self.clone.metadata.uid
        )


def _why(conditions: list[meta.Condition] | None) -> str:
    """Why a snapshot or a restore has failed; empty when it has not."""
    failure = meta.find_condition(conditions, ConditionType.FAILURE)
    if failure is None or not failure.is_true:
        return ""
    return ": ".join(filter(None, (failure.reason, failure.message)))


def _lost(
    snapshot: VirtualMachineSnapshot, content: VirtualMachineSnapshotContent | None
) -> list[str]:
    """The VolumeSnapshots of a snapshot that was taken which are gone. One that is not ready yet, or has an error, is not."""
    is_usable = snapshot.status.ready_to_use is not False
    if content is None or is_usable or snapshot.status.phase != SnapshotPhase.SUCCEEDED:
        return []
    there = {one.volume_snapshot_name for one in content.status.volume_snapshot_status or ()}
    kept = [backup.volume_snapshot_name for backup in content.spec.volume_backups or ()]
    return [name for name in kept if name and name not in there]


def _unsupported(vm: v1.VirtualMachine) -> list[str]:
    """What is said of the volumes of a machine whose content cannot be taken over."""
    told = {one.name: one.enabled for one in vm.status.volume_snapshot_statuses or ()}
    sentences = []
    for volume in vm.spec.template.spec.volumes or ():
        if not volume.claim_name or volume.ephemeral is not None or told.get(volume.name):
            continue
        sentences.append(
            f"Virtual Machine volume {volume.name} does not support snapshots"
            if volume.name in told
            else f"Virtual Machine volume {volume.name} snapshot support unknown"
        )
    return sentences


def _not_kept(content: VirtualMachineSnapshotContent | None) -> list[str]:
    """The volumes with a claim whose content is not in the snapshot: the target would have them along with the source."""
    if content is None:
        return []
    kept = {backup.volume_name for backup in content.spec.volume_backups or ()}
    return [
        str(volume.get("name"))
        for volume in kept_volumes(content)
        if any(source in volume for source in _CLAIM_SOURCES) and volume.get("name") not in kept
    ]
