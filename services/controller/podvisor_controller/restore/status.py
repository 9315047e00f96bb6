"""What the status of a VirtualMachineRestore says, and what is worth an event in it. Pure.

Invariant: nobody else writes it, so it is always computed whole; two equal situations give equal statuses. Reasons of conditions are
KubeVirt's, which are sentences.
"""

from podvisor_common.api import meta
from podvisor_common.api.meta import Condition
from podvisor_common.api.snapshot import VirtualMachineRestoreStatus
from podvisor_common.api.snapshot.names import ConditionType, EventReason
from podvisor_common.kube import events

from podvisor_controller.news import News
from podvisor_controller.restore.hindrances import failure_of, hindrance_of
from podvisor_controller.restore.observed import Observed
from podvisor_controller.restore.plan import is_done, may_begin

FAILED = "Operation failed"
COMPLETE = "Operation complete"
DELETING = "VM restore is deleting"
NOT_READY = "Waiting for target to be ready"
INITIALIZING = "Initializing VirtualMachineRestore"
CREATING_CLAIMS = "Creating new PVCs"
WAITING_FOR_CLAIMS = "Waiting for new PVCs"
UPDATING_TARGET = "Updating target spec"
WAITING_FOR_TARGET = "Waiting for target update"


def status_of(now: Observed) -> VirtualMachineRestoreStatus:
    """The whole status."""
    known = now.restore.status
    if now.is_complete:
        return known
    done = not now.is_deleting and is_done(now)
    restores = now.volumes if not now.is_deleting and may_begin(now) else known.restores
    return VirtualMachineRestoreStatus(
        restores=restores,
        restore_time=meta.format_time(now.at) if done else known.restore_time,
        deleted_data_volumes=known.deleted_data_volumes,
        complete=done,
        conditions=_conditions(now, is_done=done),
    )


def news_of(now: Observed, wanted: VirtualMachineRestoreStatus) -> News | None:
    """What has happened that the status which is about to be replaced does not say yet."""
    if wanted.complete and not now.is_complete:
        message = f"Successfully completed VirtualMachineRestore {now.restore.metadata.name}"
        return News(events.NORMAL, EventReason.RESTORE_COMPLETE, message)
    why = failure_of(now) or _trouble(now)
    if now.is_deleting or _is_told(now, wanted):
        return None
    if why:
        message = f"VirtualMachineRestore encountered error {why}"
        return News(events.WARNING, EventReason.RESTORE_ERROR, message)
    if now.may_go_on or now.is_restored:
        return None
    reason = EventReason.RESTORE_TARGET_NOT_READY
    return News(events.NORMAL, reason, "Restore target VMI still exists")


def _is_told(now: Observed, wanted: VirtualMachineRestoreStatus) -> bool:
    """The status says by now what it is to say."""
    return all(_reason(now.restore.status, t) == _reason(wanted, t) for t in ConditionType)


def _reason(status: VirtualMachineRestoreStatus, type_: ConditionType) -> str:
    condition = meta.find_condition(status.conditions, type_)
    return condition.reason if condition is not None else ""


def _trouble(now: Observed) -> str:
    return now.refusal if now.is_restored else hindrance_of(now) or now.refusal


def _conditions(now: Observed, *, is_done: bool) -> list[Condition]:
    if is_done:
        return _both(now, COMPLETE, COMPLETE, ready=True)
    if now.is_deleting:
        return _both(now, DELETING, DELETING)
    if why := failure_of(now):
        failure = _condition(now, ConditionType.FAILURE, why, status="True")
        return [*_both(now, FAILED, FAILED), failure]
    if why := _trouble(now):
        return _both(now, why, why)
    if not (now.may_go_on or now.is_restored):
        return _both(now, NOT_READY, NOT_READY)
    if not (now.is_protected and may_begin(now)):
        return _both(now, INITIALIZING, INITIALIZING, progressing=True)
    if now.unmade or now.unbound:
        return _both(now, CREATING_CLAIMS, WAITING_FOR_CLAIMS, progressing=True)
    return _both(now, UPDATING_TARGET, WAITING_FOR_TARGET, progressing=True)


def _both(
    now: Observed, progress: str, readiness: str, *, progressing: bool = False, ready: bool = False
) -> list[Condition]:
    return [
        _condition(now, ConditionType.PROGRESSING, progress, status=str(progressing)),
        _condition(now, ConditionType.READY, readiness, status=str(ready)),
    ]


def _condition(now: Observed, type_: str, reason: str, *, status: str) -> Condition:
    known = now.restore.status.conditions
    return meta.renewed_condition(known, now.at, type_, reason, status=status)
