"""What one VirtualMachineClone needs next.

Invariant: plan() reads only its arguments and returns a value; calling it twice changes nothing. What is made for a clone has names
that follow from it, and is deleted only once the status says that the target is there and its claims have their content, or that
the clone has failed.
"""

from dataclasses import dataclass

from podvisor_common.api.clone.names import ClonePhase

from podvisor_controller.clone.observed import Observed


@dataclass(frozen=True, slots=True)
class CreateSnapshot:
    """Have a snapshot of the source taken."""


@dataclass(frozen=True, slots=True)
class CreateRestore:
    """Have the target made from the snapshot."""


@dataclass(frozen=True, slots=True)
class DeleteRestore:
    """The restore is not needed any more."""


@dataclass(frozen=True, slots=True)
class DeleteSnapshot:
    """The snapshot is not needed any more."""


@dataclass(frozen=True, slots=True)
class DeleteClone:
    """The target is gone, and its clone goes after it."""


Action = CreateSnapshot | CreateRestore | DeleteRestore | DeleteSnapshot | DeleteClone


def plan(now: Observed) -> list[Action]:
    """The actions that bring `now` one step nearer to its end, in order; empty when there is nothing to do."""
    if now.clone.metadata.is_being_deleted:
        return []
    if now.phase == ClonePhase.FAILED:
        return _clear_up(now)
    if now.phase == ClonePhase.SUCCEEDED:
        return _clear_up(now) if now.target is not None else [DeleteClone()]
    if now.failure or now.pending or now.is_restored:
        return []
    if now.snapshot is None:
        return [CreateSnapshot()]
    return [CreateRestore()] if now.is_snapshot_ready and now.restore is None else []


def _clear_up(now: Observed) -> list[Action]:
    """The restore goes first: a snapshot is not deleted under it."""
    restore, snapshot = now.restore, now.snapshot
    if restore is not None and now.has_own_restore:
        is_to_go = now.is_restore_over and not restore.metadata.is_being_deleted
        return [DeleteRestore()] if is_to_go else []
    if snapshot is None or snapshot.metadata.is_being_deleted or not now.has_own_snapshot:
        return []
    return [DeleteSnapshot()]
