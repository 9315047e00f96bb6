"""What the status of a VirtualMachineClone says, and what is worth an event in it. Pure.

Invariant: nobody else writes it, so it is always computed whole; two equal situations give equal statuses. Reasons of conditions are
KubeVirt's; messages say more where there is more to say.
"""

from msgspec.structs import replace
from podvisor_common.api import meta
from podvisor_common.api.clone import VirtualMachineCloneStatus
from podvisor_common.api.clone.names import ClonePhase, ConditionType, EventReason
from podvisor_common.api.meta import Condition
from podvisor_common.kube import events

from podvisor_controller.clone.manifests import restore_name, snapshot_name, target_name
from podvisor_controller.clone.observed import Observed
from podvisor_controller.news import News

PROCESSING = "Still processing"
PENDING = "Pending"
FAILED = "Failed"
READY = "Ready"

_ORDER = (
    "",
    ClonePhase.SNAPSHOT_IN_PROGRESS,
    ClonePhase.RESTORE_IN_PROGRESS,
    ClonePhase.CREATING_TARGET_VM,
    ClonePhase.SUCCEEDED,
)


def status_of(now: Observed) -> VirtualMachineCloneStatus:
    """The whole status. Why a clone has failed does not change with what becomes of its parts."""
    known, phase = now.clone.status, _phase(now)
    if now.phase == ClonePhase.FAILED:
        return replace(
            known,
            snapshot_name=known.snapshot_name if now.snapshot is not None else None,
            restore_name=known.restore_name if now.restore is not None else None,
        )
    is_there = now.snapshot is not None
    has_target = phase in (ClonePhase.CREATING_TARGET_VM, ClonePhase.SUCCEEDED)
    created = meta.format_time(now.at) if phase == ClonePhase.SUCCEEDED else None
    return VirtualMachineCloneStatus(
        creation_time=known.creation_time or created,
        phase=phase,
        conditions=_conditions(now, phase),
        snapshot_name=snapshot_name(now.clone)
        if is_there and _needs_snapshot(now, phase)
        else None,
        restore_name=restore_name(now.clone) if now.restore is not None else None,
        target_name=target_name(now.clone) if has_target else known.target_name,
    )


def news_of(now: Observed, wanted: VirtualMachineCloneStatus) -> list[News]:
    """What has happened that the status which is about to be replaced does not say yet."""
    clone, known = now.clone.metadata.name, now.clone.status
    if wanted.phase == ClonePhase.FAILED:
        failure = now.failure if known.phase != ClonePhase.FAILED else None
        return [News(events.WARNING, failure.reason, failure.message)] if failure else []
    pending = now.pending
    if pending is not None and pending.message != _message(known):
        return [News(events.WARNING, pending.reason, pending.message)]
    before = _ORDER.index(known.phase) if known.phase in _ORDER else 0
    passed = _ORDER[before + 1 : _ORDER.index(wanted.phase) + 1]
    told = {
        ClonePhase.RESTORE_IN_PROGRESS: (
            EventReason.SNAPSHOT_READY,
            f"snapshot {snapshot_name(now.clone)} for clone {clone} is ready to use",
        ),
        ClonePhase.CREATING_TARGET_VM: (
            EventReason.RESTORE_READY,
            f"restore {restore_name(now.clone)} for clone {clone} is ready to use",
        ),
        ClonePhase.SUCCEEDED: (
            EventReason.TARGET_VM_CREATED,
            f"created target VM {target_name(now.clone)} for clone {clone}",
        ),
    }
    return [News(events.NORMAL, *told[ClonePhase(one)]) for one in passed if one in told]


def _phase(now: Observed) -> str:
    if now.phase in (ClonePhase.SUCCEEDED, ClonePhase.FAILED):
        return now.phase
    if now.failure is not None:
        return ClonePhase.FAILED
    if now.is_restored:
        return ClonePhase.SUCCEEDED if now.target is not None else ClonePhase.CREATING_TARGET_VM
    if now.pending is not None:
        return now.phase
    return (
        ClonePhase.RESTORE_IN_PROGRESS if now.is_snapshot_ready else ClonePhase.SNAPSHOT_IN_PROGRESS
    )


def _needs_snapshot(now: Observed, phase: str) -> bool:
    """One that was there before the clone is done with when the restore is."""
    return now.is_of_machine or phase != ClonePhase.SUCCEEDED or now.restore is not None


def _conditions(now: Observed, phase: str) -> list[Condition]:
    if phase == ClonePhase.FAILED:
        return _both(now, FAILED, now.failure.message if now.failure else "")
    if phase == ClonePhase.SUCCEEDED:
        return _both(now, READY, "", ready=True)
    if (pending := now.pending) is not None:
        return _both(now, PENDING, pending.message)
    return _both(now, PROCESSING, now.refusal, progressing=True)


def _both(
    now: Observed, reason: str, message: str, *, progressing: bool = False, ready: bool = False
) -> list[Condition]:
    return [
        _condition(now, ConditionType.PROGRESSING, reason, message, status=str(progressing)),
        _condition(now, ConditionType.READY, reason, message, status=str(ready)),
    ]


def _condition(now: Observed, type_: str, reason: str, message: str, *, status: str) -> Condition:
    known = now.clone.status.conditions
    return meta.renewed_condition(known, now.at, type_, reason, message, status=status)


def _message(status: VirtualMachineCloneStatus) -> str:
    ready = meta.find_condition(status.conditions, ConditionType.READY)
    return ready.message if ready is not None else ""
