"""VirtualMachineRestore: the wish to have a machine as a snapshot kept it."""

from typing import Annotated

from podvisor_common.api.base import ApiObject, ApiStruct, doc
from podvisor_common.api.meta import Conditions, ObjectMeta, TypedLocalObjectReference
from podvisor_common.api.snapshot import names


class VolumeRestoreOverride(ApiStruct, frozen=True):
    """What shall be different about the claim of one volume."""

    volume_name: Annotated[str, doc("Name of the volume in the snapshot.")] = ""
    restore_name: Annotated[str, doc("Name of the claim.")] = ""
    labels: Annotated[dict[str, str] | None, doc("Labels of the claim, beside its own.")] = None
    annotations: Annotated[
        dict[str, str] | None, doc("Annotations of the claim, beside its own.")
    ] = None


class VirtualMachineRestoreSpec(ApiStruct, frozen=True):
    """Which machine is to become what. It cannot be changed."""

    target: Annotated[
        TypedLocalObjectReference,
        doc(
            "The machine, which is made if there is none: `apiGroup` is `kubevirt.io` and `kind` is `VirtualMachine`."
        ),
    ]
    virtual_machine_snapshot_name: Annotated[
        str, doc("Name of the VirtualMachineSnapshot, in the same namespace.", minLength=1)
    ]
    target_readiness_policy: Annotated[
        str | None,
        doc(
            "What is done about a target that runs. `StopTarget`: it is stopped. `WaitGracePeriod`: the restore fails if"
            " it is not stopped within five minutes. `FailImmediate`: the restore fails. `WaitEventually`: the restore"
            " waits. `WaitGracePeriod` by default.",
            enum=list(names.TargetReadinessPolicy),
        ),
    ] = None
    volume_restore_policy: Annotated[
        str | None,
        doc(
            "Which names the claims get. `RandomizeNames`: new ones. `InPlace`: those of the snapshot, whose claims are"
            " deleted if they still exist. `PrefixTargetName`: the target's name before that of the volume."
            " `RandomizeNames` by default.",
            enum=list(names.VolumeRestorePolicy),
        ),
    ] = None
    volume_ownership_policy: Annotated[
        str | None,
        doc(
            "Who owns the claims. `Vm`: the machine, with which they go. `None`: nobody. `Vm` by default.",
            enum=list(names.VolumeOwnershipPolicy),
        ),
    ] = None
    volume_restore_overrides: Annotated[
        list[VolumeRestoreOverride] | None,
        doc(
            "What shall be different about the claims of single volumes.",
            x_kubernetes_list_type="atomic",
        ),
    ] = None
    patches: Annotated[
        list[str] | None,
        doc(
            "Operations of JSON Patch (RFC 6902), each as a text, that make the target from what was kept of its source,"
            ' for example `{"op": "remove", "path": "/spec/template/spec/nodeSelector"}`.',
            x_kubernetes_list_type="atomic",
        ),
    ] = None


class VolumeRestore(ApiStruct, frozen=True):
    """What became of a volume of the snapshot."""

    volume_name: Annotated[str, doc("Name of the volume in the snapshot.")]
    persistent_volume_claim: Annotated[str, doc("Name of the claim that is made for it.")]
    volume_snapshot_name: Annotated[str, doc("Name of the VolumeSnapshot with its content.")]
    data_volume_name: Annotated[
        str | None, doc("Name of the DataVolume that the claim belongs to.")
    ] = None


class VirtualMachineRestoreStatus(ApiStruct, frozen=True):
    """What is known of a restore."""

    restores: Annotated[
        list[VolumeRestore] | None,
        doc("What became of the volumes of the snapshot.", x_kubernetes_list_type="atomic"),
    ] = None
    restore_time: Annotated[
        str | None, doc("When it was complete.", format="date-time", nullable=True)
    ] = None
    deleted_data_volumes: Annotated[
        list[str] | None,
        doc("DataVolumes of the target that were deleted.", x_kubernetes_list_type="set"),
    ] = None
    complete: Annotated[bool | None, doc("Nothing is left to do.")] = None
    conditions: Conditions = None


class VirtualMachineRestore(ApiObject, frozen=True):
    """The wish to have a machine as a snapshot kept it."""

    metadata: ObjectMeta
    spec: Annotated[VirtualMachineRestoreSpec, doc("Which machine is to become what.")]
    status: Annotated[VirtualMachineRestoreStatus, doc("What is known of it.")] = (
        VirtualMachineRestoreStatus()
    )
    api_version: str = names.API_VERSION
    kind: str = names.RESTORE
