"""The parts of core Kubernetes objects that podvisor reads. Partial on purpose: never write one back whole."""

from typing import Any

from podvisor_common.api.base import ApiObject, ApiStruct
from podvisor_common.api.meta import Condition, ObjectMeta
from podvisor_common.api.quantity import Quantity


class ResourceRequirements(ApiStruct, frozen=True):
    """Requests and limits of a container."""

    requests: dict[str, Quantity] | None = None
    limits: dict[str, Quantity] | None = None


class VolumeMount(ApiStruct, frozen=True):
    """A volume as a directory of a container."""

    name: str
    mount_path: str = ""
    read_only: bool = False


class VolumeDevice(ApiStruct, frozen=True):
    """A block volume as a device of a container."""

    name: str
    device_path: str = ""


class Capabilities(ApiStruct, frozen=True):
    """Capabilities beyond and below those that a runtime gives."""

    add: tuple[str, ...] | None = None
    drop: tuple[str, ...] | None = None


class Sysctl(ApiStruct, frozen=True):
    """A setting of the kernel's for all of a pod."""

    name: str
    value: str = ""


class SecurityContext(ApiStruct, frozen=True):
    """What processes may do, of a container or of all in a pod."""

    run_as_user: int | None = None
    privileged: bool | None = None
    allow_privilege_escalation: bool | None = None
    capabilities: Capabilities | None = None
    sysctls: tuple[Sysctl, ...] | None = None  # of a pod only


class Container(ApiStruct, frozen=True):
    """A container of a pod."""

    name: str
    image: str = ""
    resources: ResourceRequirements | None = None
    security_context: SecurityContext | None = None
    volume_mounts: tuple[VolumeMount, ...] | None = None
    volume_devices: tuple[VolumeDevice, ...] | None = None


class PodReadinessGate(ApiStruct, frozen=True):
    """A condition without which a pod is not ready."""

    condition_type: str


class PodSpec(ApiStruct, frozen=True):
    """What a pod shall be."""

    node_name: str = ""
    readiness_gates: tuple[PodReadinessGate, ...] | None = None
    containers: tuple[Container, ...] | None = None
    init_containers: tuple[Container, ...] | None = None
    ephemeral_containers: tuple[Container, ...] | None = None
    security_context: SecurityContext | None = None
    volumes: tuple[dict[str, Any], ...] | None = None  # whole: what is not known here counts, too


class ContainerStateWaiting(ApiStruct, frozen=True):
    """A container that does not run yet."""

    reason: str = ""
    message: str = ""


class ContainerStateRunning(ApiStruct, frozen=True):
    """A container that runs."""


# What the kubelet says of a container that the runtime does not know, as one whose image was never pulled.
CONTAINER_STATUS_UNKNOWN = "ContainerStatusUnknown"


class ContainerStateTerminated(ApiStruct, frozen=True):
    """A container that has ended."""

    exit_code: int = 0
    signal: int = 0
    reason: str = ""
    message: str = ""
    started_at: str | None = None
    finished_at: str | None = None


class ContainerState(ApiStruct, frozen=True):
    """Exactly one of the three is set."""

    waiting: ContainerStateWaiting | None = None
    running: ContainerStateRunning | None = None
    terminated: ContainerStateTerminated | None = None


class ContainerStatus(ApiStruct, frozen=True):
    """What the kubelet knows of a container."""

    name: str
    state: ContainerState | None = None


class PodStatus(ApiStruct, frozen=True):
    """What the kubelet says of a pod."""

    phase: str = ""
    reason: str = ""
    message: str = ""
    conditions: tuple[Condition, ...] | None = None
    init_container_statuses: tuple[ContainerStatus, ...] | None = None
    container_statuses: tuple[ContainerStatus, ...] | None = None
    qos_class: str = ""


class Pod(ApiObject, frozen=True):
    """A pod."""

    metadata: ObjectMeta
    api_version: str = "v1"
    kind: str = "Pod"
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    @property
    def is_terminal(self) -> bool:
        """No container of it will ever run again."""
        return self.status.phase in ("Succeeded", "Failed")

    def container_status(self, name: str) -> ContainerStatus | None:
        """The kubelet's word on one container, None before there is any."""
        return next((c for c in self.status.container_statuses or () if c.name == name), None)


class Taint(ApiStruct, frozen=True):
    """A reason for pods to avoid a node."""

    key: str
    value: str = ""
    effect: str = ""
    time_added: str | None = None


class NodeSpec(ApiStruct, frozen=True):
    """What a node shall be."""

    taints: tuple[Taint, ...] | None = None
    unschedulable: bool = False
    provider_id: str = ""


class NodeAddress(ApiStruct, frozen=True):
    """One address of a node."""

    type: str = ""
    address: str = ""


class NodeSystemInfo(ApiStruct, frozen=True):
    """What a node runs."""

    architecture: str = ""
    kubelet_version: str = ""
    container_runtime_version: str = ""


class NodeStatus(ApiStruct, frozen=True):
    """What is known of a node."""

    conditions: tuple[Condition, ...] | None = None
    addresses: tuple[NodeAddress, ...] | None = None
    capacity: dict[str, Quantity] | None = None
    allocatable: dict[str, Quantity] | None = None
    node_info: NodeSystemInfo | None = None


class Node(ApiObject, frozen=True):
    """A node."""

    metadata: ObjectMeta
    api_version: str = "v1"
    kind: str = "Node"
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()


class LeaseSpec(ApiStruct, frozen=True):
    """Who holds a lease, since when and for how long."""

    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int | None = None


class Lease(ApiObject, frozen=True):
    """A lease of coordination.k8s.io/v1; the one kind here that its holder writes whole."""

    metadata: ObjectMeta
    api_version: str = "coordination.k8s.io/v1"
    kind: str = "Lease"
    spec: LeaseSpec = LeaseSpec()


class Secret(ApiObject, frozen=True):
    """A secret. `data` is base64 text, as on the wire; it never reaches a log."""

    metadata: ObjectMeta
    api_version: str = "v1"
    kind: str = "Secret"
    type: str = ""
    data: dict[str, str] | None = None

    def __repr__(self) -> str:
        return f"Secret({self.metadata.namespace}/{self.metadata.name})"


class ConfigMap(ApiObject, frozen=True):
    """A config map."""

    metadata: ObjectMeta
    api_version: str = "v1"
    kind: str = "ConfigMap"
    data: dict[str, str] | None = None


class DaemonSetStatus(ApiStruct, frozen=True):
    """On how many nodes the pods of a daemon set are."""

    observed_generation: int = 0
    desired_number_scheduled: int = 0
    updated_number_scheduled: int = 0
    number_available: int = 0


class DaemonSet(ApiObject, frozen=True):
    """A daemon set."""

    metadata: ObjectMeta
    api_version: str = "apps/v1"
    kind: str = "DaemonSet"
    status: DaemonSetStatus = DaemonSetStatus()


class PersistentVolumeClaimSpec(ApiStruct, frozen=True):
    """What a claim asks for."""

    access_modes: tuple[str, ...] | None = None
    resources: ResourceRequirements | None = None
    storage_class_name: str | None = None
    volume_mode: str = "Filesystem"
    volume_name: str = ""


class PersistentVolumeClaimStatus(ApiStruct, frozen=True):
    """What a claim got."""

    phase: str = ""
    access_modes: tuple[str, ...] | None = None
    capacity: dict[str, Quantity] | None = None


class PersistentVolumeClaim(ApiObject, frozen=True):
    """A claim to persistent storage."""

    metadata: ObjectMeta
    api_version: str = "v1"
    kind: str = "PersistentVolumeClaim"
    spec: PersistentVolumeClaimSpec = PersistentVolumeClaimSpec()
    status: PersistentVolumeClaimStatus = PersistentVolumeClaimStatus()

    @property
    def is_block(self) -> bool:
        """The volume is a device, not a directory."""
        return self.spec.volume_mode == "Block"

    @property
    def is_bound(self) -> bool:
        """There is a volume behind the claim."""
        return self.status.phase == "Bound"
