"""What one VirtualMachineSnapshot needs next.

Invariant: plan() reads only its arguments and returns a value; calling it twice changes nothing. The machine is locked before
anything of it is read and let go of when everything was taken, or when nothing of it is to be: in whatever state a process
ended, the next one goes on from what is there.
"""

from dataclasses import dataclass

from podvisor_common.api.snapshot import names

from podvisor_controller.snapshot.observed import Observed


@dataclass(frozen=True, slots=True)
class ProtectSnapshot:
    """Put the finalizer on the snapshot, without which it would go before what was made for it."""


@dataclass(frozen=True, slots=True)
class LockSource:
    """Have the machine say that the snapshot is in progress, and stay."""


@dataclass(frozen=True, slots=True)
class CreateContent:
    """Write down what the machine is."""


@dataclass(frozen=True, slots=True)
class CreateVolumeSnapshots:
    """Make these VolumeSnapshots, all at once."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DeleteContent:
    """Begin the deletion of the content."""


@dataclass(frozen=True, slots=True)
class ReleaseContent:
    """Let the content go when it is deleted."""


@dataclass(frozen=True, slots=True)
class UnlockSource:
    """Let the machine change, and go."""


@dataclass(frozen=True, slots=True)
class ReleaseSnapshot:
    """Nothing is left to be done: let the snapshot go."""


Action = (
    ProtectSnapshot
    | LockSource
    | CreateContent
    | CreateVolumeSnapshots
    | DeleteContent
    | ReleaseContent
    | UnlockSource
    | ReleaseSnapshot
)


def plan(now: Observed) -> list[Action]:
    """The actions that bring `now` one step nearer to its end, in order; empty when there is nothing to do."""
    if now.is_ending:
        return _wind_down(now)
    if now.is_over:
        return [UnlockSource()] if now.holds_lock else []
    finalizers = now.snapshot.metadata.finalizers or ()
    protect: list[Action] = [] if names.SNAPSHOT_FINALIZER in finalizers else [ProtectSnapshot()]
    return protect + _next_step(now)


def _next_step(now: Observed) -> list[Action]:
    if now.vm is None or now.is_taken:
        return []
    if not now.is_locked:
        return [] if now.hindrance else [LockSource()]
    if now.content is None:
        return [CreateContent()]
    if now.content.metadata.is_being_deleted:
        return []
    return [CreateVolumeSnapshots(tuple(now.absent))] if now.absent else []


def _wind_down(now: Observed) -> list[Action]:
    """Deleted or failed: the content first, where it goes, then the machine, and the snapshot itself at last."""
    if now.restore:
        # What was kept may be all that there is.
        return []
    actions: list[Action] = []
    content = now.content
    if content is not None:
        if now.loses_content and not content.metadata.is_being_deleted:
            actions.append(DeleteContent())
        if names.CONTENT_FINALIZER in (content.metadata.finalizers or ()):
            actions.append(ReleaseContent())
    if actions or (content is not None and now.loses_content):
        # What becomes of it comes back as an event.
        return actions
    if now.holds_lock:
        return [UnlockSource()]
    finalizers = now.snapshot.metadata.finalizers or ()
    is_to_go = now.is_deleting and names.SNAPSHOT_FINALIZER in finalizers
    return [ReleaseSnapshot()] if is_to_go else []
