"""VirtualMachineSnapshot: the wish to have a machine and its volumes kept as they are."""

from typing import Annotated

from podvisor_common.api.base import ApiObject, ApiStruct, doc
from podvisor_common.api.duration import MAX_LENGTH
from podvisor_common.api.meta import Conditions, ObjectMeta, TypedLocalObjectReference
from podvisor_common.api.snapshot import names


class SnapshotError(ApiStruct, frozen=True):
    """The last thing that went wrong."""

    time: Annotated[str | None, doc("When.", format="date-time", nullable=True)] = None
    message: Annotated[str | None, doc("What, as a sentence for a person.")] = None


class SourceIndication(ApiStruct, frozen=True):
    """In which state the machine was when its snapshot was taken, and what that means."""

    indication: Annotated[str, doc("The state, as one CamelCase word.")]
    message: Annotated[str, doc("What it means, as a sentence for a person.")]


class SnapshotVolumes(ApiStruct, frozen=True):
    """Which volumes of the machine are in the snapshot."""

    included_volumes: Annotated[
        list[str] | None,
        doc("Names of volumes that a VolumeSnapshot is of.", x_kubernetes_list_type="set"),
    ] = None
    excluded_volumes: Annotated[
        list[str] | None,
        doc("Names of volumes whose content is not kept.", x_kubernetes_list_type="set"),
    ] = None


class VirtualMachineSnapshotSpec(ApiStruct, frozen=True):
    """What is to be kept. It cannot be changed."""

    source: Annotated[
        TypedLocalObjectReference,
        doc("The machine: `apiGroup` is `kubevirt.io` and `kind` is `VirtualMachine`."),
    ]
    deletion_policy: Annotated[
        str | None,
        doc(
            "What becomes of the content when the snapshot is deleted. `Delete`: it goes, with its VolumeSnapshots."
            " `Retain`: it stays if it is ready. `Delete` by default.",
            enum=list(names.DeletionPolicy),
        ),
    ] = None
    failure_deadline: Annotated[
        str | None,
        doc(
            "How long it may take, for example `90s`, before the snapshot is `Failed`. `0`: as long as it wants."
            " `5m` by default.",
            maxLength=MAX_LENGTH,
        ),
    ] = None


class VirtualMachineSnapshotStatus(ApiStruct, frozen=True):
    """What is known of a snapshot."""

    source_uid: Annotated[str | None, doc("UID of the machine.")] = None
    virtual_machine_snapshot_content_name: Annotated[
        str | None, doc("Name of the VirtualMachineSnapshotContent.")
    ] = None
    creation_time: Annotated[
        str | None,
        doc("When all of it was there, ready or not.", format="date-time", nullable=True),
    ] = None
    phase: Annotated[str, doc("How far it is: InProgress, Succeeded, Failed or Deleting.")] = ""
    ready_to_use: Annotated[bool | None, doc("A machine can be restored from it.")] = None
    error: Annotated[SnapshotError | None, doc("The last thing that went wrong.")] = None
    conditions: Conditions = None
    indications: Annotated[
        list[str] | None,
        doc(
            "Deprecated, use `sourceIndications`: the words of it alone.",
            x_kubernetes_list_type="set",
        ),
    ] = None
    source_indications: Annotated[
        list[SourceIndication] | None,
        doc(
            "In which state the machine was when its snapshot was taken.",
            x_kubernetes_list_type="atomic",
        ),
    ] = None
    snapshot_volumes: Annotated[
        SnapshotVolumes | None, doc("Which volumes of the machine are in the snapshot.")
    ] = None


class VirtualMachineSnapshot(ApiObject, frozen=True):
    """The wish to have a machine and its volumes kept as they are."""

    metadata: ObjectMeta
    spec: Annotated[VirtualMachineSnapshotSpec, doc("What is to be kept.")]
    status: Annotated[VirtualMachineSnapshotStatus, doc("What is known of it.")] = (
        VirtualMachineSnapshotStatus()
    )
    api_version: str = names.API_VERSION
    kind: str = names.SNAPSHOT
