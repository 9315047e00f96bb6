"""Fields of KubeVirt's v1 API that podvisor knows by name and does not implement yet.

The one table behind both the published schema (the fields are there, opaque, so that a manifest that uses them reaches
admission instead of losing them silently) and admission (which refuses them by path). A field that gets implemented
moves from here into its struct.
"""

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
        "accessCredentials",
        "evictionStrategy",
        "livenessProbe",
        "readinessProbe",
        "resourceClaims",
        "serviceAccountName",
        "utilityVolumes",
    ),
    v1.Domain: (
        "chassis",
        "clock",
        "features",
        "ioThreads",
        "ioThreadsPolicy",
        "launchSecurity",
        "rebootPolicy",
    ),
    v1.ResourceRequirements: ("overcommitGuestOverhead",),
    v1.CPU: (
        "dedicatedCpuPlacement",
        "features",
        "isolateEmulatorThread",
        "maxSockets",
        "numa",
        "realtime",
    ),
    v1.Memory: ("hugepages", "maxGuest", "reservedOverhead"),
    v1.Firmware: ("acpi", "bootloader", "kernelBoot"),
    v1.Devices: (
        "autoattachInputDevice",
        "autoattachMemBalloon",
        "autoattachVSOCK",
        "blockMultiQueue",
        "clientPassthrough",
        "disableHotplug",
        "downwardMetrics",
        "filesystems",
        "gpus",
        "hostDevices",
        "inputs",
        "networkInterfaceMultiqueue",
        "panicDevices",
        "rng",
        "sound",
        "tpm",
        "useVirtioTransitional",
        "video",
        "watchdog",
    ),
    v1.Disk: (
        "blockSize",
        "cache",
        "changedBlockTracking",
        "dedicatedIOThread",
        "errorPolicy",
        "io",
        "lun",
        "shareable",
        "tag",
    ),
    v1.DiskTarget: ("pciAddress",),
    v1.CDRomTarget: ("tray",),
    v1.Interface: (
        "acpiIndex",
        "binding",
        "bridge",
        "dhcpOptions",
        "macvtap",
        "passt",
        "passtBinding",
        "pciAddress",
        "portRanges",
        "slirp",
        "sriov",
        "state",
        "tag",
    ),
    v1.Volume: (
        "cloudInitConfigDrive",
        "configMap",
        "containerPath",
        "dataVolume",
        "downwardAPI",
        "downwardMetrics",
        "emptyDisk",
        "ephemeral",
        "hostDisk",
        "memoryDump",
        "persistentVolumeClaim",
        "secret",
        "serviceAccount",
        "sysprep",
    ),
    v1.Network: ("multus", "resourceClaim"),
    v1.PodNetwork: ("vmIPv6NetworkCIDR",),
    # Status is never refused: on creation the API server drops it.
    v1.VirtualMachineStatus: (
        "changedBlockTracking",
        "instancetypeRef",
        "memoryDumpRequest",
        "preferenceRef",
        "restoreInProgress",
        "snapshotInProgress",
        "volumeRequests",
        "volumeSnapshotStatuses",
        "volumeUpdateState",
    ),
    v1.VirtualMachineInstanceStatus: (
        "VSOCKCID",
        "changedBlockTracking",
        "evacuationNodeName",
        "fsFreezeStatus",
        "guestOSInfo",
        "kernelBootStatus",
        "migratedVolumes",
        "migrationMethod",
        "migrationState",
        "migrationTransport",
        "selinuxContext",
        "topologyHints",
    ),
}

# Sources of a volume and ways to attach an interface or a disk, the implemented and the others: one of each is wanted.
VOLUME_SOURCES = ("containerDisk", "cloudInitNoCloud", *UNSUPPORTED[v1.Volume])
DISK_TARGETS = ("disk", "cdrom", "lun")
NETWORK_TYPES = ("pod", *UNSUPPORTED[v1.Network])
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
