"""export.kubevirt.io/v1: the kind and its parts, as this version of podvisor implements them."""

from podvisor_common.api.export.virtual_machine_export import (
    VirtualMachineExport,
    VirtualMachineExportLink,
    VirtualMachineExportLinks,
    VirtualMachineExportManifest,
    VirtualMachineExportSpec,
    VirtualMachineExportStatus,
    VirtualMachineExportVolume,
    VirtualMachineExportVolumeFormat,
)

__all__ = [
    "VirtualMachineExport",
    "VirtualMachineExportLink",
    "VirtualMachineExportLinks",
    "VirtualMachineExportManifest",
    "VirtualMachineExportSpec",
    "VirtualMachineExportStatus",
    "VirtualMachineExportVolume",
    "VirtualMachineExportVolumeFormat",
]
