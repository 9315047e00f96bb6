"""Requests to start or stop a machine: which are still to be acted upon. Pure.

Invariant: only the first of the rest counts, and what was fulfilled, or can no longer be, is not among them. That a request
is over shows in the instance alone, so that it is acted upon once, whoever remembers what.
"""

from collections.abc import Sequence

from podvisor_common.api import v1
from podvisor_common.api.v1 import names
from podvisor_common.api.v1.names import Phase, RunStrategy, StateChange

Request = v1.VirtualMachineStateChangeRequest


def outstanding(vm: v1.VirtualMachine, vmi: v1.VirtualMachineInstance | None) -> list[Request]:
    """The machine's requests without those at the front that are over, given its instance."""
    strategy, acted_upon = vm.effective_run_strategy, vm.status.run_strategy
    if strategy == RunStrategy.HALTED and acted_upon not in ("", RunStrategy.HALTED):
        # To halt a machine is the last word on what was asked before, such as the second half of a restart.
        return []
    rest = list(vm.status.state_change_requests or ())
    while rest and _is_over(rest[0], strategy, vmi):
        del rest[0]
    return rest


def to_record(vm: v1.VirtualMachine, vmi: v1.VirtualMachineInstance | None) -> list[Request]:
    """The requests that the status shall hold.

    Under RerunOnFailure an instance that failed asks for its successor: once it is gone, nothing else tells that one from
    a machine that was stopped. Nobody asked for its end, and nothing else is asked for.
    """
    rest = outstanding(vm, vmi)
    failed = vmi is not None and vmi.status.phase == Phase.FAILED
    if vmi is None or not failed or vmi.metadata.is_being_deleted or rest:
        return rest
    if vm.effective_run_strategy != RunStrategy.RERUN_ON_FAILURE:
        return rest
    return [Request(action=StateChange.START, uid=vmi.metadata.uid)]


def stops_any(vm: v1.VirtualMachine) -> bool:
    """The first request is to stop whatever instance there is. It is over when there is none; which the status has to say before another
    is made, or that one would be stopped as well."""
    first = next(iter(vm.status.state_change_requests or ()), None)
    return first is not None and first.action == StateChange.STOP and not first.uid


def asks(requests: Sequence[Request], action: StateChange) -> bool:
    """The request whose turn it is asks for that."""
    return bool(requests) and requests[0].action == action


def starts_paused(requests: Sequence[Request]) -> bool:
    """The request whose turn it is wants a guest that does not run yet."""
    paused = asks(requests, StateChange.START) and (requests[0].data or {}).get(
        names.START_PAUSED_KEY
    )
    return paused == "true"


def _is_over(request: Request, strategy: str, vmi: v1.VirtualMachineInstance | None) -> bool:
    if request.action == StateChange.STOP:
        # One without a uid is for whatever instance there is: who asks for it cannot know of one that is just being made.
        return vmi is None or request.uid not in ("", vmi.metadata.uid)
    if request.action != StateChange.START:
        return True
    if request.uid:
        if strategy != RunStrategy.RERUN_ON_FAILURE:
            return True
        return vmi is not None and vmi.metadata.uid != request.uid
    if vmi is None:
        return False
    # One that has ended or is about to does not fulfil it. `Once` has had its instance, ended or not.
    is_going = vmi.metadata.is_being_deleted or strategy == RunStrategy.HALTED
    is_leaving = vmi.is_final or is_going
    return strategy == RunStrategy.ONCE or not is_leaving
