"""What is to be written so that a machine starts, stops or restarts, as somebody asks now. Pure.

Texts and codes are KubeVirt's. What was asked before and is not carried out yet counts as if it were, which it does not there: a machine
that was started a moment ago can be stopped, although there is no instance of it yet.

Invariant: whether an instance is just being made only the controller knows, which makes them. So a start that is not carried out yet is not
just taken back: a stop follows, of whatever instance there is by then.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from podvisor_common.api import v1
from podvisor_common.api.v1 import names
from podvisor_common.api.v1.names import Phase, RunStrategy, StateChange
from podvisor_common.kube.resources import VIRTUAL_MACHINES

from podvisor_controller.subresources.statuses import StatusError, bad_request, conflict, internal
from podvisor_controller.vm import requests
from podvisor_controller.vm.observed import wants_new
from podvisor_controller.vm.requests import Request
from podvisor_controller.webhooks.validation_spec import MAX_GRACE_PERIOD_S

RUNS = "VM is already running"
RUNS_NOT = "VM is not running"
UNDERWAY = "unable to complete request: stop/start already underway"
# What an instance has left whose guest is not to be waited for.
FORCED_GRACE_PERIOD_S = 1


@dataclass(frozen=True, slots=True)
class Writing:
    """What of a machine is to be another, and how long its instance's guest may then take to shut down; None: that stays."""

    strategy: RunStrategy | None = None
    requests: list[Request] | None = None
    grace_period_s: int | None = None


def start(
    vm: v1.VirtualMachine, vmi: v1.VirtualMachineInstance | None, options: v1.StartOptions
) -> Writing:
    """What starts the machine. Raises StatusError (409, 500)."""
    strategy, asked = vm.effective_run_strategy, requests.to_record(vm, vmi)
    is_asked_to_stop = requests.asks(asked, StateChange.STOP)
    if vmi is not None and not _is_leaving(vm, vmi, asked):
        raise _refused(vm, RUNS)
    if strategy in (RunStrategy.ALWAYS, RunStrategy.ONCE):
        raise _refused(vm, f"{strategy} does not support manual start requests")
    has_failed = vmi is not None and vmi.status.phase == Phase.FAILED
    if strategy == RunStrategy.RERUN_ON_FAILURE and has_failed and not is_asked_to_stop:
        raise _refused(vm, f"{strategy} does not support starting VM from failed state")
    if _is_to_start(asked):
        raise internal(UNDERWAY)
    if strategy == RunStrategy.HALTED and not options.paused and vmi is None:
        return Writing(strategy=RunStrategy.ALWAYS)
    data = {names.START_PAUSED_KEY: "true"} if options.paused else None
    begin = Request(action=StateChange.START, data=data)
    if strategy == RunStrategy.HALTED:
        return Writing(requests=[begin])  # once the instance has gone, which the halt ends
    if vmi is not None and vmi.is_final and not is_asked_to_stop:
        return Writing(requests=[_stop_of(vmi), begin])
    return Writing(requests=[*asked, begin])


def stop(
    vm: v1.VirtualMachine, vmi: v1.VirtualMachineInstance | None, options: v1.StopOptions
) -> Writing:
    """What stops the machine. Raises StatusError (400, 409)."""
    strategy, asked = vm.effective_run_strategy, requests.to_record(vm, vmi)
    grace_s = options.grace_period
    if grace_s is not None and not 0 <= grace_s <= MAX_GRACE_PERIOD_S:
        raise bad_request(f"gracePeriod has to be between 0 and {MAX_GRACE_PERIOD_S}")
    running = vmi if vmi is not None and not vmi.is_final else None
    # More time than it was made with no launcher gives.
    is_shorter = running is not None and grace_s is not None and grace_s < running.grace_period_s
    grace_period_s = grace_s if is_shorter else None
    if strategy in (RunStrategy.ALWAYS, RunStrategy.ONCE):
        # What was asked of the machine before is not to be done once it is halted.
        dropped: list[Request] | None = [] if vm.status.state_change_requests else None
        return Writing(RunStrategy.HALTED, dropped, grace_period_s)
    if strategy == RunStrategy.HALTED and _is_to_start(asked):
        return Writing(requests=[], grace_period_s=grace_period_s)
    if running is None and not _is_to_start(asked):
        raise _refused(vm, RUNS_NOT)
    if strategy == RunStrategy.HALTED:
        if not is_shorter:
            why = f"{strategy} only supports manual stop requests with a shorter graceperiod"
            raise _refused(vm, why)
        return Writing(grace_period_s=grace_period_s)
    return Writing(requests=[Request(action=StateChange.STOP)], grace_period_s=grace_period_s)


def restart(
    vm: v1.VirtualMachine, vmi: v1.VirtualMachineInstance | None, options: v1.RestartOptions
) -> Writing:
    """What has the machine run anew. One that is about to start does. Raises StatusError (400, 409, 500)."""
    strategy, asked = vm.effective_run_strategy, requests.to_record(vm, vmi)
    if (grace_s := options.grace_period_seconds) is not None and grace_s < 0:
        raise bad_request("gracePeriod has to be greater or equal to 0")
    if grace_s:
        raise bad_request("For force restart, only gracePeriod=0 is supported for now")
    if strategy == RunStrategy.HALTED and _is_to_start(asked):
        return Writing()
    if strategy in (RunStrategy.HALTED, RunStrategy.ONCE):
        # In the words that its clients look for.
        raise _refused(vm, f"RunStategy {strategy} does not support manual restart requests")
    if vmi is None:
        if wants_new(vm):
            return Writing()
        raise _refused(vm, f"{RUNS_NOT}: {RunStrategy.HALTED}")
    is_forced = grace_s == 0 and not vmi.is_final
    cut_to_s = FORCED_GRACE_PERIOD_S if is_forced else None
    if is_forced and requests.asks(asked, StateChange.STOP) and _is_to_start(asked):
        return Writing(grace_period_s=cut_to_s)  # it takes too long
    # One that failed is replaced without anybody asking.
    if any(not request.uid or request.action == StateChange.STOP for request in asked):
        raise internal(UNDERWAY)
    return Writing(
        requests=[_stop_of(vmi), Request(action=StateChange.START)], grace_period_s=cut_to_s
    )


def _is_leaving(
    vm: v1.VirtualMachine, vmi: v1.VirtualMachineInstance, asked: Sequence[Request]
) -> bool:
    """The instance has ended or is about to."""
    is_halted = vm.effective_run_strategy == RunStrategy.HALTED
    is_over = vmi.is_final or vmi.metadata.is_being_deleted
    return is_over or is_halted or requests.asks(asked, StateChange.STOP)


def _is_to_start(asked: Sequence[Request]) -> bool:
    return any(request.action == StateChange.START for request in asked)


def _stop_of(vmi: v1.VirtualMachineInstance) -> Request:
    return Request(action=StateChange.STOP, uid=vmi.metadata.uid)


def _refused(vm: v1.VirtualMachine, why: str) -> StatusError:
    return conflict(VIRTUAL_MACHINES, vm.metadata.name, why)
