"""What one VirtualMachineRestore needs next.

Invariant: plan() reads only its arguments and returns a value; calling it twice changes nothing. The target is locked before
anything is made for it, written once, and let go of when it is what it shall be or never will: in whatever state a process ended,
the next one goes on from what is there. No claim goes but those whose place is to be taken and whose content can be had again, and
those of the restore that the target does not name and that took nobody's place. Once a claim has gone, no guest is waited for.
"""

from dataclasses import dataclass

from podvisor_common.api.snapshot import names
from podvisor_common.api.snapshot.names import TargetReadinessPolicy

from podvisor_controller.restore.hindrances import failure_of, hindrance_of
from podvisor_controller.restore.observed import Observed


@dataclass(frozen=True, slots=True)
class ProtectRestore:
    """Have the restore stay until it is let go of, and go with its target."""


@dataclass(frozen=True, slots=True)
class StopTarget:
    """Ask the target to stop."""


@dataclass(frozen=True, slots=True)
class LockTarget:
    """Have the target say that the restore is in progress: it does not start, and nobody else restores it."""


@dataclass(frozen=True, slots=True)
class DeleteClaims:
    """Begin the deletion of these claims, by name."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CreateClaims:
    """Make the claims of these volumes."""

    volumes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReplaceTarget:
    """Make the target what was kept."""


@dataclass(frozen=True, slots=True)
class CreateTarget:
    """Make a machine of what was kept."""


@dataclass(frozen=True, slots=True)
class OwnClaims:
    """Have these claims, by name, go with the target."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AbandonClaims:
    """Delete what was made and nothing came of."""


@dataclass(frozen=True, slots=True)
class UnlockTarget:
    """Let the target start."""


@dataclass(frozen=True, slots=True)
class ReleaseRestore:
    """Nothing is left to be done: let the restore go."""


Action = (
    ProtectRestore
    | StopTarget
    | LockTarget
    | DeleteClaims
    | CreateClaims
    | ReplaceTarget
    | CreateTarget
    | OwnClaims
    | AbandonClaims
    | UnlockTarget
    | ReleaseRestore
)


def plan(now: Observed) -> list[Action]:
    """The actions that bring `now` one step nearer to its end, in order; empty when there is nothing to do."""
    if now.is_deleting:
        return _wind_down(now)
    if now.is_complete:
        return _let_go(now)
    if failure_of(now):
        return _give_up(now)
    protect: list[Action] = [] if now.is_protected else [ProtectRestore()]
    return protect + _next_step(now)


def is_done(now: Observed) -> bool:
    """Everything is as it shall be, and the target is free."""
    return now.is_restored and not now.holds_lock and not now.unowned


def may_begin(now: Observed) -> bool:
    """Nothing stands in the way of the claims: they can be told, and be made from then on."""
    if failure_of(now) or hindrance_of(now) or not now.may_go_on:
        return False
    return now.target is None or now.holds_lock


def _next_step(now: Observed) -> list[Action]:
    if now.is_restored:
        return _own(now) or _let_go(now)
    if hindrance_of(now):
        return []
    if now.policy == TargetReadinessPolicy.STOP_TARGET and not now.is_being_stopped:
        return [StopTarget()]
    if not now.may_go_on:
        return []
    if now.target is not None and not now.holds_lock:
        return [LockTarget()]
    # What there will be is told before it is there, so that all of it can be found again.
    return _with_claims(now) if now.has_begun else []


def _with_claims(now: Observed) -> list[Action]:
    if now.leaving and not now.is_ready:
        return []
    if now.leaving:
        return [DeleteClaims(tuple(claim.metadata.name for claim in now.leaving))]
    if now.missing:
        return [CreateClaims(tuple(volume.volume_name for volume in now.missing))]
    if now.unmade or now.unbound:
        return []
    return [ReplaceTarget() if now.target is not None else CreateTarget()]


def _give_up(now: Observed) -> list[Action]:
    abandon: list[Action] = [AbandonClaims()] if now.abandoned else []
    # The lock first: what an earlier leader has still on its way to the target is of a version that is over then.
    return _let_go(now) + abandon


def _wind_down(now: Observed) -> list[Action]:
    """Deleted: nothing stays of one that nothing came of, and what came of one is left as it shall be."""
    if now.is_complete:
        actions = _let_go(now)
    elif now.is_restored:
        actions = _own(now) + _let_go(now)
    else:
        actions = _give_up(now)
    finalizers = now.restore.metadata.finalizers or ()
    return [*actions, ReleaseRestore()] if names.RESTORE_FINALIZER in finalizers else actions


def _own(now: Observed) -> list[Action]:
    unowned = tuple(claim.metadata.name for claim in now.unowned)
    return [OwnClaims(unowned)] if unowned else []


def _let_go(now: Observed) -> list[Action]:
    return [UnlockTarget()] if now.holds_lock else []
