"""All that a decision about one VirtualMachineInstance depends on, and the questions asked of it. Pure.

Invariant: an Observed is read from the caches in one go and never changes; every property is a fact, never a wish.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from podvisor_common.api import core, meta, v1
from podvisor_common.api.v1 import names

from podvisor_controller.config import ClusterConfig
from podvisor_controller.node.health import NodeHealth
from podvisor_controller.pauses import left_of, retry_left
from podvisor_controller.vmi import claims as claimed
from podvisor_controller.vmi import scheduling
from podvisor_controller.vmi.attachments import Attachments
from podvisor_controller.vmi.claims import Claims, Exports, Rival
from podvisor_controller.vmi.container import COMPUTE
from podvisor_controller.vmi.definitions import ALL_THERE, Definitions, undefined
from podvisor_controller.vmi.kernel import kernel_container
from podvisor_controller.vmi.trouble import Trouble

# Phases in which the controller, not the handler, says where the instance is.
CONTROLLER_PHASES = frozenset(
    {"", names.Phase.PENDING, names.Phase.SCHEDULING, names.Phase.SCHEDULED}
)
# What the scheduler says of a pod whose claim is to be bound without it. One that waits for its first pod is none of those.
UNBOUND_IMMEDIATE = "unbound immediate PersistentVolumeClaims"
# A pod that was asked for is known of by then, or that there is none.
RIVAL_PATIENCE = timedelta(seconds=1)

POD_REFUSED = "PodRefused"
# The reasons of Synchronized=False that are the controller's to set and to take back. Without a reason it is what stays of
# one that the handler wrote over and then took back.
CONTROLLER_REASONS = frozenset(
    {
        "",
        names.Reason.FAILED_CREATE,
        names.Reason.FAILED_DELETE,
        names.Reason.FAILED_PVC_NOT_FOUND,
        names.Reason.VOLUME_IN_USE,
        names.Reason.FAILED_HOTPLUG_SYNC,
        names.Reason.ERR_IMAGE_PULL,
        names.Reason.IMAGE_PULL_BACK_OFF,
        POD_REFUSED,
    }
)
NO_HOST_DISKS = (
    'Volume "{}" is a disk of the node, and those are not attached here: add HostDisk to'
    " spec.configuration.developerConfiguration.featureGates of the KubeVirt resource."
)

_PULL_REASONS = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
        "SignatureValidationFailed",
    }
)
_CONTAINER_REASONS = frozenset(
    {"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "CrashLoopBackOff"}
)
# The runtime could not start the container's first process. The kubelet does not try again, and calls the pod running.
_NEVER_BEGAN = frozenset({"StartError", "ContainerCannotRun"})


@dataclass(frozen=True, slots=True)
class Observed:
    """One instance and its surroundings. All from `attempt` on are what this process remembers of it."""

    vmi: v1.VirtualMachineInstance
    pods: tuple[core.Pod, ...]
    config: ClusterConfig
    node: NodeHealth
    at: datetime
    has_successor: bool = False  # once it is gone, its machine gets another instance
    claims: Claims = field(default_factory=dict)  # by name, those that exist of its volumes'
    definitions: Definitions = ALL_THERE  # of its networks', where a pod is to be made
    rivals: tuple[Rival, ...] = ()  # who else has one of them, where a pod is to be made
    exports: Exports = field(default_factory=dict)  # of its claims those that are being exported
    attached: Attachments | None = None  # what there is of volumes that may come and go
    attempt: int = 0
    retry_at: datetime | None = None
    failure: Trouble | None = None
    undeletable: Trouble | None = None  # why its pod is still there although it was to be deleted
    delete_retry_at: datetime | None = None
    pod_created_at: datetime | None = None
    pod_end_seen_at: datetime | None = None
    node_patience_left: timedelta = timedelta(0)  # until a node that does not answer counts as such

    @property
    def pod(self) -> core.Pod | None:
        """The launcher pod that counts: one that is not being deleted before others, the youngest among equals.

        Once the status names the pods, no other counts: whoever may create pods can write that one is the instance's.
        """
        known = self.vmi.status.active_pods
        return max(
            (pod for pod in self.pods if not known or pod.metadata.uid in known),
            key=lambda pod: (
                not pod.metadata.is_being_deleted,
                pod.metadata.creation_timestamp or "",
            ),
            default=None,
        )

    @property
    def was_bound(self) -> bool:
        """The status names a node: a guest may have been started there."""
        return bool(self.vmi.status.node_name)

    @property
    def has_run(self) -> bool:
        """A guest of this instance was reported as running."""
        return self.vmi.status.phase not in CONTROLLER_PHASES

    @property
    def may_run(self) -> bool:
        """A guest may be running on its node, whatever there is of its pod: one that was deleted by force proves nothing."""
        return (
            (self.was_bound or self.has_run)
            and not self.vmi.is_final
            and self.node is not NodeHealth.FENCED
        )

    @property
    def refusal(self) -> Trouble | None:
        """Why the pod's node refused it before any guest could be in it, None when it did not."""
        pod = self.pod
        if pod is None or self.has_run:
            return None
        if (never := _never_began(pod)) is not None:
            message = f"Node {pod.spec.node_name} cannot start the launcher: {never.message}"
            return Trouble(POD_REFUSED, message)
        if pod.status.phase != "Failed" or not pod.status.reason:
            return None
        states = [status.state for status in pod.status.container_statuses or () if status.state]
        if any(state.running or state.terminated for state in states):
            return None
        node = pod.spec.node_name
        message = f"Node {node} refused the pod ({pod.status.reason}): {pod.status.message}"
        return Trouble(POD_REFUSED, message)

    @property
    def unsupported(self) -> Trouble | None:
        """What the instance needs and this cluster does not have."""
        volumes = self.vmi.spec.volumes or ()
        host_disk = next((v.name for v in volumes if v.host_disk), None)
        if host_disk is not None and not self.config.host_disks:
            return Trouble(names.Reason.FAILED_CREATE, NO_HOST_DISKS.format(host_disk))
        return None

    @property
    def obstacle(self) -> Trouble | None:
        """Why no pod is made as things are; None when one may be, or has been."""
        if self.pods or self.was_bound:
            return None
        if (trouble := self.unsupported) is not None:
            return trouble
        if why := claimed.missing(self.vmi, self.claims):
            return Trouble(names.Reason.FAILED_PVC_NOT_FOUND, why)
        if why := undefined(self.vmi, self.definitions):
            return Trouble(names.Reason.FAILED_CREATE, why)
        if why := claimed.in_use(self.vmi, self.rivals) or claimed.exported(self.vmi, self.exports):
            return Trouble(names.Reason.VOLUME_IN_USE, why)
        return None

    @property
    def trouble(self) -> Trouble | None:
        """What keeps the guest from starting or going, as far as the controller can see; None when nothing does."""
        if self.undeletable is not None:
            return self.undeletable
        if (pod := self.pod) is None:
            return self.obstacle or self.failure
        if (refusal := self.refusal) is not None:
            return refusal
        return _container_trouble(self.vmi, pod) or self.volume_trouble

    @property
    def volume_trouble(self) -> Trouble | None:
        """What keeps a volume from a guest that may do without it."""
        return self.attached.trouble if self.attached is not None else None

    @property
    def unschedulable(self) -> meta.Condition | None:
        """The scheduler's complaint, once it has lasted and is not that a claim is still to be bound."""
        return None if self.provisioning else self._lasting_complaint

    @property
    def provisioning(self) -> str:
        """Which claims the scheduler waits for, for a person, once that has lasted; empty when there is none."""
        complaint = self._lasting_complaint
        if complaint is None or UNBOUND_IMMEDIATE not in complaint.message:
            return ""
        return claimed.unbound(self.vmi, self.claims) or complaint.message

    @property
    def retry_left(self) -> timedelta:
        """How long to wait before the pod is tried again."""
        return retry_left(self.retry_at, self.at)

    @property
    def delete_retry_left(self) -> timedelta:
        """How long to wait before a deletion that was refused is tried again."""
        return retry_left(self.delete_retry_at, self.at)

    @property
    def look_again_in_s(self) -> float | None:
        """When time alone changes the decision, in seconds from now; None when only an event can."""
        waits = [self.node_patience_left]
        if (condition := self._complaint) is not None:
            waits.append(scheduling.patience_left(condition, self.at))
        if not self.pods:
            waits += [self.retry_left, retry_left(self.definitions.ask_again_at, self.at)]
        if any(rival.is_getting_pod for rival in self.rivals):
            waits.append(RIVAL_PATIENCE)
        if self.undeletable is not None:
            waits.append(self.delete_retry_left)
        if (left := self.handler_patience_left) is not None:
            waits.append(left)
        if self.attached is not None:
            waits.append(self.attached.look_again_in)
        ahead = [wait.total_seconds() for wait in waits if wait > timedelta(0)]
        return min(ahead, default=None)

    @property
    def handler_patience_left(self) -> timedelta | None:
        """How long the handler may still take to report the end of a guest whose pod has ended; None if it need not."""
        pod = self.pod
        if pod is None or self.vmi.is_final or self.refusal is not None:
            return None
        # What is left of the pod when `compute` has ended may take its time, or never end.
        if not has_ended(pod):
            return None
        if pod.is_terminal and pod.metadata.is_being_deleted:
            return timedelta(0)
        ended = [
            meta.parse_time(status.state.terminated.finished_at)
            for status in pod.status.container_statuses or ()
            if status.state and status.state.terminated and status.state.terminated.finished_at
        ]
        if not ended:
            return timedelta(0)
        # That a guest has run, only its handler knows for certain: a clean end says as well that it never did.
        compute = compute_ended(pod)
        is_clear = self.has_run or compute is None or compute.exit_code != 0
        patience = _HANDLER_PATIENCE if is_clear else _FIRST_WORD_PATIENCE
        left = min(left_of(max(ended) + patience, self.at, longest=_CLOCKS_DIFFER_BY), patience)
        if self.pod_end_seen_at is None:
            return left
        # The API server may have been away since: then the handler could not report any sooner than this was seen.
        return max(left, left_of(self.pod_end_seen_at + patience, self.at, longest=patience))

    @property
    def _complaint(self) -> meta.Condition | None:
        return scheduling.complaint(self.pod) if self.pod is not None else None

    @property
    def _lasting_complaint(self) -> meta.Condition | None:
        condition = self._complaint
        if condition is None or scheduling.patience_left(condition, self.at) > timedelta(0):
            return None
        return condition


# The handler has the launcher's own word on how the guest ended, which beats an exit code.
_HANDLER_PATIENCE = timedelta(seconds=3)
# Where it decides between success and failure: as long as a handler takes to notice that the API server is back.
_FIRST_WORD_PATIENCE = timedelta(seconds=20)
# The time of the end is by the node's clock.
_CLOCKS_DIFFER_BY = timedelta(minutes=1)


def has_ended(pod: core.Pod) -> bool:
    """No guest runs in the pod any more."""
    return pod.is_terminal or compute_ended(pod) is not None


def compute_ended(pod: core.Pod) -> core.ContainerStateTerminated | None:
    """How the container that carries the guest ended, None when the kubelet does not say."""
    status = pod.container_status(COMPUTE)
    return status.state.terminated if status and status.state else None


def _never_began(pod: core.Pod) -> core.ContainerStateTerminated | None:
    """The end of the container that carries the guest, if it ended before its first process ran."""
    ended = compute_ended(pod)
    return ended if ended is not None and ended.reason in _NEVER_BEGAN else None


def compute_is_stuck(pod: core.Pod) -> bool:
    """The container that carries the guest cannot start, so that there is no guest to wait for."""
    if _never_began(pod) is not None:
        return True
    status = pod.container_status(COMPUTE)
    waiting = status.state.waiting if status and status.state else None
    return waiting is not None and waiting.reason in _PULL_REASONS | _CONTAINER_REASONS


def _container_trouble(vmi: v1.VirtualMachineInstance, pod: core.Pod) -> Trouble | None:
    first = pod.status.init_container_statuses or ()
    for status in (*first, *(pod.status.container_statuses or ())):
        waiting = status.state.waiting if status.state else None
        if waiting is None:
            continue
        if waiting.reason in _PULL_REASONS:
            return _pull_trouble(vmi, pod, waiting)
        if waiting.reason in _CONTAINER_REASONS:
            message = f"The launcher's container {status.name} cannot start: {waiting.message}"
            return Trouble(names.Reason.FAILED_CREATE, message)
    return None


def _pull_trouble(
    vmi: v1.VirtualMachineInstance, pod: core.Pod, waiting: core.ContainerStateWaiting
) -> Trouble:
    """ErrImagePull or ImagePullBackOff. The kubelet alternates between the two; what was said once stays said."""
    known = meta.find_condition(vmi.status.conditions, names.ConditionType.SYNCHRONIZED)
    if waiting.reason == names.Reason.IMAGE_PULL_BACK_OFF:
        return Trouble(names.Reason.IMAGE_PULL_BACK_OFF, _pull_message(vmi, pod, waiting))
    if known is not None and known.reason == names.Reason.IMAGE_PULL_BACK_OFF:
        return Trouble(names.Reason.IMAGE_PULL_BACK_OFF, known.message)
    return Trouble(names.Reason.ERR_IMAGE_PULL, _pull_message(vmi, pod, waiting))


def _pull_message(
    vmi: v1.VirtualMachineInstance, pod: core.Pod, waiting: core.ContainerStateWaiting
) -> str:
    """Which image cannot be pulled, in the manifest's terms, followed by the runtime's words."""
    for volume in vmi.spec.volumes or ():
        disk = volume.container_disk
        if disk is not None and disk.image in waiting.message:
            return (
                f'Volume "{volume.name}": image "{disk.image}" cannot be pulled: {waiting.message}'
            )
    kernel = kernel_container(vmi)
    if kernel is not None and kernel.image and kernel.image in waiting.message:
        return f'Kernel boot: image "{kernel.image}" cannot be pulled: {waiting.message}'
    return f"An image of the launcher pod {pod.metadata.name} cannot be pulled: {waiting.message}"
