"""VirtualMachineClone: the wish to have a machine that is like another one."""

from typing import Annotated

from podvisor_common.api.base import ApiObject, ApiStruct, doc
from podvisor_common.api.clone import names
from podvisor_common.api.meta import Conditions, ObjectMeta, TypedLocalObjectReference

_FILTERS = (
    "A key, or the beginning of keys before a `*`; after a `!` those that are left out, whatever else is said. All of them"
    " by default."
)


class VirtualMachineCloneTemplateFilters(ApiStruct, frozen=True):
    """Which labels and annotations of the template the target gets."""

    label_filters: Annotated[
        list[str] | None,
        doc(f"Which labels. {_FILTERS}", x_kubernetes_list_type="atomic"),
    ] = None
    annotation_filters: Annotated[
        list[str] | None,
        doc(f"Which annotations. {_FILTERS}", x_kubernetes_list_type="atomic"),
    ] = None


class VirtualMachineCloneSpec(ApiStruct, frozen=True):
    """What is to be like what. It cannot be changed."""

    source: Annotated[
        TypedLocalObjectReference,
        doc(
            "A machine (`apiGroup` is `kubevirt.io`, `kind` is `VirtualMachine`) or a snapshot of one"
            " (`snapshot.kubevirt.io`, `VirtualMachineSnapshot`)."
        ),
    ]
    target: Annotated[
        TypedLocalObjectReference | None,
        doc(
            "The machine that is made: `apiGroup` is `kubevirt.io` and `kind` is `VirtualMachine`. A name is made up where"
            " there is no target; the status has it.",
            nullable=True,
        ),
    ] = None
    label_filters: Annotated[
        list[str] | None,
        doc(f"Which labels the target gets. {_FILTERS}", x_kubernetes_list_type="atomic"),
    ] = None
    annotation_filters: Annotated[
        list[str] | None,
        doc(f"Which annotations the target gets. {_FILTERS}", x_kubernetes_list_type="atomic"),
    ] = None
    template: Annotated[
        VirtualMachineCloneTemplateFilters,
        doc("Which labels and annotations the template of the target gets."),
    ] = VirtualMachineCloneTemplateFilters()
    new_mac_addresses: Annotated[
        dict[str, str] | None,
        doc("MAC addresses by the names of interfaces. The others get new ones."),
    ] = None
    new_smbios_serial: Annotated[
        str | None, doc("Serial number of the target. A new one by default.")
    ] = None
    patches: Annotated[
        list[str] | None,
        doc(
            "Operations of JSON Patch (RFC 6902), each as a text, that the target is changed by before it is made, for example"
            ' `{"op": "add", "path": "/spec/template/metadata/labels/role", "value": "test"}`.',
            x_kubernetes_list_type="atomic",
        ),
    ] = None
    volume_name_policy: Annotated[
        str | None,
        doc(
            "Which names the claims get. `RandomizeNames`: new ones. `PrefixTargetName`: the target's name before that of the"
            " volume. `RandomizeNames` by default.",
            enum=list(names.VolumeNamePolicy),
        ),
    ] = None


class VirtualMachineCloneStatus(ApiStruct, frozen=True):
    """What is known of a clone."""

    creation_time: Annotated[
        str | None, doc("When the target was made.", format="date-time", nullable=True)
    ] = None
    phase: Annotated[
        str,
        doc(
            "How far it is: SnapshotInProgress, RestoreInProgress, CreatingTargetVM, Succeeded or Failed."
        ),
    ] = ""
    conditions: Conditions = None
    snapshot_name: Annotated[
        str | None,
        doc("Name of the VirtualMachineSnapshot that is used, while it is.", nullable=True),
    ] = None
    restore_name: Annotated[
        str | None,
        doc("Name of the VirtualMachineRestore that is used, while it is.", nullable=True),
    ] = None
    target_name: Annotated[str | None, doc("Name of the target.", nullable=True)] = None


class VirtualMachineClone(ApiObject, frozen=True):
    """The wish to have a machine that is like another one."""

    metadata: ObjectMeta
    spec: Annotated[VirtualMachineCloneSpec, doc("What is to be like what.")]
    status: Annotated[VirtualMachineCloneStatus, doc("What is known of it.")] = (
        VirtualMachineCloneStatus()
    )
    api_version: str = names.API_VERSION
    kind: str = names.CLONE
