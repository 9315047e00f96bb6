"""pool.kubevirt.io/v1beta1: the kind and its parts, as this version of podvisor implements them."""

from podvisor_common.api.pool.strategies import (
    Autohealing,
    NameGeneration,
    OpportunisticScaleIn,
    OpportunisticUpdate,
    ProactiveScaleIn,
    ProactiveUpdate,
    ScaleInStrategy,
    SelectionPolicy,
    Selectors,
    Unmanaged,
    UpdateStrategy,
)
from podvisor_common.api.pool.virtual_machine_pool import (
    VirtualMachinePool,
    VirtualMachinePoolSpec,
    VirtualMachinePoolStatus,
    VirtualMachineTemplateSpec,
)

__all__ = [
    "Autohealing",
    "NameGeneration",
    "OpportunisticScaleIn",
    "OpportunisticUpdate",
    "ProactiveScaleIn",
    "ProactiveUpdate",
    "ScaleInStrategy",
    "SelectionPolicy",
    "Selectors",
    "Unmanaged",
    "UpdateStrategy",
    "VirtualMachinePool",
    "VirtualMachinePoolSpec",
    "VirtualMachinePoolStatus",
    "VirtualMachineTemplateSpec",
]
