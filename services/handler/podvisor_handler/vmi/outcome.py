"""How a VirtualMachineInstance ends.

Only facts end one here: its launcher says that the guest is gone, the kubelet says that its pod is, or nothing is left on
the node of the launcher's container or of a pod that has vanished. That a launcher cannot be reached never does.
"""

from dataclasses import dataclass, replace

from podvisor.domain.v1 import domain_pb2
from podvisor_common.api import core
from podvisor_common.api.v1.names import Phase

from podvisor_handler.vmi.plan import Observed
from podvisor_handler.vmi.sources import COMPUTE_CONTAINER


@dataclass(frozen=True, slots=True)
class Outcome:
    """The final phase, why as one CamelCase word, and a sentence for a person."""

    phase: Phase
    reason: str
    message: str


_SHUT_DOWN = Outcome(Phase.SUCCEEDED, "Shutdown", "The VirtualMachineInstance was shut down.")
_VANISHED = Outcome(
    Phase.FAILED,
    "PodVanished",
    "The pod was removed before its end was seen, and nothing of it is left on the node.",
)
_OVER = Outcome(
    Phase.FAILED,
    "PodFailed",
    f"The container {COMPUTE_CONTAINER} ended without a word about the guest; none of its processes is left.",
)
_NEVER_STARTED = Outcome(
    Phase.FAILED, "NeverStarted", "The pod was stopped before the guest was started."
)
_FAILURES = {
    domain_pb2.DOMAIN_REASON_CRASHED: ("GuestCrashed", "The VirtualMachineInstance crashed."),
    domain_pb2.DOMAIN_REASON_REJECTED: ("DomainRejected", "The machine was rejected."),
    domain_pb2.DOMAIN_REASON_START_FAILED: ("StartFailed", "The machine could not be started."),
}
_UNKNOWN_FAILURE = ("GuestGone", "The guest is gone for an unknown reason.")


def outcome_of(now: Observed) -> Outcome | None:
    """How the instance has ended; None while it has not."""
    report = now.launcher.report
    if report is not None and report.state == domain_pb2.DOMAIN_STATE_ENDED and _is_known(report):
        if now.pod is None or not _is_evicted(now, now.pod, report):
            return _reported(report, wanted=now.vmi.metadata.is_being_deleted)
        return _evicted(now.pod) if now.pod.is_terminal else None
    if now.pod is not None and now.pod.is_terminal:
        found = _of_pod(now.pod, has_run=now.vmi.status.phase == Phase.RUNNING)
    else:
        found = _VANISHED if now.has_vanished else _OVER if now.launcher.is_over else None
    if found is not None and now.vmi.metadata.is_being_deleted:
        return replace(found, phase=Phase.SUCCEEDED)  # an end is what was asked for
    return found


def _is_known(report: domain_pb2.DomainReport) -> bool:
    """Whether the reason says something here. That of a launcher of a later release may not: then its exit code tells."""
    return report.reason in domain_pb2.DomainReason.values()


def _is_evicted(now: Observed, pod: core.Pod, report: domain_pb2.DomainReport) -> bool:
    """The kubelet stopped the containers of a pod that nobody has deleted. It may say why when the last one has ended."""
    is_deleted = now.vmi.metadata.is_being_deleted or pod.metadata.is_being_deleted
    return report.container_stopping and not is_deleted


def _evicted(pod: core.Pod) -> Outcome:
    """In the kubelet's words. It has none in the status of a pod whose guest obeyed, only in an event."""
    if pod.status.reason:
        message = f"The node ended the pod: {pod.status.message}"
        return Outcome(Phase.FAILED, pod.status.reason, message)
    message = f"The node ended the pod, which nobody had deleted; events of pod {pod.metadata.name} say why."
    return Outcome(Phase.FAILED, "Evicted", message)


def _reported(report: domain_pb2.DomainReport, *, wanted: bool) -> Outcome:
    """`wanted`: the instance is being deleted, so its end is what was asked for."""
    match report.reason:
        case domain_pb2.DOMAIN_REASON_SHUTDOWN | domain_pb2.DOMAIN_REASON_DESTROYED:
            return _SHUT_DOWN
        case domain_pb2.DOMAIN_REASON_GRACE_PERIOD_EXPIRED:
            message = "The guest did not shut down within the grace period and was destroyed."
            phase = Phase.SUCCEEDED if wanted else Phase.FAILED
            return Outcome(phase, "GracePeriodExpired", message)
        case domain_pb2.DOMAIN_REASON_NEVER_STARTED:
            return replace(_NEVER_STARTED, phase=Phase.SUCCEEDED) if wanted else _NEVER_STARTED
    reason, message = _FAILURES.get(report.reason, _UNKNOWN_FAILURE)
    details = f" {report.message}" if report.message else ""
    return Outcome(Phase.FAILED, reason, message + details)


def _of_pod(pod: core.Pod, *, has_run: bool) -> Outcome | None:
    """A pod whose container never ran proves nothing: the controller makes another one."""
    compute = pod.container_status(COMPUTE_CONTAINER)
    ended = compute.state.terminated if compute and compute.state else None
    if ended is None:
        return None
    if pod.status.reason:
        return _evicted(pod)
    if ended.exit_code == 0:
        return _SHUT_DOWN
    if ended.reason == core.CONTAINER_STATUS_UNKNOWN and not has_run:
        return _NEVER_STARTED
    message = f"The container {COMPUTE_CONTAINER} ended with exit code {ended.exit_code}."
    return Outcome(Phase.FAILED, "PodFailed", message)
