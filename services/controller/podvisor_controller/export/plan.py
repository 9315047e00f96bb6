"""What one VirtualMachineExport needs next.

Invariant: plan() reads only its arguments and returns a value; calling it twice changes nothing. No pod serves a claim that somebody
else may write to: where somebody takes one meanwhile, the pod goes, and downloads with it.
"""

from dataclasses import dataclass

from podvisor_common.api.export.names import EventReason

from podvisor_controller.export.observed import Observed


@dataclass(frozen=True, slots=True)
class EnsureService:
    """Have the Service in front of the pod."""


@dataclass(frozen=True, slots=True)
class EnsureToken:
    """Have the Secret with the token, where the user names none."""


@dataclass(frozen=True, slots=True)
class RestoreClaims:
    """Make claims from what a snapshot has of these of its machine."""

    claims: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CreatePod:
    """Make the pod that serves the claims."""


@dataclass(frozen=True, slots=True)
class FurnishPod:
    """Give the pod, which waits for it, its certificate and what it makes manifests of."""


@dataclass(frozen=True, slots=True)
class DeletePod:
    """Take the pod away, and tell why."""

    uid: str
    reason: str
    message: str
    is_failure: bool = False


@dataclass(frozen=True, slots=True)
class DeleteExport:
    """Take the export away, and with it everything that was made for it."""


Action = (
    EnsureService | EnsureToken | RestoreClaims | CreatePod | FurnishPod | DeletePod | DeleteExport
)


def plan(now: Observed) -> list[Action]:
    """The actions that bring `now` one step nearer to what the export asks for, in order; empty when there is nothing to do."""
    if now.export.metadata.is_being_deleted:
        return []
    if now.is_over:
        return [DeleteExport()]
    actions: list[Action] = [EnsureService()]
    if now.source.lacking and not now.retry_left:
        actions.append(RestoreClaims(now.source.lacking))
    pod = now.own_pod
    if pod is not None:
        return [*actions, *_about_pod(now)]
    # While a predecessor's pod of the same name is on its way out, there is nothing to do but wait.
    if now.pod is None and now.is_available and not now.retry_left:
        actions += [EnsureToken(), CreatePod()]
    return actions


def _about_pod(now: Observed) -> list[Action]:
    pod = now.own_pod
    assert pod is not None
    uid, name = pod.metadata.uid, f"{pod.metadata.namespace}/{pod.metadata.name}"
    if pod.metadata.is_being_deleted:
        return []
    if pod.is_terminal:
        why = now.ended_because
        told = f"Exporter pod {name} is in phase {pod.status.phase}" + (f": {why}" if why else "")
        return [DeletePod(uid, EventReason.POD_ENDED, told, is_failure=bool(why))]
    if not now.is_available or now.serves_others:
        hindrance = now.source.hindrance
        why = now.users or (hindrance.message if hindrance is not None else "")
        told = why or "There are other volumes to be exported by now"
        return [DeletePod(uid, EventReason.PAUSED, told)]
    if now.is_ready:
        return [EnsureToken()]
    furnish: list[Action] = [] if now.is_furnished else [FurnishPod()]
    return [EnsureToken(), *furnish]
