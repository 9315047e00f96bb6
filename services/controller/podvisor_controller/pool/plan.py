"""What one VirtualMachinePool needs next.

Invariant: plan() reads only its arguments and returns a value; calling it twice changes nothing. It never waits, retries or talks to
anything: reconciler.py does what it says, and calls again when something has changed.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from podvisor_common.api import v1
from podvisor_common.api.pool import (
    ProactiveScaleIn,
    ScaleInStrategy,
    SelectionPolicy,
    UpdateStrategy,
)
from podvisor_common.api.v1.names import Reason, SortPolicy

from podvisor_controller.pool import machine
from podvisor_controller.pool.healing import has_failed
from podvisor_controller.pool.observed import Observed, is_selected, max_unavailable

# Those that were made last go first: the names of what is left have no gap.
_STOPPED_ONES = SelectionPolicy(sort_policy=SortPolicy.DESCENDING_ORDER)


@dataclass(frozen=True, slots=True)
class AdoptMachine:
    """Make a machine that nobody manages the pool's own."""

    vm: v1.VirtualMachine


@dataclass(frozen=True, slots=True)
class ReleaseMachine:
    """Let a machine go that the selector does not select any more."""

    vm: v1.VirtualMachine


@dataclass(frozen=True, slots=True)
class CreateMachine:
    """Make the machine of that index."""

    index: int


@dataclass(frozen=True, slots=True)
class DeleteMachine:
    """Begin the deletion of a machine; where that depends on its state, only as it was seen."""

    vm: v1.VirtualMachine
    only_as_seen: bool = False


@dataclass(frozen=True, slots=True)
class UpdateMachine:
    """Give a machine the present template."""

    vm: v1.VirtualMachine
    index: int


@dataclass(frozen=True, slots=True)
class RestartMachine:
    """Have a machine's instance replaced, for the machine has another template by now."""

    vm: v1.VirtualMachine
    instance: v1.VirtualMachineInstance


Action = (
    AdoptMachine | ReleaseMachine | CreateMachine | DeleteMachine | UpdateMachine | RestartMachine
)


def plan(now: Observed) -> list[Action]:
    """The actions that bring `now` one step nearer to what the spec asks; empty when there is nothing to do."""
    if now.pool.metadata.is_being_deleted:
        return []
    claims: list[Action] = [
        *(AdoptMachine(vm) for vm in now.claims.orphans if _has_index(now, vm)),
        *(ReleaseMachine(vm) for vm in now.claims.strays),
    ]
    if claims and not now.waits(Reason.FAILED_ADOPT):
        # Only then is it known how many there are.
        return claims
    if now.pool.spec.paused:
        return []
    healed = _heal(now)
    deletions = [*healed, *_scale_in(now, healed)]
    going = {action.vm.metadata.uid for action in deletions}
    staying = [vm for vm in now.lasting if vm.metadata.uid not in going]
    return [*deletions, *_scale_out(now), *_update(now, staying)]


def _has_index(now: Observed, vm: v1.VirtualMachine) -> bool:
    """A machine of another name may match the selector by chance, and would lose what it is."""
    return machine.index_of(now.pool, vm.metadata.name) is not None


def _scale_out(now: Observed) -> list[CreateMachine]:
    """The lowest indexes whose names nobody has."""
    if not now.missing or now.waits(Reason.FAILED_SCALE_OUT):
        return []
    free = (i for i in itertools.count() if not now.is_taken(machine.name_of(now.pool, i)))
    return [CreateMachine(index) for index in itertools.islice(free, now.missing)]


def _heal(now: Observed) -> list[DeleteMachine]:
    """Machines that do not start go; others of their names come when they are gone."""
    healing = now.pool.spec.autohealing
    if healing is None:
        return []
    return [
        DeleteMachine(vm, only_as_seen=True)
        for vm in now.lasting
        if has_failed(vm, healing, now.at) and not now.waits(Reason.FAILED_SCALE_IN, vm)
    ]


def _scale_in(now: Observed, healed: Sequence[DeleteMachine]) -> list[DeleteMachine]:
    strategy = now.pool.spec.scale_in_strategy or ScaleInStrategy()
    going = {action.vm.metadata.uid for action in healed}
    surplus = now.surplus - len(going)
    if surplus <= 0 or strategy.unmanaged is not None:
        return []
    lasting = [vm for vm in now.lasting if vm.metadata.uid not in going]
    only_as_seen = strategy.opportunistic is not None
    if only_as_seen:
        stopped = (vm for vm in lasting if not now.is_running(vm))
        chosen = now.chosen(stopped, _STOPPED_ONES)
    else:
        policy = (strategy.proactive or ProactiveScaleIn()).selection_policy
        chosen = now.chosen(lasting, policy)
    # While the deletion of one waits, no other goes in its place.
    return [
        DeleteMachine(vm, only_as_seen)
        for vm in chosen[:surplus]
        if not now.waits(Reason.FAILED_SCALE_IN, vm)
    ]


def _update(now: Observed, machines: list[v1.VirtualMachine]) -> list[Action]:
    """Every machine gets the template at once; a proactive update restarts as many as may be not ready."""
    strategy = now.pool.spec.update_strategy or UpdateStrategy()
    if strategy.unmanaged is not None:
        return []
    policy = strategy.proactive.selection_policy if strategy.proactive else None
    selected = [
        vm
        for vm in machines
        if (policy is None or is_selected(vm, policy.selectors))
        and not now.waits(Reason.FAILED_UPDATE, vm)
    ]
    updates: list[Action] = []
    for vm in selected:
        index = machine.index_of(now.pool, vm.metadata.name)
        if index is not None and not now.is_current(vm):
            updates.append(UpdateMachine(vm, index))
    if strategy.opportunistic is not None:
        return updates
    return [*updates, *_restarts(now, machines, now.chosen(selected, policy))]


def _unavailable(now: Observed, machines: list[v1.VirtualMachine]) -> int:
    """How many of the pool's machines do not serve though they are to, those on their way out or not made yet included."""
    missing = max(now.pool.spec.replicas - len(machines), 0)
    return missing + sum(
        not now.is_available(vm) and not now.is_left_stopped(vm) for vm in machines
    )


def _restarts(
    now: Observed, machines: list[v1.VirtualMachine], candidates: list[v1.VirtualMachine]
) -> list[Action]:
    """A machine that is not available is restarted in any case: nobody misses it, and the new template may be its cure."""
    left = max_unavailable(now.pool) - _unavailable(now, machines)
    restarts: list[Action] = []
    for vm in candidates:
        instance = now.instance_of(vm)
        if instance is None or not now.needs_restart(vm):
            continue
        if not now.is_available(vm):
            restarts.append(RestartMachine(vm, instance))
        elif left > 0:
            left -= 1
            restarts.append(RestartMachine(vm, instance))
    return restarts
