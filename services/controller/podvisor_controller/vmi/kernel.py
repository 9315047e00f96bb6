"""The container image that an instance's kernel is in. Pure."""

from podvisor_common.api import v1


def kernel_container(vmi: v1.VirtualMachineInstance) -> v1.KernelBootContainer | None:
    """What the manifest says of the image; None where no kernel is taken from one."""
    firmware = vmi.spec.domain.firmware
    boot = firmware.kernel_boot if firmware is not None else None
    return boot.container if boot is not None else None
