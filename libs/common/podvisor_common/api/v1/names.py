"""Every string of the API that clients, tests or other components compare.

Invariant: one definition per string; nothing else in podvisor spells them out.
"""

from enum import StrEnum

GROUP = "kubevirt.io"
API_VERSION = "kubevirt.io/v1"
API_VERSION_V1ALPHA3 = "kubevirt.io/v1alpha3"
API_VERSION_V1ALPHA1 = "kubevirt.io/v1alpha1"

VIRTUAL_MACHINE = "VirtualMachine"
VIRTUAL_MACHINE_INSTANCE = "VirtualMachineInstance"
REPLICA_SET = "VirtualMachineInstanceReplicaSet"
KUBEVIRT = "KubeVirt"

POOL_GROUP = "pool.kubevirt.io"
POOL_API_VERSION = "pool.kubevirt.io/v1beta1"
POOL = "VirtualMachinePool"


class Phase(StrEnum):
    """Phases of a VirtualMachineInstance."""

    PENDING = "Pending"
    SCHEDULING = "Scheduling"
    SCHEDULED = "Scheduled"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    UNKNOWN = "Unknown"


FINAL_PHASES = frozenset({Phase.SUCCEEDED, Phase.FAILED})


class PrintableStatus(StrEnum):
    """What `kubectl get vm` prints as STATUS."""

    TERMINATING = "Terminating"
    STOPPING = "Stopping"
    MIGRATING = "Migrating"
    PAUSED = "Paused"
    RUNNING = "Running"
    ERROR_PVC_NOT_FOUND = "ErrorPvcNotFound"
    DATA_VOLUME_ERROR = "DataVolumeError"
    ERROR_UNSCHEDULABLE = "ErrorUnschedulable"
    PROVISIONING = "Provisioning"
    WAITING_FOR_VOLUME_BINDING = "WaitingForVolumeBinding"
    ERR_IMAGE_PULL = "ErrImagePull"
    IMAGE_PULL_BACK_OFF = "ImagePullBackOff"
    STARTING = "Starting"
    CRASH_LOOP_BACK_OFF = "CrashLoopBackOff"
    STOPPED = "Stopped"
    UNKNOWN = "Unknown"


class RunStrategy(StrEnum):
    """When the instance of a VirtualMachine runs."""

    ALWAYS = "Always"
    HALTED = "Halted"
    MANUAL = "Manual"
    RERUN_ON_FAILURE = "RerunOnFailure"
    ONCE = "Once"
    WAIT_AS_RECEIVER = "WaitAsReceiver"


SUPPORTED_RUN_STRATEGIES = frozenset(
    {
        RunStrategy.ALWAYS,
        RunStrategy.HALTED,
        RunStrategy.MANUAL,
        RunStrategy.RERUN_ON_FAILURE,
        RunStrategy.ONCE,
    }
)


class StateChange(StrEnum):
    """Actions of a VirtualMachine's state change requests."""

    START = "Start"
    STOP = "Stop"


class SortPolicy(StrEnum):
    """In which order a pool chooses machines to delete or to restart."""

    ASCENDING_ORDER = "AscendingOrder"
    DESCENDING_ORDER = "DescendingOrder"
    NEWEST = "Newest"
    OLDEST = "Oldest"
    RANDOM = "Random"


class StatePreservation(StrEnum):
    """What stays of a machine that a pool deletes."""

    DISABLED = "Disabled"
    OFFLINE = "Offline"
    ONLINE = "Online"


SUPPORTED_STATE_PRESERVATIONS = frozenset({StatePreservation.DISABLED, StatePreservation.OFFLINE})


class EvictionStrategy(StrEnum):
    """What is done about a guest whose pod is to be evicted."""

    NONE = "None"
    EXTERNAL = "External"
    LIVE_MIGRATE = "LiveMigrate"
    LIVE_MIGRATE_IF_POSSIBLE = "LiveMigrateIfPossible"


# Nothing can be migrated yet: the strategy that insists on it is refused, the one that does without is None.
SUPPORTED_EVICTION_STRATEGIES = (
    EvictionStrategy.NONE,
    EvictionStrategy.EXTERNAL,
    EvictionStrategy.LIVE_MIGRATE_IF_POSSIBLE,
)


# In the data of a request to start: the guest is not to run before it is unpaused.
START_PAUSED_KEY = "paused"
# The one value of an instance's `startStrategy`.
START_PAUSED = "Paused"


class ConditionType(StrEnum):
    """Condition types of VirtualMachines, their instances and sets of either."""

    READY = "Ready"
    FAILURE = "Failure"
    PAUSED = "Paused"
    RESTART_REQUIRED = "RestartRequired"
    PROVISIONING = "Provisioning"
    SYNCHRONIZED = "Synchronized"
    AGENT_CONNECTED = "AgentConnected"
    ACCESS_CREDENTIALS_SYNCHRONIZED = "AccessCredentialsSynchronized"
    LIVE_MIGRATABLE = "LiveMigratable"
    POD_SCHEDULED = "PodScheduled"
    EVICTION_REQUESTED = "EvictionRequested"
    REPLICA_FAILURE = "ReplicaFailure"
    REPLICA_PAUSED = "ReplicaPaused"


class Reason(StrEnum):
    """Reasons of conditions."""

    VMI_NOT_EXISTS = "VMINotExists"
    VMI_CONDITION_MISSING = "VMIConditionMissing"
    FAILED_CREATE = "FailedCreate"
    FAILED_DELETE = "FailedDelete"
    FAILED_ADOPT = "FailedAdopt"
    FAILED_SCALE_OUT = "FailedScaleOut"
    FAILED_SCALE_IN = "FailedScaleIn"
    FAILED_UPDATE = "FailedUpdate"
    FAILED_PVC_NOT_FOUND = "FailedPvcNotFound"
    # Beyond KubeVirt's: another instance has the claim, and one of the two writes to it.
    VOLUME_IN_USE = "VolumeInUse"
    FAILED_HOTPLUG_SYNC = "FailedHotplugSync"
    HOT_PLUG_VOLUME_ERROR = "HotPlugVolumeError"
    HOT_PLUG_NETWORK_INTERFACE_ERROR = "HotPlugNetworkInterfaceError"
    # Of Provisioning, as the word for it in `kubectl get vm`.
    WAITING_FOR_VOLUME_BINDING = "WaitingForVolumeBinding"
    ERR_IMAGE_PULL = "ErrImagePull"
    IMAGE_PULL_BACK_OFF = "ImagePullBackOff"
    FAILED_GUARANTEE_RESOURCES = "FailedGuaranteeResources"
    SYNCHRONIZING_FAILED = "Synchronizing with the Domain failed."
    POD_NOT_EXISTS = "PodNotExists"
    POD_TERMINATING = "PodTerminating"
    POD_CONDITION_MISSING = "PodConditionMissing"
    GUEST_NOT_RUNNING = "GuestNotRunning"
    PAUSED_BY_USER = "PausedByUser"
    PAUSED_IO_ERROR = "PausedIOError"
    UNSCHEDULABLE = "Unschedulable"
    RESTART_REQUIRED = "RestartRequired"
    NODE_UNRESPONSIVE = "NodeUnresponsive"
    HANDLER_UNRESPONSIVE = "HandlerUnresponsive"
    EVICTION_REQUESTED = "EvictionRequested"
    REPLICAS_PAUSED = "Paused"


class EventReason(StrEnum):
    """Reasons of events."""

    CREATED = "Created"
    STARTED = "Started"
    STOPPED = "Stopped"
    DELETED = "Deleted"
    SHUTTING_DOWN = "ShuttingDown"
    SYNC_FAILED = "SyncFailed"
    PAUSED = "Paused"
    UNPAUSED = "Unpaused"
    SUCCESSFUL_CREATE = "SuccessfulCreate"
    FAILED_CREATE = "FailedCreate"
    SUCCESSFUL_DELETE = "SuccessfulDelete"
    FAILED_DELETE = "FailedDelete"
    FAILED_PVC_NOT_FOUND = "FailedPvcNotFound"
    VOLUME_IN_USE = "VolumeInUse"
    # A volume request of a machine is not carried out.
    HOT_PLUG_VOLUME_ERROR = "HotPlugVolumeError"
    FAILED_GUARANTEE_RESOURCES = "FailedGuaranteeResources"
    SUCCESSFUL_HAND_OVER = "SuccessfulHandOver"
    NODE_UNRESPONSIVE = "NodeUnresponsive"
    SUCCESSFUL_PAUSED = "SuccessfulPaused"
    SUCCESSFUL_RESUMED = "SuccessfulResumed"
    # Pools have a word of their own for it.
    SUCCESSFUL_RESUME = "SuccessfulResume"
    SUCCESSFUL_UPDATE = "SuccessfulUpdate"
    ACCESS_CREDENTIALS_SYNC_SUCCESS = "AccessCredentialsSyncSuccess"
    ACCESS_CREDENTIALS_SYNC_FAILED = "AccessCredentialsSyncFailed"
    VOLUME_READY = "VolumeReady"
    VOLUME_MOUNTED_TO_POD = "VolumeMountedToPod"
    VOLUME_UNMOUNTED_FROM_POD = "VolumeUnMountedFromPod"
    VOLUME_UNPLUGGED = "VolumeUnplugged"
    HOTPLUG_FAILED = "HotplugFailed"
    FAILED_POD_PATCH = "FailedPodPatch"


class VolumePhase(StrEnum):
    """How far a volume is that may come and go."""

    PENDING = "Pending"
    BOUND = "Bound"
    ATTACHED_TO_NODE = "AttachedToNode"
    MOUNTED_TO_POD = "MountedToPod"
    READY = "Ready"
    DETACHING = "Detaching"
    UNMOUNTED_FROM_POD = "UnMountedFromPod"


class InfoSource(StrEnum):
    """Where something of an interface was learned."""

    DOMAIN = "domain"
    GUEST_AGENT = "guest-agent"
    MULTUS_STATUS = "multus-status"


class InterfaceState(StrEnum):
    """What is wanted of an interface. Empty is `up`."""

    UP = "up"
    DOWN = "down"
    ABSENT = "absent"


VM_FINALIZER = "kubevirt.io/virtualMachineControllerFinalize"
VMI_FINALIZER = "kubevirt.io/foregroundDeleteVirtualMachine"

# Labels. The first is `virt-launcher` on launcher pods and the service's name on podvisor's own pods.
APP_LABEL = "kubevirt.io"
LAUNCHER_APP = "virt-launcher"
# Of a pod that holds a volume for a running guest.
HOTPLUG_DISK_APP = "hotplug-disk"
CREATED_BY_LABEL = "kubevirt.io/created-by"
VMI_NAME_LABEL = "vmi.kubevirt.io/id"
VM_NAME_LABEL = "vm.kubevirt.io/name"
# The volume that a pod holds for a running guest.
HELD_VOLUME_LABEL = "podvisor.io/volume"
# UID of the VirtualMachine whose start a ControllerRevision is of.
VM_UID_LABEL = "podvisor.kubevirt.io/vm-uid"
# The revision of a pool's template that a machine, and its instance, was made from.
POOL_REVISION_LABEL = "kubevirt.io/vm-pool-revision-name"
NODE_NAME_LABEL = "kubevirt.io/nodeName"
SCHEDULABLE_LABEL = "kubevirt.io/schedulable"

# Only podvisor's own service accounts may set or change these on an instance.
RESERVED_LABELS = frozenset(
    {
        CREATED_BY_LABEL,
        "kubevirt.io/migrationJobUID",
        NODE_NAME_LABEL,
        "kubevirt.io/migrationTargetNodeName",
        SCHEDULABLE_LABEL,
        "kubevirt.io/install-strategy",
    }
)

# Annotations.
DOMAIN_ANNOTATION = "kubevirt.io/domain"
# On a pod that holds a volume for a running guest.
OWNER_VMI_NAME_ANNOTATION = "kubevirt.io/owner-vmi-name"
MEMORY_OVERHEAD_ANNOTATION = "kubevirt.io/memory-overhead-bytes"
# On pods with the file system of a claim, what the cluster's settings say of an image that is made there.
PVC_TOLERATED_SHORTFALL_ANNOTATION = "podvisor.io/pvc-tolerated-shortfall-percent"
PVC_RESERVE_ANNOTATION = "podvisor.io/pvc-reserve-bytes"
# On launcher pods, what the cluster's settings say of guests' hardware: the SMBIOS table as JSON, and how often balloons tell.
SMBIOS_ANNOTATION = "podvisor.io/smbios"
BALLOON_PERIOD_ANNOTATION = "podvisor.io/memory-balloon-stats-period-s"
VM_GENERATION_ANNOTATION = "kubevirt.io/vm-generation"
HEARTBEAT_ANNOTATION = "kubevirt.io/heartbeat"
# On a pod that holds a volume for a running guest, beside its instance's name.
OWNER_VMI_UID_ANNOTATION = "kubevirt.io/owner-vmi-uid"
HELD_CLAIM_ANNOTATION = "podvisor.io/claim"
# Volumes that were attached to an instance alone, whatever its machine says: a JSON list of their names.
EPHEMERAL_VOLUMES_ANNOTATION = "kubevirt.io/ephemeral-hotplug-volumes"
# What v1alpha1 can say and v1 cannot (disk and volume names) and the other way round.
CONVERSION_ANNOTATION = "podvisor.kubevirt.io/conversion"
# Volumes of an instance, by name and between commas, whose images are raw whatever their first bytes look like.
RAW_VOLUMES_ANNOTATION = "podvisor.io/raw-volumes"

# What an instance asks for by annotation and does not get yet.
UNSUPPORTED_ANNOTATIONS = frozenset({"hooks.kubevirt.io/hookSidecars", "kubevirt.io/ignitiondata"})

# Of Multus, on a launcher pod: the networks beside the pod's own, as JSON, and the one in place of it.
MULTUS_NETWORKS_ANNOTATION = "k8s.v1.cni.cncf.io/networks"
MULTUS_DEFAULT_NETWORK_ANNOTATION = "v1.multus-cni.io/default-network"
# The networks that Multus has given a pod, by its own word, as JSON.
MULTUS_STATUS_ANNOTATION = "k8s.v1.cni.cncf.io/network-status"

# The condition of a launcher pod for which its readiness gate waits: the guest runs, and is not paused.
UNPAUSED_CONDITION = "kubevirt.io/virtual-machine-unpaused"

# The feature gate without which no disk of a node is attached.
HOST_DISK_GATE = "HostDisk"

# Extended resources of the device plugins.
KVM_RESOURCE = "devices.kubevirt.io/kvm"
VHOST_NET_RESOURCE = "devices.kubevirt.io/vhost-net"

# The user that launchers, libvirt and QEMU run as.
LAUNCHER_UID = 107
# When a manifest names no grace period.
DEFAULT_GRACE_PERIOD_S = 30
