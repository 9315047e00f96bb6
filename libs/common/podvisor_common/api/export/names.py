"""Every string of export.kubevirt.io that clients, tests or other components compare.

Invariant: one definition per string; nothing else in podvisor spells them out.
"""

from enum import StrEnum

GROUP = "export.kubevirt.io"
API_VERSION = "export.kubevirt.io/v1"

EXPORT = "VirtualMachineExport"

# When an export names no time of its own.
DEFAULT_TTL_S = 7200


class SourceKind(StrEnum):
    """What can be exported."""

    CLAIM = "PersistentVolumeClaim"
    MACHINE = "VirtualMachine"
    SNAPSHOT = "VirtualMachineSnapshot"


class Phase(StrEnum):
    """Phases of an export."""

    PENDING = "Pending"
    READY = "Ready"
    TERMINATED = "Terminated"
    SKIPPED = "Skipped"


class ConditionType(StrEnum):
    """Condition types of an export."""

    READY = "Ready"
    CLAIMS = "PVCReady"
    VOLUMES_CREATED = "VolumesCreated"


class Reason(StrEnum):
    """Reasons of conditions."""

    UNKNOWN = "Unknown"
    INITIALIZING = "Initializing"
    IN_USE = "InUse"
    CLAIM_NOT_FOUND = "PVCNotFound"
    CLAIM_BOUND = "PVCBound"
    CLAIM_PENDING = "PVCPending"
    POD_PENDING = "PodPending"
    POD_READY = "PodReady"
    POD_COMPLETED = "PodCompleted"
    MACHINE_NOT_FOUND = "VMNotFound"
    MACHINE_WITHOUT_VOLUMES = "VMNoVolumes"
    VOLUMES_NOT_POPULATED = "VolumesNotPopulated"
    SNAPSHOT_NOT_FOUND = "VMSnapshotNotFound"
    SNAPSHOT_WITHOUT_VOLUMES = "VMSnapshotNoVolumes"
    NOT_ALL_CLAIMS_CREATED = "NotAllPVCsCreated"
    NOT_ALL_CLAIMS_READY = "NotAllPVCsReady"
    ALL_CLAIMS_READY = "AllPVCsReady"


class EventReason(StrEnum):
    """Reasons of events about exports."""

    POD_CREATED = "ExporterPodCreated"
    POD_ENDED = "ExporterPodFailedOrCompleted"
    PAUSED = "ExportPaused"
    SECRET_CREATED = "SecretCreated"
    SERVICE_CREATED = "ServiceCreated"


class Format(StrEnum):
    """Forms in which a volume is served."""

    RAW = "raw"
    GZIP = "gzip"
    DIRECTORY = "dir"
    ARCHIVE = "tar.gz"


class ManifestType(StrEnum):
    """Manifests that are served beside volumes."""

    ALL = "all"
    AUTH_HEADER = "auth-header-secret"


# Of the pods and Services of exports. The second one names the export, as far as a label can.
EXPORTER_APP = "virt-exporter"
SERVICE_LABEL = "kubevirt.io.virt-export-service"

# The key of the token in its Secret, and the header in which a client shows it.
TOKEN_KEY = "token"
TOKEN_HEADER = "x-kubevirt-export-token"
