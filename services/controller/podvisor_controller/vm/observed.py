"""All that a decision about one VirtualMachine depends on, and the questions asked of it. Pure.

Invariant: an Observed is read from the caches in one go and never changes; every property is a fact, never a wish.
"""

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta

from podvisor_common.api import meta, v1
from podvisor_common.api.v1 import names
from podvisor_common.api.v1.names import ConditionType, Phase, RunStrategy, StateChange

from podvisor_controller.pauses import left_of, retry_left
from podvisor_controller.vm import hotplug, interfaces, requests, volume_requests
from podvisor_controller.vm.requests import Request

# A guest that ran this long did start: its later crash is not part of a series of failed starts.
STABLE_RUN = timedelta(seconds=30)
BACKOFF_UNIT_S = 10
BACKOFF_MAX_S = 300
_LONGEST_PAUSE = 2 * timedelta(seconds=BACKOFF_MAX_S)
# How long a new instance may take to be bound before the machine's status says that it is starting.
SETTLING = timedelta(seconds=2)

_RESTARTING = frozenset({RunStrategy.ALWAYS, RunStrategy.RERUN_ON_FAILURE})
# To choose one of these is to ask for an instance, once: what the status records as acted upon has had it.
ONE_START = frozenset({RunStrategy.RERUN_ON_FAILURE, RunStrategy.ONCE})


@dataclass(frozen=True, slots=True)
class Observed:
    """One machine and the instance of its name. All from `failure` on are what this process remembers of it.

    `made_from` is the template that the instance was made from, where it is known and the instance does not tell by itself
    that it is the machine's present one.
    """

    vm: v1.VirtualMachine
    instance: v1.VirtualMachineInstance | None
    at: datetime
    made_from: v1.VirtualMachineInstanceTemplateSpec | None = None
    failure: str | None = None
    undeletable: str | None = None  # why the instance is still there although it was to be deleted
    retry_at: datetime | None = None
    delete_retry_at: datetime | None = None
    unplugged: str = ""  # why the instance does not get the volumes of the template
    plug_retry_at: datetime | None = None
    unwired: str = ""  # why the instance does not get the interfaces of the template
    wire_retry_at: datetime | None = None
    requests_refusal: str = ""  # why the template does not get those that are requested
    volume_snapshot_statuses: list[v1.VolumeSnapshotStatus] | None = None
    requests_one_by_one: bool = False  # refused together: each shall have its own verdict

    @property
    def vmi(self) -> v1.VirtualMachineInstance | None:
        """The machine's own instance."""
        return self.instance if owns(self.vm, self.instance) else None

    @property
    def has_orphan(self) -> bool:
        """An instance has the machine's name and nobody manages it: it becomes the machine's own."""
        instance = self.instance
        if instance is None or instance.metadata.controller_reference() is not None:
            return False
        return not (instance.metadata.is_being_deleted or self.vm.metadata.is_being_deleted)

    @property
    def has_stranger(self) -> bool:
        """An instance has the machine's name, and is not the machine's own and does not become it."""
        return self.instance is not None and self.vmi is None and not self.has_orphan

    @property
    def strategy(self) -> str:
        """The run strategy in effect."""
        return self.vm.effective_run_strategy

    @property
    def wants_new(self) -> bool:
        """Were there no instance, one would be made."""
        return wants_new(self.vm)

    @property
    def lacks_instance(self) -> bool:
        """There is none, and one is to be made."""
        return self.vmi is None and (self.wants_new or self.asks_start)

    @property
    def requests(self) -> list[Request]:
        """The requests that are still to be acted upon."""
        return requests.outstanding(self.vm, self.vmi)

    @property
    def requests_to_record(self) -> list[Request]:
        """The requests that the status shall hold."""
        return requests.to_record(self.vm, self.vmi)

    @property
    def asks_stop(self) -> bool:
        """The instance is to be stopped by request. `Once` and `Halted` have their own mind about that."""
        takes_requests = self.strategy not in (RunStrategy.ONCE, RunStrategy.HALTED)
        return takes_requests and requests.asks(self.requests, StateChange.STOP)

    @property
    def asks_start(self) -> bool:
        """An instance is asked for."""
        return requests.asks(self.requests, StateChange.START)

    @property
    def wants_replacement(self) -> bool:
        """The instance has ended and another is to take its place."""
        vmi = self.vmi
        if vmi is None or not vmi.is_final:
            return False
        if self.strategy in (RunStrategy.RERUN_ON_FAILURE, RunStrategy.MANUAL):
            return requests.asks(self.requests_to_record, StateChange.START)
        return self.strategy == RunStrategy.ALWAYS

    @property
    def start_failure(self) -> v1.StartFailure | None:
        """The series of failed starts, the instance at hand included."""
        known, vmi = self.vm.status.start_failure, self.vmi
        # Somebody who stops an instance, or has it replaced, does not wait because of how it ended.
        if self.strategy not in _RESTARTING or self.asks_stop:
            return None
        if vmi is None:
            return known
        ran = _ran_for(vmi, self.at)
        if vmi.status.phase == Phase.SUCCEEDED or (ran is not None and ran >= STABLE_RUN):
            return None
        # A guest that was destroyed because it had to go has not failed.
        if vmi.status.phase != Phase.FAILED or vmi.metadata.is_being_deleted:
            return known
        if known is not None and known.last_failed_vmi_uid == vmi.metadata.uid:
            return known
        count = 1 + (known.consecutive_fail_count if known is not None else 0)
        spread = _spread_of(vmi.metadata.uid)
        delay = timedelta(seconds=backoff_s(count, has_run=ran is not None, spread=spread))
        return v1.StartFailure(
            consecutive_fail_count=count,
            last_failed_vmi_uid=vmi.metadata.uid,
            retry_after_timestamp=meta.format_time(self.at + delay),
        )

    @property
    def end_is_recorded(self) -> bool:
        """The status holds what must outlive the instance at hand: its failure, if that counts, and what is asked for."""
        status = self.vm.status
        if self.start_failure != status.start_failure:
            return False
        return self.requests_to_record == (status.state_change_requests or [])

    @property
    def is_current(self) -> bool | None:
        """The instance is what the machine's present template makes; None where that is not known."""
        vmi, vm = self.vmi, self.vm
        if vmi is None or generation_of(vmi) == vm.metadata.generation:
            return True
        if self.made_from is None:
            return None
        if self.made_from.metadata != vm.spec.template.metadata or self._is_fixed_part_other:
            return False
        plugged, wired = hotplug.plugged(vm, vmi), interfaces.wired(vm, vmi)
        is_whole = plugged.is_whole and wired.is_whole
        return is_whole and hotplug.has(vmi, plugged) and interfaces.has(vmi, wired)

    @property
    def needs_restart(self) -> bool | None:
        """What the template says of the guest takes effect with its next start; None where that is not known."""
        if self.vmi is None or self.vmi.is_final or self.is_current:
            return False
        if self.made_from is None:
            return None
        return self._is_fixed_part_other or interfaces.wired(self.vm, self.vmi).needs_restart

    @property
    def _is_fixed_part_other(self) -> bool:
        """The template differs from that of the start in more than what may come and go."""
        assert self.made_from is not None
        made, wanted = self.made_from.spec, self.vm.spec.template.spec
        return _fixed_part(made) != _fixed_part(wanted)

    @property
    def to_plug(self) -> hotplug.Plugged | None:
        """The volumes that the instance of an edited machine is to have in place of those that it has; None if it has them."""
        vmi, vm = self.vmi, self.vm
        if vmi is None or vmi.is_final or generation_of(vmi) == vm.metadata.generation:
            return None
        plugged = hotplug.plugged(vm, vmi)
        return None if hotplug.has(vmi, plugged) else plugged

    @property
    def to_wire(self) -> interfaces.Wired | None:
        """The interfaces that the instance of an edited machine is to have in place of those that it has; None if it has them."""
        vmi, vm = self.vmi, self.vm
        if vmi is None or vmi.is_final or generation_of(vmi) == vm.metadata.generation:
            return None
        wired = interfaces.wired(vm, vmi)
        return None if interfaces.has(vmi, wired) else wired

    @property
    def wire_retry_left(self) -> timedelta:
        """How long to wait before interfaces that were refused are tried again."""
        return retry_left(self.wire_retry_at, self.at)

    @property
    def plug_retry_left(self) -> timedelta:
        """How long to wait before volumes that were refused are tried again."""
        return retry_left(self.plug_retry_at, self.at)

    @property
    def requested(self) -> volume_requests.Outcome:
        """What the requests to attach and detach volumes come to."""
        spec, asked = self.vm.spec.template.spec, self.vm.status.volume_requests or ()
        return volume_requests.outcome_of(
            spec, asked, refusal=self.requests_refusal, one_by_one=self.requests_one_by_one
        )

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
    def delete_retry_left(self) -> timedelta:
        """How long to wait before a deletion that was refused is tried again."""
        return retry_left(self.delete_retry_at, self.at)

    @property
    def settling_left(self) -> timedelta:
        """How long the status may wait for a new instance to be bound; zero when it has something to tell."""
        vmi = self.vmi
        if vmi is None or self.failure is not None or self.vm.metadata.is_being_deleted:
            return timedelta(0)
        if self.requests_to_record != (self.vm.status.state_change_requests or []):
            # A start that was fulfilled must not be found again by whoever looks next.
            return timedelta(0)
        if self.vm.status.volume_requests:
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
        if self.wants_replacement or self.lacks_instance:
            waits.append(self.backoff_left)
        if self.undeletable is not None:
            waits.append(self.delete_retry_left)
        if self.unplugged:
            waits.append(self.plug_retry_left)
        if self.unwired:
            waits.append(self.wire_retry_left)
        return min((w.total_seconds() for w in waits if w > timedelta(0)), default=None)


def wants_new(vm: v1.VirtualMachine) -> bool:
    """Were there no instance, one would be made."""
    strategy = vm.effective_run_strategy
    if strategy == RunStrategy.ALWAYS:
        return True
    if strategy in ONE_START and vm.status.run_strategy != strategy:
        return True
    rest = requests.outstanding(vm, None)
    return requests.asks(rest, StateChange.START)


def owns(vm: v1.VirtualMachine, instance: v1.VirtualMachineInstance | None) -> bool:
    """The instance is the machine's own."""
    owner = instance.metadata.controller_reference() if instance is not None else None
    return owner is not None and owner.uid == vm.metadata.uid


def _fixed_part(spec: v1.VirtualMachineInstanceSpec) -> v1.VirtualMachineInstanceSpec:
    """What of a specification a guest gets with its next start only."""
    return interfaces.fixed_part(hotplug.fixed_part(spec))


def generation_of(vmi: v1.VirtualMachineInstance) -> int | None:
    """The generation of the machine whose template the instance follows; None when it does not say."""
    text = vmi.metadata.annotation(names.VM_GENERATION_ANNOTATION)
    return int(text) if text is not None and text.isdecimal() else None


def revision_in_question(vm: v1.VirtualMachine, instance: v1.VirtualMachineInstance | None) -> str:
    """The revision that tells whether a running instance is what its machine makes now; empty where nobody asks."""
    if instance is None or not owns(vm, instance):
        return ""
    is_leaving = instance.is_final or instance.metadata.is_being_deleted
    if (
        is_leaving
        or vm.metadata.is_being_deleted
        or vm.effective_run_strategy == RunStrategy.HALTED
    ):
        return ""
    if generation_of(instance) == vm.metadata.generation:
        return ""
    return instance.status.virtual_machine_revision_name


def backoff_s(count: int, *, has_run: bool, spread: float) -> int:
    """The pause after `count` failures in a row, in seconds. A guest that did run gets its first restart at once.

    `spread`, from 0 to 1, prolongs the pause by up to a half, so that many machines do not fail in step.
    """
    steps = count - 1 if has_run else count
    return min(round(BACKOFF_UNIT_S * steps * steps * (1 + spread / 2)), BACKOFF_MAX_S)


def _spread_of(uid: str) -> float:
    """From 0 to 1, another for every instance and always the same for one."""
    return int.from_bytes(hashlib.sha256(uid.encode()).digest()[:4], "big") / (1 << 32)


def has_condition(
    vmi: v1.VirtualMachineInstance, type_: ConditionType, reason: str, status: str = "False"
) -> bool:
    """The instance says so for that reason."""
    condition = meta.find_condition(vmi.status.conditions, type_)
    return condition is not None and condition.status == status and condition.reason == reason


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
