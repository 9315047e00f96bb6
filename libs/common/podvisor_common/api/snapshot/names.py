"""Every string of snapshot.kubevirt.io that clients, tests or other components compare, and of the CSI snapshots below.

Invariant: one definition per string; nothing else in podvisor spells them out.
"""

from enum import StrEnum

GROUP = "snapshot.kubevirt.io"
API_VERSION = "snapshot.kubevirt.io/v1beta1"

SNAPSHOT = "VirtualMachineSnapshot"
SNAPSHOT_CONTENT = "VirtualMachineSnapshotContent"
RESTORE = "VirtualMachineRestore"

# When a snapshot names no deadline, and how long a restore waits for its target to be stopped.
DEFAULT_FAILURE_DEADLINE_S = 300
DEFAULT_GRACE_PERIOD_S = 300


class DeletionPolicy(StrEnum):
    """What becomes of the content when its snapshot is deleted."""

    DELETE = "Delete"
    RETAIN = "Retain"


class SnapshotPhase(StrEnum):
    """Phases of a VirtualMachineSnapshot."""

    IN_PROGRESS = "InProgress"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    DELETING = "Deleting"
    UNKNOWN = "Unknown"


class Indication(StrEnum):
    """In which state the machine was when its snapshot was taken."""

    ONLINE = "Online"
    NO_GUEST_AGENT = "NoGuestAgent"
    GUEST_AGENT = "GuestAgent"
    QUIESCE_TIMEOUT = "QuiesceTimeout"
    PAUSED = "Paused"
    PARTIAL_SNAPSHOT = "PartialSnapshot"


class ConditionType(StrEnum):
    """Condition types of snapshots and restores."""

    READY = "Ready"
    PROGRESSING = "Progressing"
    FAILURE = "Failure"


class TargetReadinessPolicy(StrEnum):
    """What a restore does about a target that runs."""

    STOP_TARGET = "StopTarget"
    WAIT_GRACE_PERIOD = "WaitGracePeriod"
    FAIL_IMMEDIATE = "FailImmediate"
    WAIT_EVENTUALLY = "WaitEventually"


class VolumeRestorePolicy(StrEnum):
    """Which names the claims get that a restore makes."""

    RANDOMIZE_NAMES = "RandomizeNames"
    IN_PLACE = "InPlace"
    PREFIX_TARGET_NAME = "PrefixTargetName"


class VolumeOwnershipPolicy(StrEnum):
    """Who owns the claims that a restore makes."""

    VM = "Vm"
    NONE = "None"


class EventReason(StrEnum):
    """Reasons of events about snapshots and restores."""

    CONTENT_CREATED = "SuccessfulVirtualMachineSnapshotContentCreate"
    VOLUME_SNAPSHOT_CREATED = "SuccessfulVolumeSnapshotCreate"
    VOLUME_SNAPSHOT_MISSING = "VolumeSnapshotMissing"
    RESTORE_COMPLETE = "VirtualMachineRestoreComplete"
    RESTORE_ERROR = "VirtualMachineRestoreError"
    RESTORE_TARGET_NOT_READY = "RestoreTargetNotReady"


SNAPSHOT_FINALIZER = "snapshot.kubevirt.io/vmsnapshot-protection"
CONTENT_FINALIZER = "snapshot.kubevirt.io/vmsnapshotcontent-protection"
# On the machine, for as long as a snapshot of it is in progress.
SOURCE_FINALIZER = "snapshot.kubevirt.io/snapshot-source-protection"
RESTORE_FINALIZER = "snapshot.kubevirt.io/vmrestore-protection"

# Labels of the VolumeSnapshots of a machine.
SOURCE_NAME_LABEL = "snapshot.kubevirt.io/source-vm-name"
SOURCE_NAMESPACE_LABEL = "snapshot.kubevirt.io/source-vm-namespace"

# On what a restore made, or changed: its name, and its name with its UID.
RESTORE_NAME_ANNOTATION = "restore.kubevirt.io/name"
LAST_RESTORE_ANNOTATION = "restore.kubevirt.io/lastRestoreUID"
# Labels of the claims that a restore made: the machine that was kept.
RESTORE_SOURCE_NAME_LABEL = "restore.kubevirt.io/source-vm-name"
RESTORE_SOURCE_NAMESPACE_LABEL = "restore.kubevirt.io/source-vm-namespace"

# Of the snapshotter: the class to take where several have the same driver.
DEFAULT_CLASS_ANNOTATION = "snapshot.storage.kubernetes.io/is-default-class"
