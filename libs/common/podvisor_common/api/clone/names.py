"""Every string of clone.kubevirt.io that clients, tests or other components compare.

Invariant: one definition per string; nothing else in podvisor spells them out.
"""

from enum import StrEnum

GROUP = "clone.kubevirt.io"
API_VERSION = "clone.kubevirt.io/v1beta1"

CLONE = "VirtualMachineClone"


class ClonePhase(StrEnum):
    """Phases of a VirtualMachineClone."""

    SNAPSHOT_IN_PROGRESS = "SnapshotInProgress"
    RESTORE_IN_PROGRESS = "RestoreInProgress"
    CREATING_TARGET_VM = "CreatingTargetVM"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    UNKNOWN = "Unknown"


class ConditionType(StrEnum):
    """Condition types of clones."""

    READY = "Ready"
    PROGRESSING = "Progressing"


class VolumeNamePolicy(StrEnum):
    """Which names the claims of the target get."""

    RANDOMIZE_NAMES = "RandomizeNames"
    PREFIX_TARGET_NAME = "PrefixTargetName"


class EventReason(StrEnum):
    """Reasons of events about clones."""

    SNAPSHOT_CREATED = "SnapshotCreated"
    SNAPSHOT_READY = "SnapshotReady"
    SNAPSHOT_DELETED = "SnapshotDeleted"
    SNAPSHOT_CONTENT_INVALID = "SnapshotContentInvalid"
    RESTORE_CREATED = "RestoreCreated"
    RESTORE_CREATION_FAILED = "RestoreCreationFailed"
    RESTORE_READY = "RestoreReady"
    TARGET_VM_CREATED = "TargetVMCreated"
    PVC_BOUND = "PVCBound"
    SOURCE_DOES_NOT_EXIST = "SourceDoesNotExist"
    VOLUME_SNAPSHOTS_INVALID = "VMVolumeSnapshotsInvalid"
