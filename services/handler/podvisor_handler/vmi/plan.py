"""What the launcher of one VirtualMachineInstance needs next.

Invariant: plan() reads only its arguments and returns a value; it never waits, retries or talks to
anything. reconciler.py observes, carries out, and asks again until there is nothing left to do.
"""

from dataclasses import dataclass, field
from datetime import datetime

from podvisor.domain.v1 import domain_pb2
from podvisor_common.api import core, v1
from podvisor_common.api.v1 import names

from podvisor_handler.launchers.state import Connection
from podvisor_handler.network.facts import PodNetwork
from podvisor_handler.network.plan import Masquerade
from podvisor_handler.vmi.build import masquerade_of

# States in which there is no guest and none comes into being. In one that only a later release knows, there may be.
_WITHOUT_GUEST = (
    domain_pb2.DOMAIN_STATE_UNSPECIFIED,
    domain_pb2.DOMAIN_STATE_NONE,
    domain_pb2.DOMAIN_STATE_ENDED,
)


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a machine cannot be brought about: a CamelCase reason and a sentence for a person."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Launcher:
    """What is known of a launcher and of what was asked of it."""

    connection: Connection
    report: domain_pb2.DomainReport | None = None
    silent_for_s: float = 0.0  # how long the handler has been waiting for it
    ready_at: datetime | None = None
    refusal: Problem | None = None  # why the handler does not speak with it
    # The epoch of the launcher process and the generation that it was given last.
    pushed: tuple[int, int] | None = None
    # The epoch of the launcher process that was asked to end the guest.
    stopped: int | None = None
    is_over: bool = False  # no process is left in its container


@dataclass(frozen=True, slots=True)
class Observed:
    """Everything the decision depends on, read in one go."""

    vmi: v1.VirtualMachineInstance
    pod: core.Pod | None  # the pod that carries the instance, whatever its phase
    has_vanished: bool = field(default=False, kw_only=True)  # nothing of the pod is left anywhere
    launcher: Launcher
    network: PodNetwork | None = None  # None: not wired yet, as far as this process knows
    network_ready_at: datetime | None = None
    problem: Problem | None = None
    failure: Problem | None = None  # of the last attempt, which will be repeated
    failing_for_s: float = 0.0


@dataclass(frozen=True, slots=True)
class PrepareNetwork:
    """Wire the pod's network."""

    desired: Masquerade


@dataclass(frozen=True, slots=True)
class ApplyDomain:
    """Push the machine."""


@dataclass(frozen=True, slots=True)
class ShutdownDomain:
    """Have the guest shut down, destroyed after the grace period."""

    grace_period_s: int


Action = PrepareNetwork | ApplyDomain | ShutdownDomain


def plan(now: Observed) -> list[Action]:
    """The actions that bring `now` one step nearer to what is wanted, in order. Raises SpecRefused."""
    report = now.launcher.report
    if now.vmi.is_final or now.pod is None or now.pod.is_terminal:
        return []
    if now.launcher.connection is not Connection.CONNECTED or report is None:
        return []
    if report.state == domain_pb2.DOMAIN_STATE_ENDED:
        return []
    if now.vmi.metadata.is_being_deleted or now.pod.metadata.is_being_deleted:
        return _stop(now, now.pod, report)
    actions: list[Action] = []
    wanted_network = masquerade_of(now.vmi)
    if wanted_network is not None and now.network is None:
        actions.append(PrepareNetwork(wanted_network))
    generation = now.vmi.metadata.generation or 1
    if report.applied_generation < generation and now.launcher.pushed != (report.epoch, generation):
        actions.append(ApplyDomain())
    return actions


def select_pod(vmi: v1.VirtualMachineInstance, pods: list[core.Pod]) -> core.Pod | None:
    """The pod that carries `vmi`, among the launcher pods of this node that claim to.

    Only the controller can vouch for a pod, by listing it in the instance's active pods: labels and
    owner references of pods can be written by anybody who may create one.
    """
    active = vmi.status.active_pods or {}
    ours = [
        pod
        for pod in pods
        if pod.metadata.uid in active
        and pod.metadata.namespace == vmi.metadata.namespace
        and pod.metadata.label(names.CREATED_BY_LABEL) == vmi.metadata.uid
    ]
    return max(
        ours,
        key=lambda pod: (not pod.is_terminal, pod.metadata.creation_timestamp or ""),
        default=None,
    )


def _stop(now: Observed, pod: core.Pod, report: domain_pb2.DomainReport) -> list[Action]:
    if report.state in _WITHOUT_GUEST or report.shutting_down:
        return []
    if now.launcher.stopped == report.epoch:
        return []
    grace_period_s = now.vmi.grace_period_s
    pod_grace_s = pod.metadata.deletion_grace_period_seconds
    if pod.metadata.is_being_deleted and pod_grace_s is not None:
        grace_period_s = min(grace_period_s, pod_grace_s)
    return [ShutdownDomain(grace_period_s)]
