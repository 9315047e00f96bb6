"""snapshot.kubevirt.io/v1beta1: the kinds and their parts, as this version of podvisor implements them."""

from podvisor_common.api.snapshot.content import (
    SourceSpec,
    VirtualMachineSnapshotContent,
    VirtualMachineSnapshotContentSpec,
    VirtualMachineSnapshotContentStatus,
    VolumeBackup,
    VolumeSnapshotStatus,
)
from podvisor_common.api.snapshot.virtual_machine_restore import (
    VirtualMachineRestore,
    VirtualMachineRestoreSpec,
    VirtualMachineRestoreStatus,
    VolumeRestore,
    VolumeRestoreOverride,
)
from podvisor_common.api.snapshot.virtual_machine_snapshot import (
    SnapshotError,
    SnapshotVolumes,
    SourceIndication,
    VirtualMachineSnapshot,
    VirtualMachineSnapshotSpec,
    VirtualMachineSnapshotStatus,
)

__all__ = [
    "SnapshotError",
    "SnapshotVolumes",
    "SourceIndication",
    "SourceSpec",
    "VirtualMachineRestore",
    "VirtualMachineRestoreSpec",
    "VirtualMachineRestoreStatus",
    "VirtualMachineSnapshot",
    "VirtualMachineSnapshotContent",
    "VirtualMachineSnapshotContentSpec",
    "VirtualMachineSnapshotContentStatus",
    "VirtualMachineSnapshotSpec",
    "VirtualMachineSnapshotStatus",
    "VolumeBackup",
    "VolumeRestore",
    "VolumeRestoreOverride",
    "VolumeSnapshotStatus",
]
