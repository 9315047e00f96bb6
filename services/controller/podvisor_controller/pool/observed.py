"""All that a decision about one VirtualMachinePool depends on, and the questions asked of it. Pure.

Invariant: an Observed is read in one go and never changes. Machines are chosen in an order that depends on nothing that changes, so
that whoever chooses from an older state chooses the same ones.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from podvisor_common.api import meta, v1
from podvisor_common.api.pool import SelectionPolicy, Selectors, VirtualMachinePool
from podvisor_common.api.v1 import names
from podvisor_common.api.v1.names import ConditionType, Phase, Reason, RunStrategy, SortPolicy

from podvisor_controller.pool import machine
from podvisor_controller.sets.claims import Claims
from podvisor_controller.sets.selectors import holds, matches
from podvisor_controller.vm.observed import owns, wants_new

# Whoever asks these to restart gets another instance.
_RESTARTABLE = frozenset({RunStrategy.ALWAYS, RunStrategy.RERUN_ON_FAILURE, RunStrategy.MANUAL})


# What was refused: by its reason, and the UID of the machine; no UID for those that are still to be made.
Matter = tuple[Reason, str]


@dataclass(frozen=True)
class Observed:
    """One pool, the machines that concern it, and the instances of their names."""

    pool: VirtualMachinePool
    claims: Claims[v1.VirtualMachine]
    instances: Mapping[str, v1.VirtualMachineInstance]
    is_taken: Callable[[str], bool]  # a machine of the namespace, the pool's or not, has that name
    at: datetime
    waiting: frozenset[Matter] = frozenset()  # what was refused and is not to be tried again yet

    @cached_property
    def revision(self) -> str:
        """The revision of a machine that is what the pool makes now."""
        return machine.revision_of(self.pool)

    @cached_property
    def instance_revision(self) -> str:
        """The revision of an instance of such a machine."""
        return machine.instance_revision_of(self.pool)

    @property
    def own(self) -> tuple[v1.VirtualMachine, ...]:
        """The pool's machines, those included that are being deleted: their names are not free yet."""
        return self.claims.own

    @property
    def lasting(self) -> list[v1.VirtualMachine]:
        """Those of them that are not being deleted."""
        return [vm for vm in self.own if not vm.metadata.is_being_deleted]

    @property
    def missing(self) -> int:
        """How many machines are to be made."""
        return max(self.pool.spec.replicas - len(self.own), 0)

    @property
    def surplus(self) -> int:
        """How many machines are to be deleted."""
        return max(len(self.lasting) - self.pool.spec.replicas, 0)

    @property
    def ready(self) -> int:
        """How many machines are ready, by their own word."""
        found = (meta.find_condition(vm.status.conditions, ConditionType.READY) for vm in self.own)
        return sum(condition is not None and condition.is_true for condition in found)

    def waits(self, reason: Reason, vm: v1.VirtualMachine | None = None) -> bool:
        """That was refused for the machine, or for those to be made, and is not to be tried again yet."""
        return (reason, vm.metadata.uid if vm is not None else "") in self.waiting

    def instance_of(self, vm: v1.VirtualMachine) -> v1.VirtualMachineInstance | None:
        """The machine's own instance."""
        instance = self.instances.get(vm.metadata.name)
        return instance if owns(vm, instance) else None

    def is_current(self, vm: v1.VirtualMachine) -> bool:
        """The machine is what the pool makes now."""
        return vm.metadata.label(names.POOL_REVISION_LABEL) == self.revision

    def is_available(self, vm: v1.VirtualMachine) -> bool:
        """Its guest serves, and nobody has asked for anything else."""
        instance = self.instance_of(vm)
        if (
            instance is None
            or instance.metadata.is_being_deleted
            or vm.status.state_change_requests
        ):
            return False
        ready = meta.find_condition(instance.status.conditions, ConditionType.READY)
        return instance.status.phase == Phase.RUNNING and ready is not None and ready.is_true

    def is_left_stopped(self, vm: v1.VirtualMachine) -> bool:
        """No guest of it runs, and nobody is about to start one: a user wants it so."""
        instance = self.instance_of(vm)
        # One that is run again on failure asks for that only when the end of its instance has been seen.
        has_ended = instance is None or (
            instance.is_final and vm.effective_run_strategy != RunStrategy.RERUN_ON_FAILURE
        )
        return has_ended and not vm.status.state_change_requests and not wants_new(vm)

    def is_running(self, vm: v1.VirtualMachine) -> bool:
        """It has an instance that has not ended."""
        instance = self.instance_of(vm)
        return instance is not None and not instance.is_final

    def needs_restart(self, vm: v1.VirtualMachine) -> bool:
        """It has the present template, its guest has not, and a restart would change that and has not been asked for."""
        instance = self.instance_of(vm)
        if instance is None or instance.is_final or instance.metadata.is_being_deleted:
            return False
        if vm.status.state_change_requests or vm.effective_run_strategy not in _RESTARTABLE:
            return False
        has = instance.metadata.label(names.POOL_REVISION_LABEL)
        return self.is_current(vm) and has != self.instance_revision

    def chosen(
        self, machines: Iterable[v1.VirtualMachine], policy: SelectionPolicy | None
    ) -> list[v1.VirtualMachine]:
        """The machines that the policy selects, in its order."""
        policy = policy or SelectionPolicy()
        selected = [vm for vm in machines if is_selected(vm, policy.selectors)]
        order = _ORDERS.get(policy.sort_policy)
        if order is None:
            return sorted(selected, key=self._lot)
        key, is_reversed = order
        return sorted(selected, key=lambda vm: key(self.pool, vm), reverse=is_reversed)

    def _lot(self, vm: v1.VirtualMachine) -> bytes:
        """Drawn once for every machine of a pool."""
        return hashlib.sha256(f"{self.pool.metadata.uid}/{vm.metadata.uid}".encode()).digest()


def max_unavailable(pool: VirtualMachinePool) -> int:
    """How many machines a proactive update may have not ready at a time."""
    value = pool.spec.max_unavailable
    if value is None:
        value = "100%"
    if isinstance(value, int):
        return max(value, 1)
    percent = value.removesuffix("%")
    # What admission would refuse stops nothing and hurries nothing.
    return max(pool.spec.replicas * int(percent) // 100, 1) if percent.isdecimal() else 1


def is_selected(vm: v1.VirtualMachine, selectors: Selectors | None) -> bool:
    """All that is asked of the machine's template holds."""
    if selectors is None:
        return True
    template = vm.spec.template
    labels = (template.metadata.labels if template.metadata else None) or {}
    asked = selectors.label_selector or v1.LabelSelector()
    # Unlike that of a set, an empty one asks for nothing.
    if asked != v1.LabelSelector() and not matches(asked, labels):
        return False
    nodes = template.spec.node_selector or {}
    return all(holds(one, nodes) for one in selectors.node_selector_requirement_matcher or ())


def _index(pool: VirtualMachinePool, vm: v1.VirtualMachine) -> tuple[int, str]:
    """A machine with a name of its own comes before all others."""
    index = machine.index_of(pool, vm.metadata.name)
    return (-1 if index is None else index), vm.metadata.name


def _age(pool: VirtualMachinePool, vm: v1.VirtualMachine) -> tuple[str, int, str]:
    return vm.metadata.creation_timestamp or "", *_index(pool, vm)


_Key = Callable[[VirtualMachinePool, v1.VirtualMachine], tuple[int, str] | tuple[str, int, str]]
# By which key, and whether from its end. All others: by lot.
_ORDERS: dict[str, tuple[_Key, bool]] = {
    SortPolicy.ASCENDING_ORDER: (_index, False),
    SortPolicy.DESCENDING_ORDER: (_index, True),
    SortPolicy.OLDEST: (_age, False),
    SortPolicy.NEWEST: (_age, True),
}
