"""All that a decision about one VirtualMachineRestore depends on, and the questions asked of it. Pure.

Invariant: an Observed never changes. What has to be asked for is read first, and then all that the caches have, in one go. Every
property is a fact, never a wish. What says that the target is as it shall be is the mark on the target itself, so that it is
written once, whoever goes on.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from podvisor_common.api import core, meta, v1
from podvisor_common.api.meta import ObjectMeta
from podvisor_common.api.snapshot import (
    VirtualMachineRestore,
    VirtualMachineSnapshot,
    VirtualMachineSnapshotContent,
    VolumeBackup,
    VolumeRestore,
    names,
)
from podvisor_common.api.snapshot.names import ConditionType, SnapshotPhase, TargetReadinessPolicy
from podvisor_common.api.storage import VolumeSnapshot
from podvisor_common.api.v1.names import RunStrategy, StateChange

from podvisor_controller.restore import claims
from podvisor_controller.restore.machine import claims_named, mark_of
from podvisor_controller.snapshot.kept import machine_in

_GRACE_PERIOD = timedelta(seconds=names.DEFAULT_GRACE_PERIOD_S)


@dataclass(frozen=True, slots=True)
class Observed:
    """One restore, its target with whatever instance has its name, and what there is of its snapshot and its claims.

    `content` is the whole content, and `volume_claims` has those claims that exist under the names of the restore's. `volume_snapshots` has
    what exists of those that claims are still to be made from. `late_bound` are claims that wait for a guest. `other_users` says,
    for a claim that is to be replaced, who else than the target has it. `last_restore` is the one that the target is the work of, if
    it still exists. `is_starting`: an instance is being asked for. `refusal`
    says what was refused last, `verdict` what was for good, and `patch_fault` why no new target can be made, all for a person.
    """

    restore: VirtualMachineRestore
    at: datetime
    target: v1.VirtualMachine | None = None
    instance: v1.VirtualMachineInstance | None = None
    snapshot: VirtualMachineSnapshot | None = None
    content: VirtualMachineSnapshotContent | None = None
    volume_claims: Mapping[str, core.PersistentVolumeClaim] = field(default_factory=dict)
    volume_snapshots: Mapping[str, VolumeSnapshot] = field(default_factory=dict)
    late_bound: frozenset[str] = frozenset()
    other_users: Mapping[str, str] = field(default_factory=dict)
    last_restore: VirtualMachineRestore | None = None
    is_starting: bool = False
    source_lives: bool = False
    patch_fault: str = ""
    refusal: str = ""
    verdict: str = ""

    @property
    def is_deleting(self) -> bool:
        """Somebody does not want the restore any more."""
        return self.restore.metadata.is_being_deleted

    @property
    def is_complete(self) -> bool:
        """The status says that nothing is left to be done."""
        return self.restore.status.complete is True

    @property
    def told_failure(self) -> str:
        """Why the restore has failed for good, as the status says; empty when it has not."""
        known = meta.find_condition(self.restore.status.conditions, ConditionType.FAILURE)
        return known.reason if known is not None and known.is_true else ""

    @property
    def is_over(self) -> bool:
        """The status says that it is complete or has failed."""
        return self.is_complete or bool(self.told_failure)

    @property
    def is_kept(self) -> bool:
        """All of the snapshot was there at one moment: what is missing of it now does not come any more."""
        if self.snapshot is None:
            return False
        known = self.snapshot.status
        return known.ready_to_use is True or known.phase == SnapshotPhase.SUCCEEDED

    @property
    def has_begun(self) -> bool:
        """The status says which claims there will be: some of them may be there."""
        return self.restore.status.restores is not None

    @property
    def is_restored(self) -> bool:
        """The target is what the restore makes of it."""
        return self.target is not None and self.is_marked(self.target.metadata)

    @property
    def is_overtaken(self) -> bool:
        """The target is the work of a restore that was asked for later."""
        last, created = self.last_restore, self.restore.metadata.creation_timestamp
        if last is None or created is None or last.metadata.creation_timestamp is None:
            return False
        return meta.parse_time(last.metadata.creation_timestamp) > meta.parse_time(created)

    @property
    def holds_lock(self) -> bool:
        """The target says that this restore is in progress."""
        target = self.target
        return (
            target is not None and target.status.restore_in_progress == self.restore.metadata.name
        )

    @property
    def is_protected(self) -> bool:
        """The restore stays until it is let go of, and goes with its target."""
        metadata = self.restore.metadata
        is_owned = bool(metadata.owner_references) or self.target is None
        return names.RESTORE_FINALIZER in (metadata.finalizers or ()) and is_owned

    @property
    def policy(self) -> str:
        """What is done about a target that runs."""
        return self.restore.spec.target_readiness_policy or TargetReadinessPolicy.WAIT_GRACE_PERIOD

    @property
    def is_ready(self) -> bool:
        """No guest has what is to be replaced."""
        return self.target is None or (self.instance is None and not self.is_starting)

    @property
    def may_go_on(self) -> bool:
        """No guest is waited for: none has what is to be replaced, or what it had has gone already."""
        return self.is_ready or self.has_replaced

    @property
    def is_being_stopped(self) -> bool:
        """The target was asked to stop."""
        target, instance = self.target, self.instance
        if target is None or instance is None or instance.metadata.is_being_deleted:
            return True
        requests = target.status.state_change_requests or ()
        is_asked = any(
            one.action == StateChange.STOP and one.uid in ("", instance.metadata.uid)
            for one in requests
        )
        return is_asked or target.effective_run_strategy == RunStrategy.HALTED

    @property
    def grace_left(self) -> timedelta | None:
        """How long the target may still run; None when it may run as long as it wants, or not at all."""
        created = self.restore.metadata.creation_timestamp
        if self.policy != TargetReadinessPolicy.WAIT_GRACE_PERIOD or created is None:
            return None
        return meta.parse_time(created) + _GRACE_PERIOD - self.at

    @property
    def kept(self) -> Mapping[str, Any] | None:
        """What was kept of the machine; None where that is no machine."""
        return machine_in(self.content) if self.content is not None else None

    @property
    def volumes(self) -> list[VolumeRestore]:
        """What becomes of the volumes that were kept."""
        told = self.restore.status.restores
        if told is not None or self.content is None:
            return told or []
        return claims.volumes_of(self.restore, self.content)

    @property
    def unmade(self) -> list[VolumeRestore]:
        """Those whose claim is still to be made."""
        return [volume for volume in self.volumes if not self._is_ours(self._claim(volume))]

    @property
    def missing(self) -> list[VolumeRestore]:
        """Those of them with nothing of the name of their claim."""
        return [volume for volume in self.unmade if self._claim(volume) is None]

    @property
    def in_the_way(self) -> list[core.PersistentVolumeClaim]:
        """Claims that have the name of one that is still to be made."""
        found = (self._claim(volume) for volume in self.unmade)
        return [claim for claim in found if claim is not None]

    @property
    def replaced(self) -> list[core.PersistentVolumeClaim]:
        """Those of them whose place is to be taken: what the target has or, where there is none, what was kept of it."""
        in_place = self._in_place
        found = ((volume, self._claim(volume)) for volume in self.unmade)
        return [
            claim
            for volume, claim in found
            if claim is not None
            and claim.metadata.name in in_place
            and self._is_machines(claim, volume)
        ]

    @property
    def leaving(self) -> list[core.PersistentVolumeClaim]:
        """Those of them whose deletion has not begun."""
        return [claim for claim in self.replaced if not claim.metadata.is_being_deleted]

    @property
    def has_replaced(self) -> bool:
        """Of a claim whose place is taken nothing is left, or soon, but what was kept."""
        return self.has_begun and any(
            self._is_replaced(self.volume_claims.get(name)) for name in self._in_place
        )

    @property
    def unbound(self) -> list[str]:
        """Claims of the restore that have no volume yet, and do not wait for a guest to get one."""
        return [
            claim.metadata.name
            for claim in self.made
            if not claim.is_bound and claim.metadata.name not in self.late_bound
        ]

    @property
    def made(self) -> list[core.PersistentVolumeClaim]:
        """The claims that the restore has made."""
        found = (self._claim(volume) for volume in self.volumes)
        return [claim for claim in found if claim is not None and self._is_ours(claim)]

    @property
    def abandoned(self) -> list[core.PersistentVolumeClaim]:
        """Those of them that nothing came of: the target does not name them, and never will.

        Never one that took another's place: it is what its owner had, and the only one.
        """
        own = claims_named(self.target) | self._in_place
        return [
            claim
            for claim in self.made
            if claim.metadata.name not in own and not claim.metadata.is_being_deleted
        ]

    @property
    def unowned(self) -> list[core.PersistentVolumeClaim]:
        """Those of them that are to go with the target and do not say so yet."""
        owned = {
            volume.persistent_volume_claim
            for volume in self.volumes
            if claims.is_to_be_owned(self.restore, volume.volume_name, self.backup(volume))
        }
        return [
            claim
            for claim in self.made
            if claim.metadata.name in owned and not claim.metadata.owner_references
        ]

    def backup(self, volume: VolumeRestore) -> VolumeBackup | None:
        """What was kept of a volume."""
        backups = (self.content.spec.volume_backups if self.content is not None else None) or ()
        return next((one for one in backups if one.volume_name == volume.volume_name), None)

    def is_marked(self, metadata: ObjectMeta) -> bool:
        """The object is this restore's doing."""
        return metadata.annotation(names.LAST_RESTORE_ANNOTATION) == mark_of(self.restore)

    def _claim(self, volume: VolumeRestore) -> core.PersistentVolumeClaim | None:
        return self.volume_claims.get(volume.persistent_volume_claim)

    def _is_ours(self, claim: core.PersistentVolumeClaim | None) -> bool:
        return claim is not None and self.is_marked(claim.metadata)

    def _is_machines(self, claim: core.PersistentVolumeClaim, volume: VolumeRestore) -> bool:
        if self.target is not None:
            return claim.metadata.name in claims_named(self.target)
        backup = self.backup(volume)
        return backup is not None and claims.is_what_was_kept(claim, backup)

    def _is_replaced(self, claim: core.PersistentVolumeClaim | None) -> bool:
        return claim is None or claim.metadata.is_being_deleted or self._is_ours(claim)

    @property
    def _in_place(self) -> set[str]:
        """The claims whose place is taken, by name."""
        return {
            volume.persistent_volume_claim
            for volume in self.volumes
            if claims.is_in_place(self.restore, volume.volume_name)
        }
