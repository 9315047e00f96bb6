"""Whether a launcher pod is ready by its guest, which runs or is paused: the condition that the pod's readiness gate asks for. Pure.

Invariant: nothing is said before a guest was reported as running, so that no Service leads to one that is not there yet; and nothing any
more once it has ended or its pod is being deleted, of which the kubelet tells.
"""

from podvisor_common.api import core, meta
from podvisor_common.api.v1 import names
from podvisor_common.api.v1.names import ConditionType

from podvisor_controller.vmi.observed import Observed, has_ended

Condition = dict[str, str]

_RUNS = ("True", "NotPaused", "the virtual machine is not paused")
_PAUSED = ("False", "Paused", "the virtual machine is paused")


def changed_readiness(now: Observed) -> Condition | None:
    """The condition to write to the status of the instance's pod; None where that says so, or has no such gate, as one from before
    there was any."""
    pod = now.pod
    if pod is None or not now.has_run or now.vmi.is_final or not _is_asked(pod):
        return None
    if pod.metadata.is_being_deleted or has_ended(pod):
        return None
    paused = meta.find_condition(now.vmi.status.conditions, ConditionType.PAUSED)
    is_paused = paused is not None and paused.status == "True"
    status, reason, message = _PAUSED if is_paused else _RUNS
    known = meta.find_condition(pod.status.conditions, names.UNPAUSED_CONDITION)
    if known is not None and (known.status, known.reason) == (status, reason):
        return None
    return {
        "type": names.UNPAUSED_CONDITION,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": meta.format_time(now.at),
    }


def _is_asked(pod: core.Pod) -> bool:
    gates = pod.spec.readiness_gates or ()
    return any(gate.condition_type == names.UNPAUSED_CONDITION for gate in gates)
