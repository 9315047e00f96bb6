"""What the status of a VirtualMachine says: its instance mirrored, and the state in one word.

Invariant: what nobody else writes is always computed whole, and what snapshots and restores write of themselves is left as it is;
status_patch.py makes the least merge patch of it.
Nothing here reads a clock; two equal situations give equal statuses.
"""

from datetime import timedelta

from podvisor_common.api import meta, v1
from podvisor_common.api.meta import Condition
from podvisor_common.api.v1.names import ConditionType, Phase, PrintableStatus, Reason

from podvisor_controller.vm.observed import ONE_START, Observed, generation_of, has_condition

# An instance's conditions that mean something else, or nothing, on a machine.
_NOT_MIRRORED = frozenset(
    {ConditionType.READY, ConditionType.FAILURE, ConditionType.RESTART_REQUIRED}
)
_STARTING_PHASES = frozenset({"", Phase.PENDING, Phase.SCHEDULING, Phase.SCHEDULED})
STRANGER = "A VirtualMachineInstance of this name exists and does not belong to this machine."
# Clients know the first half by heart.
RESTART_REQUIRED = "a non-live-updatable field was changed in the template spec: the running guest gets it with its next start"


def status_of(now: Observed) -> v1.VirtualMachineStatus | None:
    """The whole status; None while it can wait: until a new instance is bound, and once deletion is shown."""
    known = now.vm.status
    is_shown = known.printable_status == PrintableStatus.TERMINATING
    if now.settling_left > timedelta(0) or (now.vm.metadata.is_being_deleted and is_shown):
        return None
    vmi = now.vmi
    ready = _ready(now)
    # Where a guest was that has ended is on its instance; a stopped machine has no address.
    living = vmi if vmi is not None and not vmi.is_final else None
    return v1.VirtualMachineStatus(
        created=vmi is not None,
        ready=ready.is_true,
        printable_status=printable_status(now),
        phase=vmi.status.phase if vmi else "",
        run_strategy=_recorded_strategy(now),
        node_name=living.status.node_name if living else "",
        interfaces=living.status.interfaces if living else None,
        conditions=[ready, *_mirrored(now), *_failure(now), *_restart_required(now)],
        volume_requests=now.requested.rest or None,
        state_change_requests=now.requests_to_record or None,
        snapshot_in_progress=known.snapshot_in_progress,
        restore_in_progress=known.restore_in_progress,
        volume_snapshot_statuses=now.volume_snapshot_statuses,
        start_failure=now.start_failure,
        observed_generation=(generation_of(vmi) if vmi else None) or known.observed_generation,
        desired_generation=now.vm.metadata.generation,
    )


def printable_status(now: Observed) -> PrintableStatus:
    """The state in one word: the first that applies, in the order clients know."""
    if now.vm.metadata.is_being_deleted:
        return PrintableStatus.TERMINATING
    vmi = now.vmi
    if vmi is not None and not vmi.is_final:
        return _of_instance(vmi)
    is_failing = now.start_failure is not None
    if is_failing and (vmi is not None or now.backoff_left > timedelta(0)):
        return PrintableStatus.CRASH_LOOP_BACK_OFF
    if vmi is None and now.wants_new and not now.has_stranger:
        return PrintableStatus.STARTING
    return PrintableStatus.STOPPED


def _of_instance(vmi: v1.VirtualMachineInstance) -> PrintableStatus:
    if vmi.metadata.is_being_deleted:
        return PrintableStatus.STOPPING
    if has_condition(vmi, ConditionType.READY, Reason.NODE_UNRESPONSIVE):
        return PrintableStatus.UNKNOWN
    paused = meta.find_condition(vmi.status.conditions, ConditionType.PAUSED)
    if paused is not None and paused.is_true:
        return PrintableStatus.PAUSED
    if vmi.status.phase == Phase.RUNNING:
        return PrintableStatus.RUNNING
    for type_, reason, word in _TROUBLES:
        status = "True" if type_ == ConditionType.PROVISIONING else "False"
        if has_condition(vmi, type_, reason, status):
            return word
    if vmi.status.phase in _STARTING_PHASES:
        return PrintableStatus.STARTING
    return PrintableStatus.UNKNOWN


_TROUBLES = (
    (
        ConditionType.SYNCHRONIZED,
        Reason.FAILED_PVC_NOT_FOUND,
        PrintableStatus.ERROR_PVC_NOT_FOUND,
    ),
    (ConditionType.POD_SCHEDULED, Reason.UNSCHEDULABLE, PrintableStatus.ERROR_UNSCHEDULABLE),
    (
        ConditionType.PROVISIONING,
        Reason.WAITING_FOR_VOLUME_BINDING,
        PrintableStatus.WAITING_FOR_VOLUME_BINDING,
    ),
    (ConditionType.SYNCHRONIZED, Reason.ERR_IMAGE_PULL, PrintableStatus.ERR_IMAGE_PULL),
    (ConditionType.SYNCHRONIZED, Reason.IMAGE_PULL_BACK_OFF, PrintableStatus.IMAGE_PULL_BACK_OFF),
)


def _recorded_strategy(now: Observed) -> str:
    """The strategy last acted upon. One that starts once is recorded when it has: that is what keeps it to one."""
    if now.strategy in ONE_START and now.vmi is None:
        return now.vm.status.run_strategy
    return now.strategy


def _ready(now: Observed) -> Condition:
    vmi = now.vmi
    if vmi is None:
        message = STRANGER if now.has_stranger else "VMI does not exist"
        return _condition(now, ConditionType.READY, Reason.VMI_NOT_EXISTS, message, status="False")
    ready = meta.find_condition(vmi.status.conditions, ConditionType.READY)
    if ready is not None and ready.is_true and vmi.metadata.is_being_deleted:
        # As good as not ready, and told in the write that says that it is stopping.
        message = "virt-launcher pod is terminating"
        return _condition(now, ConditionType.READY, Reason.POD_TERMINATING, message, status="False")
    if ready is not None:
        return ready
    message = "VMI is missing the Ready condition"
    reason = Reason.VMI_CONDITION_MISSING
    return _condition(now, ConditionType.READY, reason, message, status="False")


def _mirrored(now: Observed) -> list[Condition]:
    vmi = now.vmi
    conditions = (vmi.status.conditions if vmi else None) or []
    return sorted((c for c in conditions if c.type not in _NOT_MIRRORED), key=lambda c: c.type)


def _failure(now: Observed) -> list[Condition]:
    if now.undeletable is not None:
        reason, why = Reason.FAILED_DELETE, now.undeletable
        return [_condition(now, ConditionType.FAILURE, reason, why, status="True")]
    if now.unplugged:
        reason, why = Reason.HOT_PLUG_VOLUME_ERROR, now.unplugged
        return [_condition(now, ConditionType.FAILURE, reason, why, status="True")]
    if now.unwired:
        reason, why = Reason.HOT_PLUG_NETWORK_INTERFACE_ERROR, now.unwired
        return [_condition(now, ConditionType.FAILURE, reason, why, status="True")]
    message = STRANGER if now.has_stranger else now.failure
    # What could not be made does not matter any more when nobody wants it.
    if message is None or not (now.has_stranger or now.lacks_instance):
        return []
    return [_condition(now, ConditionType.FAILURE, Reason.FAILED_CREATE, message, status="True")]


def _restart_required(now: Observed) -> list[Condition]:
    type_ = ConditionType.RESTART_REQUIRED
    if now.needs_restart is None:
        known = meta.find_condition(now.vm.status.conditions, type_)
        return [known] if known is not None else []
    if not now.needs_restart:
        return []
    return [_condition(now, type_, Reason.RESTART_REQUIRED, RESTART_REQUIRED, status="True")]


def _condition(now: Observed, type_: str, reason: str, message: str, *, status: str) -> Condition:
    known = now.vm.status.conditions
    return meta.renewed_condition(known, now.at, type_, reason, message, status=status)
