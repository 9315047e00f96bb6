"""What one VirtualMachineInstance needs next.

Invariant: plan() reads only its arguments and returns a value; calling it twice changes nothing. It never waits, retries
or talks to anything: reconciler.py does what it says, and calls again when something has changed.
"""

from dataclasses import dataclass, replace
from datetime import timedelta

from podvisor_common.api import core
from podvisor_common.api.v1 import names
from podvisor_common.api.v1.names import Phase

from podvisor_controller.node.health import NodeHealth
from podvisor_controller.vmi.container import Manifest
from podvisor_controller.vmi.observed import Observed, compute_ended, compute_is_stuck
from podvisor_controller.vmi.pod import pod_grace_period_s, render_pod
from podvisor_controller.vmi.trouble import Trouble

STUCK_GRACE_S = 1


@dataclass(frozen=True, slots=True)
class CreatePod:
    """Create the launcher pod."""

    manifest: Manifest


@dataclass(frozen=True, slots=True)
class DeletePod:
    """Begin the deletion of a launcher pod."""

    name: str
    uid: str
    grace_period_s: int


@dataclass(frozen=True, slots=True)
class DiscardPod:
    """Delete a pod that the kubelet refused; another attempt follows."""

    name: str
    uid: str
    trouble: Trouble


@dataclass(frozen=True, slots=True)
class Finish:
    """The instance has ended and its handler does not say so."""

    phase: Phase
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class ReleaseFinalizer:
    """Nothing of the instance is left: let the object go."""


Action = CreatePod | DeletePod | DiscardPod | Finish | ReleaseFinalizer


def plan(now: Observed) -> list[Action]:
    """The actions that bring `now` one step nearer to what the spec asks, in order; empty when there is nothing to do."""
    if now.vmi.metadata.is_being_deleted:
        return _wind_down(now)
    if now.vmi.is_final:
        return []
    if now.was_bound and now.node is NodeHealth.FENCED:
        node = now.vmi.status.node_name
        message = f"Node {node} was taken out of service or deleted."
        return [Finish(Phase.FAILED, "NodeFenced", message)]
    if not now.pods:
        return _start(now)
    if now.refusal is not None:
        return _discard(now)
    if now.handler_patience_left is not None and not now.handler_patience_left:
        return _finish(now)
    return []


def _wind_down(now: Observed) -> list[Action]:
    """Being deleted: the pods first, the object when they are gone.

    Where another instance follows, the object goes with the guest already: an ended guest writes no disk any more, and the
    kubelet takes a second to find the pod's end.
    """
    if (end := _end_in_sight(now)) is not None:
        return [end]
    waits = now.delete_retry_left > timedelta(0)
    deletions: list[Action] = [] if waits else [*pods_to_go(now)]
    held = names.VMI_FINALIZER in (now.vmi.metadata.finalizers or ())
    makes_way = now.vmi.is_final and now.has_successor
    is_over = not now.pods and not now.may_run
    return [*deletions, ReleaseFinalizer()] if held and (makes_way or is_over) else deletions


def pods_to_go(now: Observed) -> list[DeletePod]:
    """The deletions that the instance's own asks for and that have not begun, whether or not they may be tried now."""
    if not now.vmi.metadata.is_being_deleted:
        return []
    graces = [(pod, _grace_period_s(now, pod)) for pod in now.pods]
    return [
        DeletePod(pod.metadata.name, pod.metadata.uid, grace_period_s)
        for pod, grace_period_s in graces
        if not _is_going(pod, within_s=grace_period_s)
    ]


def _end_in_sight(now: Observed) -> Finish | None:
    """What the pods prove of the guest's end is said before they go: that they have gone proves nothing."""
    if not now.may_run:
        return None
    if (refusal := now.refusal) is not None:
        return Finish(Phase.SUCCEEDED, refusal.reason, refusal.message)
    if now.handler_patience_left is None or now.handler_patience_left or now.pod is None:
        return None
    finish = outcome_of(now.pod, has_run=now.has_run)
    return replace(finish, phase=Phase.SUCCEEDED)  # an end is what was asked for


def _is_going(pod: core.Pod, *, within_s: int) -> bool:
    """The pod is being deleted, with a grace period of that length at most. One that is longer may be cut."""
    granted_s = pod.metadata.deletion_grace_period_seconds
    is_long = within_s == STUCK_GRACE_S and granted_s is not None and granted_s > within_s
    return pod.metadata.is_being_deleted and not is_long


def _grace_period_s(now: Observed, pod: core.Pod) -> int:
    """The guest's time to shut down, and the kubelet's allowance; a moment where no guest was ever started."""
    is_empty = not now.has_run and compute_is_stuck(pod)
    return STUCK_GRACE_S if is_empty else pod_grace_period_s(now.vmi)


def _start(now: Observed) -> list[Action]:
    """No pod. One that vanished from a node that may still run its guest proves nothing and gets no successor."""
    waits = now.retry_left > timedelta(0)
    if now.was_bound or now.obstacle is not None or waits:
        return []
    return [CreatePod(render_pod(now.vmi, now.config, now.claims, now.attempt))]


def _discard(now: Observed) -> list[Action]:
    """Refused by the kubelet: replaced, but only after the status has stopped naming the node that refused it."""
    pod, refusal = now.pod, now.refusal
    if pod is None or refusal is None or now.was_bound or pod.metadata.is_being_deleted:
        return []
    return [DiscardPod(pod.metadata.name, pod.metadata.uid, refusal)]


def _finish(now: Observed) -> list[Action]:
    """The pod has ended: so has the guest, as well as the pod's `compute` container did."""
    return [outcome_of(now.pod, has_run=now.has_run)] if now.pod is not None else []


def outcome_of(pod: core.Pod, *, has_run: bool) -> Finish:
    """How an instance ended whose pod is terminal."""
    name = pod.metadata.name
    if pod.status.reason:
        return Finish(Phase.FAILED, pod.status.reason, f"Pod {name}: {pod.status.message}")
    ended = compute_ended(pod)
    if ended is None:
        return Finish(Phase.FAILED, "PodEnded", f"Pod {name} ended and left no exit code.")
    if ended.reason == core.CONTAINER_STATUS_UNKNOWN and not has_run:
        return Finish(
            Phase.FAILED, "NeverStarted", f"Pod {name} ended before its guest was started."
        )
    if ended.exit_code != 0:
        message = f"Pod {name} ended with exit code {ended.exit_code} ({ended.reason})."
        return Finish(Phase.FAILED, "GuestCrashed", message)
    if not has_run:
        message = f"Pod {name} ended before its guest was reported as running."
        return Finish(Phase.FAILED, "PodEndedEarly", message)
    return Finish(Phase.SUCCEEDED, "GuestShutdown", f"Pod {name} ended cleanly.")
