"""What the statuses of a VirtualMachineSnapshot and its content say. Pure.

Invariant: nobody else writes these statuses, so they are always computed whole; two equal situations give equal statuses. Reasons of
conditions are KubeVirt's, which are sentences; messages say more where there is more to say.
"""

from podvisor_common.api import meta
from podvisor_common.api.meta import Condition
from podvisor_common.api.snapshot import (
    SnapshotError,
    SnapshotVolumes,
    SourceIndication,
    VirtualMachineSnapshotContentStatus,
    VirtualMachineSnapshotStatus,
    VolumeSnapshotStatus,
)
from podvisor_common.api.snapshot.names import ConditionType, Indication, SnapshotPhase
from podvisor_common.api.storage import VolumeSnapshot

from podvisor_controller.snapshot.observed import Observed
from podvisor_controller.snapshot.outline import kept_volumes

DEADLINE_EXCEEDED = "snapshot deadline exceeded"
DELETING = "VM snapshot is deleting"
SOURCE_MISSING = "Source does not exist"
NOT_LOCKED = "Source not locked"
LOCKED = "Source locked and operation in progress"

_MEANING = {
    Indication.ONLINE: "The guest ran while the snapshot was taken.",
    Indication.NO_GUEST_AGENT: "The guest's file systems were not frozen: what it had not written to its disks yet is not in the snapshot.",
    Indication.PAUSED: "The guest was paused: what it had not written to its disks yet is not in the snapshot.",
    Indication.PARTIAL_SNAPSHOT: "There could be no snapshot of some of the machine's claims: see status.snapshotVolumes here and"
    " status.volumeSnapshotStatuses of the machine.",
}
_CLAIM_SOURCES = ("persistentVolumeClaim", "dataVolume")


def content_status(now: Observed) -> VirtualMachineSnapshotContentStatus | None:
    """The whole status of the content; None where there is no content, or none that anybody looks at any more."""
    content = now.content
    if content is None or content.metadata.is_being_deleted or now.is_ending:
        return None
    known = content.status
    snapshots = [now.volume_snapshots[n] for n in now.wanted if n in now.volume_snapshots]
    is_whole = not now.absent
    is_created = is_whole and all(one.status.creation_time for one in snapshots)
    is_ready = is_whole and all(one.status.ready_to_use for one in snapshots)
    why = "" if is_ready else _trouble(now, snapshots)
    created = meta.format_time(now.at) if is_created else None
    return VirtualMachineSnapshotContentStatus(
        creation_time=known.creation_time or created,
        ready_to_use=is_ready,
        error=_error(now, known.error, why),
        volume_snapshot_status=[_told(one) for one in snapshots] or None,
    )


def snapshot_status(now: Observed) -> VirtualMachineSnapshotStatus:
    """The whole status of the snapshot."""
    known, content = now.snapshot.status, now.content
    told = (
        content.status if content is not None and content.status.ready_to_use is not None else None
    )
    phase = _phase(now)
    if told is not None:
        error, is_ready = told.error, bool(told.ready_to_use)
    else:
        # Why it failed, or what is kept, is not forgotten with its content.
        error = known.error if now.is_over else _error(now, known.error, now.refusal)
        is_ready = bool(known.ready_to_use)
    indications = _indications(now, phase)
    return VirtualMachineSnapshotStatus(
        source_uid=now.vm.metadata.uid if now.vm is not None else known.source_uid,
        virtual_machine_snapshot_content_name=(
            content.metadata.name
            if content is not None and told is not None
            else known.virtual_machine_snapshot_content_name
        ),
        creation_time=told.creation_time if told is not None else known.creation_time,
        phase=phase,
        ready_to_use=is_ready,
        error=error,
        conditions=_conditions(now, phase, is_ready, error),
        indications=indications or None,
        source_indications=[
            SourceIndication(indication=one, message=_MEANING[Indication(one)])
            for one in indications
            if one in _MEANING
        ]
        or None,
        snapshot_volumes=_volumes(now) if phase == SnapshotPhase.SUCCEEDED else None,
    )


def missing(status: VirtualMachineSnapshotContentStatus, now: Observed) -> list[str]:
    """The VolumeSnapshots that are gone, where the content's new status is the first to say so."""
    known = now.content.status if now.content is not None else VirtualMachineSnapshotContentStatus()
    if not now.is_taken or _message(status.error) == _message(known.error):
        return []
    return now.absent


def _phase(now: Observed) -> SnapshotPhase:
    if now.has_failed:
        return SnapshotPhase.FAILED
    if now.is_taken or now.snapshot.status.phase == SnapshotPhase.SUCCEEDED:
        return SnapshotPhase.SUCCEEDED
    return SnapshotPhase.DELETING if now.is_deleting else SnapshotPhase.IN_PROGRESS


def _indications(now: Observed, phase: SnapshotPhase) -> list[str]:
    """What was found of the machine while it was locked, and whether claims of it were left out."""
    known = set(now.snapshot.status.indications or ())
    if not now.is_over and now.is_locked:
        known |= set(now.indications)
    if phase == SnapshotPhase.SUCCEEDED and _leaves_claims_out(now):
        known.add(Indication.PARTIAL_SNAPSHOT)
    return sorted(known)


def _leaves_claims_out(now: Observed) -> bool:
    if now.content is None:
        return False
    included = {backup.volume_name for backup in now.content.spec.volume_backups or ()}
    return any(
        volume.get("name") not in included
        for volume in kept_volumes(now.content)
        if any(source in volume for source in _CLAIM_SOURCES)
    )


def _volumes(now: Observed) -> SnapshotVolumes | None:
    if now.content is None:
        return now.snapshot.status.snapshot_volumes
    kept = {backup.volume_name for backup in now.content.spec.volume_backups or ()}
    every = [str(volume.get("name", "")) for volume in kept_volumes(now.content)]
    return SnapshotVolumes(
        included_volumes=[name for name in every if name in kept] or None,
        excluded_volumes=[name for name in every if name not in kept] or None,
    )


def _conditions(
    now: Observed, phase: SnapshotPhase, is_ready: bool, error: SnapshotError | None
) -> list[Condition]:
    ready = (
        _condition(now, ConditionType.READY, "Ready")
        if is_ready
        else _condition(now, ConditionType.READY, "Not ready", status="False")
    )
    progressing = _progressing(now, phase, error)
    if phase != SnapshotPhase.FAILED:
        return [progressing, ready]
    failure = _condition(now, ConditionType.FAILURE, DEADLINE_EXCEEDED, _why_failed(now, error))
    return [failure, progressing, ready]


def _why_failed(now: Observed, error: SnapshotError | None) -> str:
    """What went wrong or, where nothing did, what was waited for when the time was over."""
    known = now.snapshot.status.conditions
    said = meta.find_condition(known, ConditionType.FAILURE) or meta.find_condition(
        known, ConditionType.PROGRESSING
    )
    return _message(error) or (said.message if said is not None else "")


def _progressing(now: Observed, phase: SnapshotPhase, error: SnapshotError | None) -> Condition:
    type_ = ConditionType.PROGRESSING
    if now.is_deleting and now.restore:
        why = f'VirtualMachineRestore "{now.restore}" is in progress.'
        return _condition(now, type_, DELETING, why, status="False")
    if error is not None:
        return _condition(now, type_, "In error state", _message(error), status="False")
    if phase == SnapshotPhase.FAILED:
        return _condition(now, type_, "Operation failed", status="False")
    if phase == SnapshotPhase.SUCCEEDED:
        return _condition(now, type_, "Operation complete", status="False")
    if phase == SnapshotPhase.DELETING:
        return _condition(now, type_, DELETING, status="False")
    if now.vm is None:
        name = now.snapshot.spec.source.name
        why = (
            f'There is no VirtualMachine "{name}" in namespace "{now.snapshot.metadata.namespace}".'
        )
        return _condition(now, type_, SOURCE_MISSING, why, status="False")
    if now.is_locked:
        waited = [n for n in now.wanted if not _is_taken(now.volume_snapshots.get(n))]
        why = f"VolumeSnapshots ({','.join(waited)}) are not taken yet." if waited else ""
        return _condition(now, type_, LOCKED, why)
    return _condition(now, type_, NOT_LOCKED, now.hindrance, status="False")


def _condition(
    now: Observed, type_: str, reason: str, message: str = "", *, status: str = "True"
) -> Condition:
    known = now.snapshot.status.conditions
    return meta.renewed_condition(known, now.at, type_, reason, message, status=status)


def _trouble(now: Observed, snapshots: list[VolumeSnapshot]) -> str:
    """Why the content is not ready, where that is more than that it takes time."""
    if now.absent and now.is_taken:
        return f"VolumeSnapshots ({','.join(now.absent)}) missing"
    if now.refusal:
        return now.refusal
    for one in snapshots:
        error = one.status.error
        if error is not None and error.message:
            return f"VolumeSnapshot {one.metadata.name} error: {error.message}"
    return ""


def _error(now: Observed, known: SnapshotError | None, why: str) -> SnapshotError | None:
    """The error, since when it is the same one."""
    if not why:
        return None
    if known is not None and known.message == why:
        return known
    return SnapshotError(time=meta.format_time(now.at), message=why)


def _is_taken(one: VolumeSnapshot | None) -> bool:
    return one is not None and one.status.creation_time is not None


def _told(one: VolumeSnapshot) -> VolumeSnapshotStatus:
    error = one.status.error
    return VolumeSnapshotStatus(
        volume_snapshot_name=one.metadata.name,
        creation_time=one.status.creation_time,
        ready_to_use=one.status.ready_to_use,
        error=SnapshotError(time=error.time, message=error.message) if error is not None else None,
    )


def _message(error: SnapshotError | None) -> str:
    return (error.message if error is not None else None) or ""
