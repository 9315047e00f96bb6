"""All that a decision about one VirtualMachine depends on, and the questions asked of it. Pure.

Invariant: an Observed is read from the caches in one go and never changes; every property is a fact, never a wish.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from podvisor_common.api import meta, v1
from podvisor_common.api.v1 import names
from podvisor_common.api.v1.names import ConditionType, Phase, RunStrategy

from podvisor_controller.pauses import left_of

# A guest that ran this long did start: its later crash is not part of a series of failed starts.
STABLE_RUN = timedelta(seconds=30)
BACKOFF_UNIT_S = 10
BACKOFF_MAX_S = 300
_LONGEST_PAUSE = 2 * timedelta(seconds=BACKOFF_MAX_S)
# How long a new instance may take to be bound before the machine's status says that it is starting.
SETTLING = timedelta(seconds=2)

_RESTARTING = frozenset({RunStrategy.ALWAYS, RunStrategy.RERUN_ON_FAILURE})


@dataclass(frozen=True, slots=True)
class Observed:
    """One machine and the instance of its name. The last two are what this process remembers of it."""

    vm: v1.VirtualMachine
    instance: v1.VirtualMachineInstance | None
    at: datetime
    failure: str | None = None
    retry_at: datetime | None = None

    @property
    def vmi(self) -> v1.VirtualMachineInstance | None:
        """The machine's own instance."""
        return None if self.has_stranger else self.instance

    @property
    def has_stranger(self) -> bool:
        """An instance has the machine's name and does not belong to it."""
        if self.instance is None:
            return False
        owner = self.instance.metadata.controller_reference()
        return owner is None or owner.uid != self.vm.metadata.uid

    @property
    def strategy(self) -> str:
        """The run strategy in effect."""
        return self.vm.effective_run_strategy

    @property
    def wants_new(self) -> bool:
        """Were there no instance, one would be made."""
        return wants_new(self.vm)

    @property
    def wants_replacement(self) -> bool:
        """The instance has ended and another is to take its place."""
        vmi = self.vmi
        if vmi is None or not vmi.is_final:
            return False
        if self.strategy == RunStrategy.RERUN_ON_FAILURE:
            return vmi.status.phase == Phase.FAILED
        return self.strategy == RunStrategy.ALWAYS

    @property
    def start_failure(self) -> v1.StartFailure | None:
        """The series of failed starts, the instance at hand included."""
        known, vmi = self.vm.status.start_failure, self.vmi
        if self.strategy not in _RESTARTING:
            return None
        if vmi is None:
            return known
        ran = _ran_for(vmi, self.at)
        if vmi.status.phase == Phase.SUCCEEDED or (ran is not None and ran >= STABLE_RUN):
            return None
        if vmi.status.phase != Phase.FAILED:
            return known
        if known is not None and known.last_failed_vmi_uid == vmi.metadata.uid:
            return known
        count = 1 + (known.consecutive_fail_count if known is not None else 0)
        delay = timedelta(seconds=backoff_s(count, has_run=ran is not None))
        return v1.StartFailure(
            consecutive_fail_count=count,
            last_failed_vmi_uid=vmi.metadata.uid,
            retry_after_timestamp=meta.format_time(self.at + delay),
        )

    @property
    def failure_is_recorded(self) -> bool:
        """The status counts the failure of the instance at hand, if that counts at all."""
        return self.start_failure == self.vm.status.start_failure

    @property
    def backoff_left(self) -> timedelta:
        """How long to wait before the next instance."""
        ends = []
        failure = self.start_failure
        if failure is not None and failure.retry_after_timestamp:
            ends.append(meta.parse_time(failure.retry_after_timestamp))
        if self.retry_at is not None:
            ends.append(self.retry_at)
        lefts = (left_of(end, self.at, longest=_LONGEST_PAUSE) for end in ends)
        return max(lefts, default=timedelta(0))

    @property
    def settling_left(self) -> timedelta:
        """How long the status may wait for a new instance to be bound; zero when it has something to tell."""
        vmi = self.vmi
        if vmi is None or self.failure is not None or self.vm.metadata.is_being_deleted:
            return timedelta(0)
        is_new = vmi.status.phase in ("", Phase.PENDING, Phase.SCHEDULING)
        if not is_new or vmi.status.conditions or vmi.metadata.is_being_deleted:
            return timedelta(0)
        created = vmi.metadata.creation_timestamp
        began = meta.parse_time(created) if created else self.at
        return min(max(began + SETTLING - self.at, timedelta(0)), SETTLING)

    @property
    def look_again_in_s(self) -> float | None:
        """When time alone changes the decision, in seconds from now; None when only an event can."""
        waits = [self.settling_left]
        if self.wants_replacement or (self.vmi is None and self.wants_new):
            waits.append(self.backoff_left)
        return min((w.total_seconds() for w in waits if w > timedelta(0)), default=None)


def wants_new(vm: v1.VirtualMachine) -> bool:
    """Were there no instance, one would be made. `Once` has had its one when the status says that it applied."""
    strategy = vm.effective_run_strategy
    if strategy == RunStrategy.ONCE:
        return vm.status.run_strategy != RunStrategy.ONCE
    return strategy in _RESTARTING


def backoff_s(count: int, *, has_run: bool) -> int:
    """The pause after `count` failures in a row, in seconds. A guest that did run gets its first restart at once."""
    steps = count - 1 if has_run else count
    return min(BACKOFF_UNIT_S * steps * steps, BACKOFF_MAX_S)


def has_condition(vmi: v1.VirtualMachineInstance, type_: ConditionType, reason: str) -> bool:
    """The instance says False for that reason."""
    condition = meta.find_condition(vmi.status.conditions, type_)
    return condition is not None and condition.status == "False" and condition.reason == reason


def _ran_for(vmi: v1.VirtualMachineInstance, at: datetime) -> timedelta | None:
    """How long the guest ran or has been running; None when it never did."""
    times = {
        entry.phase: meta.parse_time(entry.phase_transition_timestamp)
        for entry in vmi.status.phase_transition_timestamps or ()
        if entry.phase_transition_timestamp
    }
    began = times.get(Phase.RUNNING)
    if began is None:
        return timedelta(0) if vmi.status.phase == Phase.RUNNING else None
    ended = next((times[phase] for phase in names.FINAL_PHASES if phase in times), at)
    return max(ended - began, timedelta(0))
