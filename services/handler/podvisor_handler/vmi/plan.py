"""What the launcher of one VirtualMachineInstance needs next.

Invariant: plan() reads only its arguments and returns a value; it never waits, retries or talks to
anything. reconciler.py observes, carries out, and asks again until there is nothing left to do.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from podvisor.domain.v1 import domain_pb2
from podvisor_common.api import core, v1
from podvisor_common.api.v1 import names
from podvisor_common.launcher_pod import PASST_SYSCTLS

from podvisor_handler.launchers.state import Connection
from podvisor_handler.network.attachments import Attachment, Passt
from podvisor_handler.network.facts import PodNetwork
from podvisor_handler.storage.plan import Access, HandOver, accesses_of, hand_over_of, is_written
from podvisor_handler.vmi.build import accelerator_of, build_domain, digest_of
from podvisor_handler.vmi.interfaces import attachments_of, interfaces_of

# States in which there is no guest and none comes into being. In one that only a later release knows, there may be.
_WITHOUT_GUEST = (
    domain_pb2.DOMAIN_STATE_UNSPECIFIED,
    domain_pb2.DOMAIN_STATE_NONE,
    domain_pb2.DOMAIN_STATE_ENDED,
)
# States in which a guest has all that it was started with.
_WITH_GUEST = (domain_pb2.DOMAIN_STATE_RUNNING, domain_pb2.DOMAIN_STATE_PAUSED)


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
    # The epoch of the launcher process and the digest of the specification that it was given last.
    pushed: tuple[int, str] | None = None
    # The epoch of the launcher process that was asked to end the guest, and within how many seconds.
    stopped: tuple[int, int] | None = None
    is_over: bool = False  # no process is left in its container
    has_dhcpv6: bool = True  # one of an earlier release has not
    has_hardware: bool = True  # it builds all of it; one of an earlier release does not


@dataclass(frozen=True, slots=True)
class PrepareNetwork:
    """Wire the pod's networks. One that `is_prepared` the kubelet has made what it shall be."""

    desired: tuple[Attachment, ...]
    is_prepared: bool = False


@dataclass(frozen=True, slots=True)
class PrepareVolumes:
    """Let the launcher's user at what it writes to."""

    accesses: tuple[Access, ...]
    # Epoch and sequence of the report in which the launcher complains of a disk, if it does.
    complaint: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class ApplyDomain:
    """Push the machine."""

    spec: domain_pb2.DomainSpec = field(repr=False)  # holds what is confidential


@dataclass(frozen=True, slots=True)
class ShutdownDomain:
    """Have the guest shut down, destroyed after the grace period."""

    grace_period_s: int


@dataclass(frozen=True, slots=True)
class HandOverVolume:
    """Hand a volume over that the launcher waits for. Its failure is the volume's, not the machine's."""

    order: HandOver


Action = PrepareNetwork | PrepareVolumes | ApplyDomain | ShutdownDomain | HandOverVolume


@dataclass(frozen=True, slots=True)
class Attempt:
    """The last hand-over of a volume."""

    order: HandOver
    is_taken: bool
    is_due: bool = False  # it may be made again, if it is waited for
    problem: str = ""  # what is to be said of its failure, as a sentence for a person


@dataclass(frozen=True, slots=True)
class Observed:
    """Everything the decision depends on, read in one go."""

    vmi: v1.VirtualMachineInstance
    pod: core.Pod | None  # the pod that carries the instance, whatever its phase
    has_vanished: bool = field(default=False, kw_only=True)  # nothing of the pod is left anywhere
    launcher: Launcher
    network: PodNetwork | None = None  # None: not wired yet, as far as this process knows
    network_ready_at: datetime | None = None
    # An interface that the pod had not got may be there by now.
    network_is_due: bool = False
    # How long each network has been looked for in vain, by its name.
    network_missing_for_s: Mapping[str, float] = field(default_factory=dict)
    volumes: PrepareVolumes | None = None  # what was done last
    # Of volumes that may come and go: the running pods that hold them, and what was handed over last.
    holders: Mapping[str, core.Pod] = field(default_factory=dict)
    handovers: Mapping[str, Attempt] = field(default_factory=dict)
    handing_over: frozenset[str] = frozenset()  # those that are on their way still
    problem: Problem | None = None
    failure: Problem | None = None  # of the last attempt, which will be repeated
    failing_for_s: float = 0.0


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
    wanted = attachments_of(now.vmi, report, now.network, runs=report.state in _WITH_GUEST)
    if _needs_wiring(now, now.pod, wanted):
        # The specification depends on what is found.
        return [PrepareNetwork(wanted, _is_prepared(now.vmi, now.pod, wanted))]
    spec = build_domain(
        now.vmi,
        now.pod,
        now.network,
        has_dhcpv6=now.launcher.has_dhcpv6,
        has_hardware=now.launcher.has_hardware,
    )
    applying = [ApplyDomain(spec)] if _needs_push(now.launcher, report, spec) else []
    return [
        *_volumes(now, report, spec, is_pushed=bool(applying)),
        *applying,
        *_handovers(now, report, spec),
    ]


def _needs_wiring(now: Observed, pod: core.Pod, wanted: tuple[Attachment, ...]) -> bool:
    if now.network is None:
        # Also where all have left: what was made for them is taken away, and it is known that they have. And where there never was one, if
        # the guest needs a device of the node's, which is opened on the way.
        has_device = accelerator_of(pod) == domain_pb2.ACCELERATOR_KVM
        return has_device or bool(wanted or interfaces_of(now.vmi))
    if _lasting(now.network.desired) != _lasting(wanted):
        return True
    return now.network_is_due and bool(now.network.missing)


def _is_prepared(
    vmi: v1.VirtualMachineInstance, pod: core.Pod, wanted: tuple[Attachment, ...]
) -> bool:
    """Nothing is to be made in the pod's network: it has no interface for the guest, or those of passt alone, which needs a few settings
    and nothing else. A pod of an earlier release does not ask the kubelet for them."""
    if not interfaces_of(vmi):
        return True
    context = pod.spec.security_context or core.SecurityContext()
    asked = {each.name: each.value for each in context.sysctls or ()}
    return asked.items() >= PASST_SYSCTLS.items() and all(
        isinstance(attachment.binding, Passt) for attachment in wanted
    )


def _lasting(attachments: tuple[Attachment, ...]) -> list[Attachment]:
    """Without what depends on whether the guest runs already: a start alone is no reason to look again."""
    return [replace(attachment, may_come_later=False) for attachment in attachments]


def _needs_push(
    launcher: Launcher, report: domain_pb2.DomainReport, spec: domain_pb2.DomainSpec
) -> bool:
    """A launcher is given what it was not given last. Of one that this process has given nothing, its report tells what it has,
    but for what changes without a new generation."""
    if launcher.pushed is not None and launcher.pushed[0] == report.epoch:
        return launcher.pushed[1] != digest_of(spec)
    return report.applied_generation < spec.generation or _may_differ(report, spec)


def _may_differ(report: domain_pb2.DomainReport, spec: domain_pb2.DomainSpec) -> bool:
    """Whether a claim has more than the guest sees of it, if only what its file system needs; or a device that may come and go
    is news to the launcher."""
    seen = {disk.name: disk.capacity_bytes for disk in report.disks}
    if any(disk.hotpluggable and disk.name not in seen for disk in spec.disks):
        return True
    plugged = {interface.name for interface in report.interfaces}
    if any(each.is_pluggable and each.name not in plugged for each in spec.interfaces):
        return True
    return any(
        disk.volume.capacity_bytes > seen.get(disk.name, 0)
        for disk in spec.disks
        if is_written(disk)
    )


def _volumes(
    now: Observed,
    report: domain_pb2.DomainReport,
    spec: domain_pb2.DomainSpec,
    *,
    is_pushed: bool,
) -> list[Action]:
    """Before a specification is pushed, and again when the launcher complains: somebody may have exchanged an image. A guest that
    runs has its volumes, and what else is wanted of it does not wait for their servers."""
    accesses = accesses_of(spec)
    if not accesses or report.state in _WITH_GUEST:
        return []
    complains = (
        report.state == domain_pb2.DOMAIN_STATE_WAITING
        and report.reason == domain_pb2.DOMAIN_REASON_INVALID_DISK
    )
    complaint = (report.epoch, report.sequence) if complains else None
    done = now.volumes
    is_new = is_pushed and (done is None or done.accesses != accesses)
    is_answer = complains and (done is None or done.complaint != complaint)
    return [PrepareVolumes(accesses, complaint)] if is_new or is_answer else []


def _handovers(
    now: Observed, report: domain_pb2.DomainReport, spec: domain_pb2.DomainSpec
) -> list[Action]:
    """Of the volumes that the launcher waits for, unless they are on their way. One of which it was said that nobody has it may be
    about to lose the pod that holds it: something else is said first."""
    awaited = awaited_disks(report)
    let_go = {volume.name for volume in now.vmi.status.volume_status or () if volume.is_let_go}
    found: list[Action] = []
    for disk in spec.disks:
        holder = now.holders.get(disk.name)
        if holder is None or disk.name not in awaited or disk.name in let_go | now.handing_over:
            continue
        order = hand_over_of(disk, holder, report.epoch)
        last = now.handovers.get(disk.name)
        if order is not None and (last is None or last.order != order or last.is_due):
            found.append(HandOverVolume(order))
    return found


def awaited_disks(report: domain_pb2.DomainReport | None) -> set[str]:
    """The disks whose volumes the launcher needs handed over, as it says."""
    disks = report.disks if report is not None else ()
    return {disk.name for disk in disks if disk.attachment == domain_pb2.DISK_ATTACHMENT_AWAITED}


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
    """Asked for once, and again where the guest is to have less time: for a launcher the earliest end counts."""
    if report.state in _WITHOUT_GUEST:
        return []
    grace_period_s = now.vmi.grace_period_s
    pod_grace_s = pod.metadata.deletion_grace_period_seconds
    if pod.metadata.is_being_deleted and pod_grace_s is not None:
        grace_period_s = min(grace_period_s, pod_grace_s)
    epoch, granted_s = now.launcher.stopped or (None, 0)
    is_asked = epoch == report.epoch and granted_s <= grace_period_s
    return [] if is_asked else [ShutdownDomain(grace_period_s)]
