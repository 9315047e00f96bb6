"""VirtualMachinePool: a number of machines made from one template, with names in order."""

from typing import Annotated

from podvisor_common.api.base import ApiObject, ApiStruct, doc
from podvisor_common.api.meta import ObjectMeta
from podvisor_common.api.pool.strategies import (
    Autohealing,
    NameGeneration,
    ScaleInStrategy,
    UpdateStrategy,
)
from podvisor_common.api.v1 import names
from podvisor_common.api.v1.placement import LabelSelector
from podvisor_common.api.v1.sets import SetStatus
from podvisor_common.api.v1.virtual_machine import VirtualMachineSpec


class VirtualMachineTemplateSpec(ApiStruct, frozen=True):
    """What machines are made from."""

    spec: Annotated[VirtualMachineSpec, doc("What a machine shall be.")]
    metadata: Annotated[
        ObjectMeta | None, doc("Labels and annotations of machines.", nullable=True)
    ] = None


class VirtualMachinePoolSpec(ApiStruct, frozen=True):
    """How many machines there shall be, and what of."""

    virtual_machine_template: Annotated[
        VirtualMachineTemplateSpec,
        doc("What machines are made from. Its labels must match the selector."),
    ]
    selector: Annotated[
        LabelSelector,
        doc(
            "Which machines are the pool's: those it made, and matching ones with a name of the pool's that nobody"
            " manages. It cannot be changed."
        ),
    ]
    replicas: Annotated[
        int, doc("How many machines there shall be.", format="int32", minimum=0, default=1)
    ] = 1
    paused: Annotated[bool, doc("Machines are neither made nor deleted nor changed.")] = False
    max_unavailable: Annotated[
        int | str | None,
        doc(
            "How many machines, or how many percent of those wanted, may be not ready because of a proactive update."
            " A percentage is rounded down, to one at the least. `100%` by default."
        ),
    ] = None
    name_generation: Annotated[
        NameGeneration | None, doc("Which names in the template get the index of the machine.")
    ] = None
    scale_in_strategy: Annotated[
        ScaleInStrategy | None, doc("What is done when there are more machines than wanted.")
    ] = None
    update_strategy: Annotated[
        UpdateStrategy | None, doc("What is done when the template changes.")
    ] = None
    autohealing: Annotated[
        Autohealing | None,
        doc("When a machine that does not start is deleted and made anew. Never by default."),
    ] = None


class VirtualMachinePoolStatus(SetStatus, frozen=True):
    """What is known of a pool."""

    replicas: Annotated[
        int | None,
        doc("Machines of the pool, those included that are being deleted.", format="int32"),
    ] = None


class VirtualMachinePool(ApiObject, frozen=True):
    """A number of machines made from one template. Their names are the pool's and an index."""

    metadata: ObjectMeta
    spec: Annotated[VirtualMachinePoolSpec, doc("How many machines, and what of.")]
    status: Annotated[VirtualMachinePoolStatus, doc("What is known of the pool.")] = (
        VirtualMachinePoolStatus()
    )
    api_version: str = names.POOL_API_VERSION
    kind: str = names.POOL
