"""Every string of snapshot.kubevirt.io that clients, tests or other components compare, and of the CSI snapshots below.

Invariant: one definition per string; nothing else in podvisor spells them out.
"""

from enum import StrEnum

GROUP = "snapshot.kubevirt.io"
API_VERSION = "snapshot.kubevirt.io/v1beta1"

SNAPSHOT = "VirtualMachineSnapshot"
SNAPSHOT_CONTENT = "VirtualMachineSnapshotContent"

# When a snapshot names no deadline.
DEFAULT_FAILURE_DEADLINE_S = 300


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
    """Condition types of snapshots."""

    READY = "Ready"
    PROGRESSING = "Progressing"
    FAILURE = "Failure"


class EventReason(StrEnum):
    """Reasons of events about snapshots."""

    CONTENT_CREATED = "SuccessfulVirtualMachineSnapshotContentCreate"
    VOLUME_SNAPSHOT_CREATED = "SuccessfulVolumeSnapshotCreate"
    VOLUME_SNAPSHOT_MISSING = "VolumeSnapshotMissing"


SNAPSHOT_FINALIZER = "snapshot.kubevirt.io/vmsnapshot-protection"
CONTENT_FINALIZER = "snapshot.kubevirt.io/vmsnapshotcontent-protection"
# On the machine, for as long as a snapshot of it is in progress.
SOURCE_FINALIZER = "snapshot.kubevirt.io/snapshot-source-protection"

# Labels of the VolumeSnapshots of a machine.
SOURCE_NAME_LABEL = "snapshot.kubevirt.io/source-vm-name"
SOURCE_NAMESPACE_LABEL = "snapshot.kubevirt.io/source-vm-namespace"

# Of the snapshotter: the class to take where several have the same driver.
DEFAULT_CLASS_ANNOTATION = "snapshot.storage.kubernetes.io/is-default-class"
