"""What stands in the way of a restore, for good or for now. Pure.

Invariant: what somebody can still put right without touching the restore is waited for; what can never be is a failure. Sentences
that KubeVirt has for the same are KubeVirt's: clients look for them.
"""

from datetime import timedelta

from podvisor_common.api import v1
from podvisor_common.api.meta import ObjectMeta
from podvisor_common.api.snapshot import VirtualMachineSnapshot
from podvisor_common.api.snapshot.names import SnapshotPhase, TargetReadinessPolicy
from podvisor_common.kube.resources import ObjectKey

from podvisor_controller.restore.observed import Observed
from podvisor_controller.snapshot.kept import fault_of

GRACE_PERIOD_EXCEEDED = "Restore target failed to be ready within 5m0s"
TARGET_NOT_READY = "Restore target not ready"
TARGET_IS_ANOTHER = (
    "restore source and restore target are different but restore target already exists"
)


def failure_of(now: Observed) -> str:
    """Why nothing can come of the restore any more; empty while something can."""
    if now.told_failure:
        return now.told_failure
    if now.is_restored or now.is_complete:
        return ""
    return (
        _of_successor(now)
        or _of_policy(now)
        or _of_snapshot(now)
        or _of_target(now)
        or _of_overrides(now)
        or _of_names(now)
        or _of_volumes(now)
        or _of_verdict(now)
    )


def hindrance_of(now: Observed) -> str:
    """What is waited for; empty when the next step can be made."""
    snapshot, key = now.snapshot, _snapshot_key(now)
    if snapshot is None:
        return f"VMSnapshot {key} does not exist"
    if not (now.has_begun or snapshot.status.ready_to_use):
        return f"VMSnapshot {key} not ready"
    if snapshot.metadata.is_being_deleted and not now.has_begun:
        return f"VMSnapshot {key} is being deleted"
    if now.content is None:
        return f"VMSnapshotContent of VMSnapshot {key} does not exist"
    if now.has_begun and now.leaving and (why := _doubt(now)):
        return why
    return _busy(now.restore.metadata.name, now.target) or _taken(now)


def _of_successor(now: Observed) -> str:
    """Whose work would be undone by a restore that has waited. What has begun goes on: the target is its own."""
    if now.has_begun or not now.is_overtaken or now.last_restore is None:
        return ""
    return (
        f'VirtualMachineRestore "{now.last_restore.metadata.name}", which was made later, has restored the target meanwhile.'
        " Make a new restore if this one is wanted all the same."
    )


def _of_policy(now: Observed) -> str:
    if now.may_go_on:
        return ""
    if now.policy == TargetReadinessPolicy.FAIL_IMMEDIATE:
        return TARGET_NOT_READY
    left = now.grace_left
    return GRACE_PERIOD_EXCEEDED if left is not None and left <= timedelta(0) else ""


def _of_snapshot(now: Observed) -> str:
    snapshot, key = now.snapshot, _snapshot_key(now)
    if snapshot is not None and _has_failed(snapshot):
        return f"VMSnapshot {key} failed and is invalid to use"
    if now.has_begun and snapshot is None:
        return f"VMSnapshot {key} does not exist"
    if now.has_begun and now.content is None:
        return f"VMSnapshotContent of VMSnapshot {key} does not exist"
    if now.content is not None and (fault := fault_of(now.content)):
        return fault
    # Once something has gone that only the snapshot has, it is waited for.
    is_at_stake = now.has_begun and now.leaving and not now.has_replaced
    return _doubt(now) if is_at_stake else ""


def _doubt(now: Observed) -> str:
    """Why the snapshot may not have, or not keep, what is about to be deleted; empty where it does."""
    snapshot, content = now.snapshot, now.content
    # When a claim has gone, the snapshot stays until the restore is over.
    parts: list[tuple[str, ObjectMeta, bool]] = []
    if snapshot is not None and not now.has_replaced:
        parts.append(("VMSnapshot", snapshot.metadata, _is_ready(snapshot)))
    if content is not None:
        is_ready = content.status.ready_to_use is True
        parts.append(("VMSnapshotContent", content.metadata, is_ready))
    for one in now.volume_snapshots.values():
        is_ready = one.status.ready_to_use is True
        parts.append(("volumeSnapshot", one.metadata, is_ready))
    for kind, metadata, is_ready in parts:
        if metadata.is_being_deleted:
            return f"{kind} {metadata.name} is being deleted"
        if not is_ready:
            return f"{kind} {metadata.name} is not ready to use"
    return ""


def _of_target(now: Observed) -> str:
    snapshot, target = now.snapshot, now.target
    if target is not None:
        source = snapshot.status.source_uid if snapshot is not None else None
        return TARGET_IS_ANOTHER if source and source != target.metadata.uid else ""
    fault = now.patch_fault
    return f"error patching VM {now.restore.spec.target.name}: {fault}" if fault else ""


def _of_overrides(now: Observed) -> str:
    """Which override is of no volume: the restore would be another one than was asked for."""
    content = now.content
    if now.has_begun or content is None or not _is_ready(now.snapshot):
        return ""
    kept = {volume.volume_name for volume in now.volumes}
    for index, override in enumerate(now.restore.spec.volume_restore_overrides or ()):
        if override.volume_name not in kept:
            field = f"spec.volumeRestoreOverrides[{index}].volumeName"
            return (
                f'{field}: VMSnapshot {_snapshot_key(now)} has no volume "{override.volume_name}"'
            )
    return ""


def _of_names(now: Observed) -> str:
    """Which volumes would get one claim: the content of one of them would be taken for the other's."""
    if now.has_begun:
        return ""
    given: dict[str, str] = {}
    for volume in now.volumes:
        name = volume.persistent_volume_claim
        if name in given:
            return f'volumes "{given[name]}" and "{volume.volume_name}" would both get PVC "{name}"'
        given[name] = volume.volume_name
    return ""


def _of_volumes(now: Observed) -> str:
    if now.content is None or not (now.has_begun or now.is_kept):
        return ""
    for volume in now.unmade:
        if volume.volume_snapshot_name not in now.volume_snapshots:
            return _loss(now.snapshot) or f"missing volumeSnapshot {volume.volume_snapshot_name}"
    for claim in now.made:
        if claim.status.phase == "Lost":
            return f'PVC {claim.metadata.namespace}/{claim.metadata.name} in status "Lost"'
    return ""


def _of_verdict(now: Observed) -> str:
    """What can never be made. Once a claim has gone it is waited for all the same: nobody else has the content."""
    return "" if now.has_replaced else now.verdict


def _loss(snapshot: VirtualMachineSnapshot | None) -> str:
    """What is missing, in the snapshot's own words: it knows of all that was kept. Empty where it has not told yet."""
    if snapshot is None or _is_ready(snapshot) or snapshot.status.error is None:
        return ""
    return snapshot.status.error.message or ""


def _busy(restore: str, target: v1.VirtualMachine | None) -> str:
    """Why the target cannot be locked."""
    if target is None:
        return ""
    if target.metadata.is_being_deleted:
        return f'VirtualMachine "{target.metadata.name}" is being deleted.'
    if target.status.snapshot_in_progress:
        return f'VirtualMachineSnapshot "{target.status.snapshot_in_progress}" of the target is in progress.'
    other = target.status.restore_in_progress
    return f"vm restore {other} in progress" if other and other != restore else ""


def _taken(now: Observed) -> str:
    """Which claim has a name that is wanted."""
    replaced = {claim.metadata.name for claim in now.replaced}
    for claim in now.in_the_way:
        name = claim.metadata.name
        if name not in replaced:
            return (
                f'PersistentVolumeClaim "{name}" exists and is not of this restore. It goes on when that is deleted;'
                " another spec.volumeRestorePolicy gives the claims other names."
            )
        if name in now.other_users:
            return f'PersistentVolumeClaim "{name}" cannot be replaced: {now.other_users[name]} has it.'
    return ""


def _snapshot_key(now: Observed) -> ObjectKey:
    restore = now.restore
    return ObjectKey(restore.metadata.namespace, restore.spec.virtual_machine_snapshot_name)


def _has_failed(snapshot: VirtualMachineSnapshot) -> bool:
    return snapshot.status.phase == SnapshotPhase.FAILED


def _is_ready(snapshot: VirtualMachineSnapshot | None) -> bool:
    return snapshot is not None and snapshot.status.ready_to_use is True
