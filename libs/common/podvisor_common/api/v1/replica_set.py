"""VirtualMachineInstanceReplicaSet: a number of equal instances, each replaced when it ends."""

from typing import Annotated

from podvisor_common.api.base import ApiObject, ApiStruct, doc
from podvisor_common.api.meta import ObjectMeta
from podvisor_common.api.v1 import names
from podvisor_common.api.v1.placement import LabelSelector
from podvisor_common.api.v1.sets import SetStatus
from podvisor_common.api.v1.virtual_machine import VirtualMachineInstanceTemplateSpec


class VirtualMachineInstanceReplicaSetSpec(ApiStruct, frozen=True):
    """How many instances there shall be, and what of."""

    template: Annotated[
        VirtualMachineInstanceTemplateSpec,
        doc("What instances are made from. Its labels must match the selector."),
    ]
    selector: Annotated[
        LabelSelector,
        doc("Which instances are the set's: those it made, and matching ones that nobody manages."),
    ]
    replicas: Annotated[
        int, doc("How many instances there shall be.", format="int32", minimum=0, default=1)
    ] = 1
    paused: Annotated[bool, doc("Instances are neither made nor deleted.")] = False


class VirtualMachineInstanceReplicaSetStatus(SetStatus, frozen=True):
    """What is known of a set."""

    replicas: Annotated[
        int | None,
        doc("Instances that have not ended and are not being deleted.", format="int32"),
    ] = None


class VirtualMachineInstanceReplicaSet(ApiObject, frozen=True):
    """A number of equal instances: one that ends is deleted and another takes its place."""

    metadata: ObjectMeta
    spec: Annotated[VirtualMachineInstanceReplicaSetSpec, doc("How many instances, and what of.")]
    status: Annotated[VirtualMachineInstanceReplicaSetStatus, doc("What is known of the set.")] = (
        VirtualMachineInstanceReplicaSetStatus()
    )
    api_version: str = names.API_VERSION
    kind: str = names.REPLICA_SET
