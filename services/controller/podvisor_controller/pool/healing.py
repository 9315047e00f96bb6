"""When a machine of a pool has failed to start for so long or so often that it is made anew. Pure.

Invariant: a machine that nobody wants to run, or whose guest runs, has not failed.
"""

from datetime import datetime, timedelta

from podvisor_common.api import meta, v1
from podvisor_common.api.duration import DurationError, parse_duration
from podvisor_common.api.pool import Autohealing
from podvisor_common.api.v1.names import ConditionType, PrintableStatus

DEFAULT_THRESHOLD = 3
DEFAULT_DURATION = timedelta(minutes=5)
_HELD_UP = frozenset(
    {
        PrintableStatus.CRASH_LOOP_BACK_OFF,
        PrintableStatus.ERROR_UNSCHEDULABLE,
        PrintableStatus.DATA_VOLUME_ERROR,
        PrintableStatus.ERROR_PVC_NOT_FOUND,
        PrintableStatus.ERR_IMAGE_PULL,
        PrintableStatus.IMAGE_PULL_BACK_OFF,
    }
)


def has_failed(vm: v1.VirtualMachine, healing: Autohealing, at: datetime) -> bool:
    """The machine is to be made anew."""
    if vm.status.printable_status not in _HELD_UP:
        # The count of failed starts outlives the beginning of a good run.
        return False
    failure = vm.status.start_failure
    threshold = healing.start_up_failure_threshold or DEFAULT_THRESHOLD
    if failure is not None and failure.consecutive_fail_count >= threshold:
        return True
    left = time_left(vm, healing, at)
    return left is not None and left <= timedelta(0)


def time_left(vm: v1.VirtualMachine, healing: Autohealing, at: datetime) -> timedelta | None:
    """How much longer its start may be held up; None when it is not."""
    ready = meta.find_condition(vm.status.conditions, ConditionType.READY)
    if vm.status.printable_status not in _HELD_UP or ready is None or ready.status != "False":
        return None
    if not ready.last_transition_time:
        return None
    return meta.parse_time(ready.last_transition_time) + _patience(healing) - at


def _patience(healing: Autohealing) -> timedelta:
    try:
        return parse_duration(healing.min_failing_to_start_duration or "")
    except DurationError:
        return DEFAULT_DURATION
