"""VirtualMachineSnapshotContent: what a snapshot kept of a machine."""

from typing import Annotated, Any

from podvisor_common.api.base import ApiObject, ApiStruct, doc
from podvisor_common.api.meta import ObjectMeta
from podvisor_common.api.snapshot import names
from podvisor_common.api.snapshot.virtual_machine_snapshot import SnapshotError


class SourceSpec(ApiStruct, frozen=True):
    """What was kept of the specification: exactly one kind of it."""

    virtual_machine: Annotated[
        dict[str, Any] | None,
        doc("`metadata` and `spec` of the VirtualMachine, word for word as they were."),
    ] = None


class VolumeBackup(ApiStruct, frozen=True):
    """What a claim can be made from again."""

    volume_name: Annotated[str, doc("Name of the volume in the machine.")]
    persistent_volume_claim: Annotated[
        dict[str, Any],
        doc("`metadata` and `spec` of the PersistentVolumeClaim, word for word as they were."),
    ]
    volume_snapshot_name: Annotated[
        str | None, doc("Name of the VolumeSnapshot with its content, in the same namespace.")
    ] = None


class VirtualMachineSnapshotContentSpec(ApiStruct, frozen=True):
    """What was kept."""

    source: Annotated[SourceSpec, doc("What was kept of the specification.")]
    virtual_machine_snapshot_name: Annotated[
        str | None, doc("Name of the VirtualMachineSnapshot, in the same namespace.")
    ] = None
    volume_backups: Annotated[
        list[VolumeBackup] | None,
        doc("What was kept of the volumes.", x_kubernetes_list_type="atomic"),
    ] = None


class VolumeSnapshotStatus(ApiStruct, frozen=True):
    """What is known of a VolumeSnapshot."""

    volume_snapshot_name: Annotated[str, doc("Name of the VolumeSnapshot.")]
    creation_time: Annotated[
        str | None, doc("Of which moment it is.", format="date-time", nullable=True)
    ] = None
    ready_to_use: Annotated[bool | None, doc("A claim can be made from it.")] = None
    error: Annotated[SnapshotError | None, doc("The last thing that went wrong.")] = None


class VirtualMachineSnapshotContentStatus(ApiStruct, frozen=True):
    """What is known of what was kept."""

    creation_time: Annotated[
        str | None,
        doc(
            "When all VolumeSnapshots were there, ready or not.", format="date-time", nullable=True
        ),
    ] = None
    ready_to_use: Annotated[bool | None, doc("All VolumeSnapshots are ready.")] = None
    error: Annotated[SnapshotError | None, doc("The last thing that went wrong.")] = None
    volume_snapshot_status: Annotated[
        list[VolumeSnapshotStatus] | None,
        doc("What is known of each VolumeSnapshot.", x_kubernetes_list_type="atomic"),
    ] = None


class VirtualMachineSnapshotContent(ApiObject, frozen=True):
    """What a snapshot kept of a machine."""

    metadata: ObjectMeta
    spec: Annotated[VirtualMachineSnapshotContentSpec, doc("What was kept.")]
    status: Annotated[VirtualMachineSnapshotContentStatus, doc("What is known of it.")] = (
        VirtualMachineSnapshotContentStatus()
    )
    api_version: str = names.API_VERSION
    kind: str = names.SNAPSHOT_CONTENT
