"""What one VirtualMachineInstanceReplicaSet needs next. Pure.

Invariant: an instance that has ended or is being deleted does not count; claims come before everything else, so that nothing is made
or deleted by a number that is about to change. Instances are deleted in the order in which Kubernetes' ReplicaSets delete pods.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from podvisor_common.api import meta, v1
from podvisor_common.api.v1.names import ConditionType, Phase

from podvisor_controller.sets.claims import Claims
from podvisor_controller.sets.conditions import Failure
from podvisor_controller.sets.selectors import matches

# The least useful first.
_USE_OF_PHASE: dict[str, int] = {Phase.SCHEDULED: 1, Phase.UNKNOWN: 2, Phase.RUNNING: 3}


@dataclass(frozen=True, slots=True)
class Observed:
    """One set and the instances that concern it. The rest is what this process remembers of it.

    `deleted` are UIDs of instances whose deletion has begun though the cache does not show it, `doubtful` those whose deletion
    was asked for without an answer.
    """

    replica_set: v1.VirtualMachineInstanceReplicaSet
    claims: Claims[v1.VirtualMachineInstance]
    at: datetime
    deleted: frozenset[str] = frozenset()
    doubtful: frozenset[str] = frozenset()
    failure: Failure | None = None
    # Before what was refused is tried again: a refused deletion keeps nothing from being made, and the other way round.
    claims_wait: timedelta = timedelta(0)
    creations_wait: timedelta = timedelta(0)
    deletions_wait: timedelta = timedelta(0)

    @property
    def is_sound(self) -> bool:
        """What the set makes would be its own. Otherwise it would make more and more of it."""
        spec = self.replica_set.spec
        described = spec.template.metadata
        return matches(spec.selector, described.labels if described else None)

    @property
    def present(self) -> list[v1.VirtualMachineInstance]:
        """The set's instances that are not being deleted."""
        return [
            vmi
            for vmi in self.claims.own
            if not vmi.metadata.is_being_deleted and vmi.metadata.uid not in self.deleted
        ]

    @property
    def active(self) -> list[v1.VirtualMachineInstance]:
        """The instances that count."""
        return [vmi for vmi in self.present if not vmi.is_final]

    @property
    def surplus(self) -> int:
        """How many instances too many there are; negative when there are too few."""
        return len(self.active) - self.replica_set.spec.replicas

    @property
    def adoptable(self) -> list[v1.VirtualMachineInstance]:
        """Orphans that live. One that has ended before anybody managed it stays for whoever wants to look at it."""
        return [vmi for vmi in self.claims.orphans if not vmi.is_final]

    @property
    def wants_claims(self) -> bool:
        """There is something to adopt or to release."""
        return bool(self.adoptable or self.claims.strays)

    @property
    def wants_deletions(self) -> bool:
        """There are too many instances, or some that have ended."""
        return self.surplus > 0 or len(self.present) > len(self.active)

    @property
    def is_settled(self) -> bool:
        """There are as many instances as there shall be, all of them live, and nothing else is the set's to have or to let go."""
        return self.surplus == 0 and not self.wants_deletions and not self.wants_claims


@dataclass(frozen=True, slots=True)
class AdoptInstance:
    """Make an instance that nobody manages the set's own."""

    vmi: v1.VirtualMachineInstance


@dataclass(frozen=True, slots=True)
class ReleaseInstance:
    """Let go of an instance that the selector does not select."""

    vmi: v1.VirtualMachineInstance


@dataclass(frozen=True, slots=True)
class CreateInstances:
    """Create so many instances."""

    count: int


@dataclass(frozen=True, slots=True)
class DeleteInstance:
    """Begin the deletion of an instance."""

    vmi: v1.VirtualMachineInstance


Action = AdoptInstance | ReleaseInstance | CreateInstances | DeleteInstance


def plan(now: Observed) -> list[Action]:
    """The actions that bring `now` one step nearer to what the spec asks; empty when there is nothing to do."""
    if now.replica_set.metadata.is_being_deleted or not now.is_sound:
        return []
    if now.wants_claims and now.claims_wait <= timedelta(0):
        # Only then is it known how many there are.
        return _claims(now)
    if now.replica_set.spec.paused:
        return []
    actions: list[Action] = []
    if now.wants_deletions and now.deletions_wait <= timedelta(0):
        # What has ended first: it may fill the quota that its successor needs.
        ended = [vmi for vmi in now.present if vmi.is_final]
        superfluous = in_deletion_order(now)[: max(now.surplus, 0)]
        actions += [DeleteInstance(vmi) for vmi in (*ended, *superfluous)]
    if now.surplus < 0 and now.creations_wait <= timedelta(0):
        actions.append(CreateInstances(-now.surplus))
    return actions


def _claims(now: Observed) -> list[Action]:
    return [
        *(AdoptInstance(vmi) for vmi in now.adoptable),
        *(ReleaseInstance(vmi) for vmi in now.claims.strays),
    ]


def in_deletion_order(now: Observed) -> list[v1.VirtualMachineInstance]:
    """The active instances, those first that are missed least; of equals the newest, and of those of one second by name."""
    newest_first = sorted(
        sorted(now.active, key=lambda vmi: vmi.metadata.name),
        key=lambda vmi: vmi.metadata.creation_timestamp or "",
        reverse=True,
    )
    return sorted(newest_first, key=lambda vmi: _use_of(vmi, now.doubtful))


def is_ready(vmi: v1.VirtualMachineInstance) -> bool:
    """The instance says that it is ready."""
    ready = meta.find_condition(vmi.status.conditions, ConditionType.READY)
    return ready is not None and ready.is_true


def _use_of(
    vmi: v1.VirtualMachineInstance, doubtful: frozenset[str]
) -> tuple[bool, bool, int, bool]:
    """How much an instance is missed: one that may be gone already least, then one without a node, not running, not ready."""
    is_certain = vmi.metadata.uid not in doubtful
    phase = _USE_OF_PHASE.get(vmi.status.phase, 0)
    return is_certain, bool(vmi.status.node_name), phase, is_ready(vmi)
