"""The parts of storage objects that podvisor reads: classes, and the snapshots of CSI. Partial on purpose: never write one back whole."""

from podvisor_common.api.base import ApiObject, ApiStruct
from podvisor_common.api.meta import ObjectMeta
from podvisor_common.api.quantity import Quantity

SNAPSHOT_API_VERSION = "snapshot.storage.k8s.io/v1"


class StorageClass(ApiObject, frozen=True):
    """Where the volumes of claims come from."""

    metadata: ObjectMeta
    api_version: str = "storage.k8s.io/v1"
    kind: str = "StorageClass"
    provisioner: str = ""
    volume_binding_mode: str = "Immediate"


class VolumeSnapshotClass(ApiObject, frozen=True):
    """How a driver makes snapshots of its volumes."""

    metadata: ObjectMeta
    api_version: str = SNAPSHOT_API_VERSION
    kind: str = "VolumeSnapshotClass"
    driver: str = ""
    deletion_policy: str = ""


class VolumeSnapshotSource(ApiStruct, frozen=True):
    """What a snapshot is of: exactly one of the two is set."""

    persistent_volume_claim_name: str | None = None
    volume_snapshot_content_name: str | None = None


class VolumeSnapshotSpec(ApiStruct, frozen=True):
    """What a snapshot shall be of."""

    source: VolumeSnapshotSource = VolumeSnapshotSource()
    volume_snapshot_class_name: str | None = None


class VolumeSnapshotError(ApiStruct, frozen=True):
    """The last thing that went wrong while a snapshot was made."""

    time: str | None = None
    message: str | None = None


class VolumeSnapshotStatus(ApiStruct, frozen=True):
    """How far a snapshot is."""

    bound_volume_snapshot_content_name: str | None = None
    creation_time: str | None = None
    ready_to_use: bool | None = None
    restore_size: Quantity | None = None
    error: VolumeSnapshotError | None = None


class VolumeSnapshot(ApiObject, frozen=True):
    """A snapshot of the volume of a claim."""

    metadata: ObjectMeta
    api_version: str = SNAPSHOT_API_VERSION
    kind: str = "VolumeSnapshot"
    spec: VolumeSnapshotSpec = VolumeSnapshotSpec()
    status: VolumeSnapshotStatus = VolumeSnapshotStatus()


class VolumeSnapshotContentSpec(ApiStruct, frozen=True):
    """Which driver a snapshot belongs to, and what becomes of it."""

    driver: str = ""
    deletion_policy: str = ""


class VolumeSnapshotContentStatus(ApiStruct, frozen=True):
    """What the driver says of a snapshot."""

    snapshot_handle: str | None = None
    ready_to_use: bool | None = None
    restore_size: int | None = None  # in bytes


class VolumeSnapshotContent(ApiObject, frozen=True):
    """A snapshot as its driver has it."""

    metadata: ObjectMeta
    api_version: str = SNAPSHOT_API_VERSION
    kind: str = "VolumeSnapshotContent"
    spec: VolumeSnapshotContentSpec = VolumeSnapshotContentSpec()
    status: VolumeSnapshotContentStatus = VolumeSnapshotContentStatus()
