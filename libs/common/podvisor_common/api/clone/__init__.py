"""clone.kubevirt.io/v1beta1: the kind and its parts, as this version of podvisor implements them."""

from podvisor_common.api.clone.virtual_machine_clone import (
    VirtualMachineClone,
    VirtualMachineCloneSpec,
    VirtualMachineCloneStatus,
    VirtualMachineCloneTemplateFilters,
)

__all__ = [
    "VirtualMachineClone",
    "VirtualMachineCloneSpec",
    "VirtualMachineCloneStatus",
    "VirtualMachineCloneTemplateFilters",
]
