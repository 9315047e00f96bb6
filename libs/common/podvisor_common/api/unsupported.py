"""Fields of KubeVirt's v1 API that podvisor knows by name and does not implement yet.

The one table behind both the published schema (the fields are there, opaque, so that a manifest that uses them reaches
admission instead of losing them silently) and admission (which refuses them by path). Of the settings' kind, KubeVirt, there
is no webhook: the API server refuses them by rules in the schema, which is why those fields have types. A field that gets
implemented moves from here into its struct.
"""

from typing import Any

import msgspec

from podvisor_common.api import v1

UNSUPPORTED: dict[type[msgspec.Struct], tuple[str, ...]] = {
    v1.VirtualMachineSpec: (
        "dataVolumeTemplates",
        "instancetype",
        "preference",
        "updateVolumesStrategy",
    ),
    v1.VirtualMachineInstanceSpec: (
        "resourceClaims",
        "serviceAccountName",
        "utilityVolumes",
    ),
    v1.Domain: ("launchSecurity",),
    v1.CPU: (
        "dedicatedCpuPlacement",
        "isolateEmulatorThread",
        "maxSockets",
        "numa",
        "realtime",
    ),
    v1.Memory: ("maxGuest", "reservedOverhead"),
    v1.Firmware: ("acpi",),
    v1.EFI: ("persistent",),
    v1.TLBFlush: ("direct", "extended"),
    v1.Devices: (
        "autoattachVSOCK",
        "clientPassthrough",
        "disableHotplug",
        "downwardMetrics",
        "gpus",
        "hostDevices",
    ),
    v1.TPMDevice: ("persistent",),
    v1.Watchdog: ("diag288",),
    v1.Disk: ("changedBlockTracking",),
    v1.LunTarget: ("reservation",),
    v1.Interface: (
        "binding",
        "macvtap",
        "passt",
        "portRanges",
        "slirp",
        "sriov",
    ),
    v1.Volume: (
        "containerPath",
        "downwardMetrics",
        "memoryDump",
    ),
    v1.Network: ("resourceClaim",),
    # Status is never refused: on creation the API server drops it.
    v1.VirtualMachineStatus: (
        "changedBlockTracking",
        "instancetypeRef",
        "memoryDumpRequest",
        "preferenceRef",
        "volumeUpdateState",
    ),
    v1.VirtualMachineInstanceStatus: (
        "VSOCKCID",
        "changedBlockTracking",
        "kernelBootStatus",
        "migratedVolumes",
        "migrationMethod",
        "migrationState",
        "migrationTransport",
        "selinuxContext",
        "topologyHints",
    ),
}

_OPAQUE = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
_TEXT = {"type": "string"}
_NUMBER = {"type": "integer"}
_FLAG = {"type": "boolean"}
_TEXTS = {"type": "array", "items": _TEXT}
_OBJECTS = {"type": "array", "items": _OPAQUE}

# Settings, each with the schema of its value.
UNSUPPORTED_SETTINGS: dict[type[msgspec.Struct], dict[str, dict[str, Any]]] = {
    v1.KubeVirtSpec: {
        "imagePullSecrets": _OBJECTS,
        "imageRegistry": _TEXT,
        "imageTag": _TEXT,
        "infra": _OPAQUE,
        "monitorAccount": _TEXT,
        "monitorNamespace": _TEXT,
        "productComponent": _TEXT,
        "productName": _TEXT,
        "productVersion": _TEXT,
        "serviceMonitorNamespace": _TEXT,
        "synchronizationPort": _TEXT,
        "uninstallStrategy": _TEXT,
        "workloads": _OPAQUE,
    },
    v1.KubeVirtConfiguration: {
        "apiConfiguration": _OPAQUE,
        "autoCPULimitNamespaceLabelSelector": _OPAQUE,
        "changedBlockTrackingLabelSelectors": _OPAQUE,
        "commonInstancetypesDeployment": _OPAQUE,
        "controllerConfiguration": _OPAQUE,
        "defaultRuntimeClass": _TEXT,
        "emulatedMachines": _TEXTS,
        "handlerConfiguration": _OPAQUE,
        "hypervisors": _OBJECTS,
        "imagePullPolicy": _TEXT,
        "instancetype": _OPAQUE,
        "ksmConfiguration": _OPAQUE,
        "liveUpdateConfiguration": _OPAQUE,
        "mediatedDevicesConfiguration": _OPAQUE,
        "migrations": _OPAQUE,
        "minCPUModel": _TEXT,
        "obsoleteCPUModels": _OPAQUE,
        "ovmfPath": _TEXT,
        "permittedHostDevices": _OPAQUE,
        "roleAggregationStrategy": _TEXT,
        "seccompConfiguration": _OPAQUE,
        "selinuxLauncherType": _TEXT,
        "supportContainerResources": _OBJECTS,
        "supportedGuestAgentVersions": _TEXTS,
        "tlsConfiguration": _OPAQUE,
        "virtualMachineInstancesPerNode": _NUMBER,
        "vmRolloutStrategy": _TEXT,
        "vmStateStorageClass": _TEXT,
        "webhookConfiguration": _OPAQUE,
    },
    v1.DeveloperConfiguration: {
        "clusterProfiler": _FLAG,
        "diskVerification": _OPAQUE,
        "minimumClusterTSCFrequency": _NUMBER,
        "nodeSelectors": _OPAQUE,
    },
    v1.LogVerbosity: {
        "nodeVerbosity": _OPAQUE,
        "virtAPI": _NUMBER,
        "virtHandler": _NUMBER,
        "virtOperator": _NUMBER,
        "virtSynchronizationController": _NUMBER,
    },
    v1.NetworkConfiguration: {
        "binding": _OPAQUE,
        "permitSlirpInterface": _FLAG,
    },
    v1.VirtualMachineOptions: {"disableFreePageReporting": _OPAQUE},
    v1.ArchitectureConfiguration: {
        "defaultArchitecture": _TEXT,
        "ppc64le": _OPAQUE,
        "s390x": _OPAQUE,
    },
    v1.ArchitectureSettings: {"emulatedMachines": _TEXTS, "ovmfPath": _TEXT},
}

# Sources of a volume, ways to attach an interface or a disk, types of credentials and their ways into the guest, the implemented and
# the others: one of each is wanted.
VOLUME_SOURCES = (
    "containerDisk",
    "cloudInitNoCloud",
    "cloudInitConfigDrive",
    "persistentVolumeClaim",
    "dataVolume",
    "ephemeral",
    "emptyDisk",
    "hostDisk",
    "configMap",
    "secret",
    "downwardAPI",
    "serviceAccount",
    "sysprep",
    *UNSUPPORTED[v1.Volume],
)
DISK_TARGETS = ("disk", "cdrom", "lun")
CREDENTIAL_TYPES = ("sshPublicKey", "userPassword")
KEY_PROPAGATIONS = ("noCloud", "configDrive", "qemuGuestAgent")
PROBE_HANDLERS = ("exec", "guestAgentPing", "httpGet", "tcpSocket")
PASSWORD_PROPAGATIONS = ("qemuGuestAgent",)
NETWORK_TYPES = ("pod", "multus", *UNSUPPORTED[v1.Network])
INTERFACE_BINDINGS = (
    "masquerade",
    "binding",
    "bridge",
    "macvtap",
    "passt",
    "passtBinding",
    "slirp",
    "sriov",
)
