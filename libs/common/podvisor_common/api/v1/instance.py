"""VirtualMachineInstance: one run of a machine."""

from typing import Annotated

from podvisor_common.api.base import ApiObject, ApiStruct, doc
from podvisor_common.api.meta import Conditions, ListMeta, ObjectMeta
from podvisor_common.api.quantity import Quantity
from podvisor_common.api.v1 import names
from podvisor_common.api.v1.machine import Machine, VirtualMachineInstanceSpec

_ATOMIC = {"x_kubernetes_list_type": "atomic"}


class PhaseTransitionTimestamp(ApiStruct, frozen=True):
    """When an instance entered a phase."""

    phase: Annotated[str, doc("The phase.")]
    phase_transition_timestamp: Annotated[
        str | None, doc("When it was entered.", format="date-time")
    ] = None


class NetworkInterfaceStatus(ApiStruct, frozen=True):
    """What is known of a network device."""

    name: Annotated[str, doc("Name of the interface in the specification.")] = ""
    ip_address: Annotated[str, doc("First address that reaches the guest.")] = ""
    ip_addresses: Annotated[list[str] | None, doc("All such addresses.", **_ATOMIC)] = None
    mac: Annotated[str, doc("Hardware address.")] = ""
    pod_interface_name: Annotated[str, doc("Name of the interface in the pod.")] = ""
    interface_name: Annotated[str, doc("Name of the interface in the guest.")] = ""
    info_source: Annotated[
        str,
        doc("Where this was learned, a comma list of `domain`, `guest-agent` and `multus-status`."),
    ] = ""
    queue_count: Annotated[int | None, doc("Queues of the device.", format="int32")] = None
    link_state: Annotated[str, doc("`up` or `down`.")] = ""

    @property
    def is_attached(self) -> bool:
        """The guest's domain has the device."""
        return names.InfoSource.DOMAIN in self.info_source.replace(",", " ").split()


class CPUTopology(ApiStruct, frozen=True):
    """Processors of a guest."""

    cores: Annotated[int | None, doc("Cores of each socket.")] = None
    sockets: Annotated[int | None, doc("Sockets.")] = None
    threads: Annotated[int | None, doc("Threads of each core.")] = None


class MemoryStatus(ApiStruct, frozen=True):
    """Memory of a guest."""

    guest_at_boot: Annotated[Quantity | None, doc("What the guest booted with.")] = None
    guest_current: Annotated[Quantity | None, doc("What the guest has.")] = None
    guest_requested: Annotated[Quantity | None, doc("What the guest shall have.")] = None
    memory_overhead: Annotated[
        Quantity | None, doc("What the pod requests beyond the guest's memory.")
    ] = None


class PersistentVolumeClaimInfo(ApiStruct, frozen=True):
    """What is known of the claim behind a volume."""

    claim_name: Annotated[str, doc("Name of the claim.")] = ""
    access_modes: Annotated[list[str] | None, doc("How it may be mounted.", **_ATOMIC)] = None
    volume_mode: Annotated[str, doc("`Filesystem` or `Block`.")] = ""
    capacity: Annotated[dict[str, Quantity] | None, doc("What it has.")] = None
    requests: Annotated[dict[str, Quantity] | None, doc("What it asked for.")] = None
    filesystem_overhead: Annotated[
        str, doc("Share of the capacity that the file system needs for itself.")
    ] = ""


class HotplugVolumeStatus(ApiStruct, frozen=True):
    """The pod that holds a volume which may be attached and detached."""

    attach_pod_name: Annotated[str, doc("Name of the pod.")] = ""
    attach_pod_uid: Annotated[str, doc("UID of the pod.")] = ""


class VolumeStatus(ApiStruct, frozen=True):
    """What is known of a volume."""

    name: Annotated[str, doc("Name of the volume.")]
    target: Annotated[str, doc("Name of the device in libvirt, for example `vda`.")] = ""
    size: Annotated[
        int | None, doc("What the guest sees of the volume, in bytes.", format="int64")
    ] = None
    persistent_volume_claim_info: Annotated[
        PersistentVolumeClaimInfo | None, doc("The claim behind it.")
    ] = None
    hotplug_volume: Annotated[
        HotplugVolumeStatus | None, doc("The pod that holds it, where it may come and go.")
    ] = None
    phase: Annotated[
        str,
        doc(
            "How far the volume is: `Pending`, `Bound`, `AttachedToNode`, `MountedToPod`, `Ready`, `Detaching` or"
            " `UnMountedFromPod`."
        ),
    ] = ""
    reason: Annotated[str, doc("Why, as one CamelCase word.")] = ""
    message: Annotated[str, doc("Why, as a sentence for a person.")] = ""
    unmounted_pod_uid: Annotated[
        str,
        doc("UID of the pod that held the volume which phase `UnMountedFromPod` is about."),
    ] = ""

    @property
    def is_let_go(self) -> bool:
        """Nobody has what the pod holds that the entry names. That it was said of another pod proves nothing of this one."""
        pod = self.hotplug_volume
        is_said = self.phase == names.VolumePhase.UNMOUNTED_FROM_POD
        return is_said and pod is not None and self.unmounted_pod_uid == pod.attach_pod_uid


class GuestOSInfo(ApiStruct, frozen=True):
    """What the guest's agent says of its operating system."""

    name: Annotated[str, doc("Name of the system.")] = ""
    id: Annotated[str, doc("The system in one lower-case word.")] = ""
    pretty_name: Annotated[str, doc("Name and version for a person.")] = ""
    version: Annotated[str, doc("Version of the system.")] = ""
    version_id: Annotated[str, doc("The version in one lower-case word.")] = ""
    kernel_release: Annotated[str, doc("Release of the kernel.")] = ""
    kernel_version: Annotated[str, doc("Build of the kernel.")] = ""
    machine: Annotated[str, doc("Architecture of the kernel.")] = ""


class StartTimeline(ApiStruct, frozen=True):
    """Steps of the start, in milliseconds since the instance was created. Beyond KubeVirt's API."""

    pod_created: Annotated[int | None, doc("The pod was created.", format="int64")] = None
    pod_scheduled: Annotated[int | None, doc("The pod was bound to a node.", format="int64")] = None
    launcher_ready: Annotated[int | None, doc("The launcher answered.", format="int64")] = None
    network_ready: Annotated[int | None, doc("The network was wired.", format="int64")] = None
    disks_ready: Annotated[int | None, doc("The disks were made.", format="int64")] = None
    domain_started: Annotated[int | None, doc("The guest was started.", format="int64")] = None
    running: Annotated[int | None, doc("The running guest was reported.", format="int64")] = None


class VirtualMachineInstanceStatus(ApiStruct, frozen=True):
    """What is known of an instance."""

    phase: Annotated[str, doc("Where the instance is in its life.")] = ""
    node_name: Annotated[str, doc("Node that runs the instance.")] = ""
    reason: Annotated[str, doc("Why it is in this phase, as one CamelCase word.")] = ""
    conditions: Conditions = None
    phase_transition_timestamps: Annotated[
        list[PhaseTransitionTimestamp] | None,
        doc(
            "When each phase was entered.",
            x_kubernetes_list_type="map",
            x_kubernetes_list_map_keys=["phase"],
        ),
    ] = None
    interfaces: Annotated[
        list[NetworkInterfaceStatus] | None, doc("Network devices.", **_ATOMIC)
    ] = None
    evacuation_node_name: Annotated[
        str,
        doc("Node that the instance shall leave, because an eviction of its pod was asked for."),
    ] = ""
    active_pods: Annotated[
        dict[str, str] | None, doc("UIDs of the pods that carry the instance, and their nodes.")
    ] = None
    qos_class: Annotated[str, doc("Quality of service class of the pod.")] = ""
    launcher_container_image_version: Annotated[str, doc("Image the launcher runs from.")] = ""
    runtime_user: Annotated[
        int | None, doc("User that the guest's processes run as.", format="int64")
    ] = None
    machine: Annotated[Machine | None, doc("Board the guest has.")] = None
    current_cpu_topology: Annotated[CPUTopology | None, doc("Processors the guest has.")] = None
    memory: Annotated[MemoryStatus | None, doc("Memory the guest has.")] = None
    guest_os_info: Annotated[
        GuestOSInfo | None, doc("The guest's system, where an agent in it tells.")
    ] = None
    fs_freeze_status: Annotated[
        str, doc("`frozen` while the guest's file systems stand still by request.")
    ] = ""
    volume_status: Annotated[
        list[VolumeStatus] | None,
        doc(
            "Volumes.",
            x_kubernetes_list_type="map",
            x_kubernetes_list_map_keys=["name"],
        ),
    ] = None
    virtual_machine_revision_name: Annotated[
        str, doc("ControllerRevision with the machine as it was when the instance was made.")
    ] = ""
    start_timeline: Annotated[
        StartTimeline | None, doc("How long each step of the start took; for slow starts.")
    ] = None


class VirtualMachineInstance(ApiObject, frozen=True):
    """One run of a machine: it is started once, and when it has ended it stays ended."""

    metadata: ObjectMeta
    spec: Annotated[VirtualMachineInstanceSpec, doc("What the machine is made of.")]
    status: Annotated[VirtualMachineInstanceStatus, doc("What is known of it.")] = (
        VirtualMachineInstanceStatus()
    )
    api_version: str = names.API_VERSION
    kind: str = names.VIRTUAL_MACHINE_INSTANCE

    @property
    def attached_interfaces(self) -> frozenset[str]:
        """The names of the interfaces that the guest's domain has."""
        return frozenset(entry.name for entry in self.status.interfaces or () if entry.is_attached)

    @property
    def is_final(self) -> bool:
        """The guest has ended and this object will never run one again."""
        return self.status.phase in names.FINAL_PHASES

    @property
    def grace_period_s(self) -> int:
        """How long the guest may take to shut down, in seconds."""
        wanted = self.spec.termination_grace_period_seconds
        return names.DEFAULT_GRACE_PERIOD_S if wanted is None else wanted


class VirtualMachineInstanceList(ApiStruct, frozen=True):
    """A list answer."""

    metadata: ListMeta
    items: list[VirtualMachineInstance]
