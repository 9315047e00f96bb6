"""What a launcher pod asks of its node: memory, processor time, devices. Pure.

Invariant: the memory request covers everything the pod makes resident, so that the scheduler's books are right; the
terms below are checked against measured memory by the benchmarks.
"""

from decimal import ROUND_CEILING, Decimal
from typing import Any

from podvisor_common.api import v1
from podvisor_common.api.quantity import quantity_to_int
from podvisor_common.api.v1 import names

from podvisor_controller.config import ClusterConfig

MIB = 1 << 20

# Unshared memory of the processes beside the guest.
SUPERVISOR_BYTES = 2 * MIB
LAUNCHER_BYTES = 40 * MIB
LIBVIRTD_BYTES = 34 * MIB
QEMU_BYTES = 30 * MIB
# A process for each tree of files that is shared with the guest: 2 MiB at first, then 0.4 KiB for each file that the guest knows
# of, and what the kernel keeps of the descriptor to it.
VIRTIOFSD_BYTES = 8 * MIB
# The process that carries the connections of an interface with binding passt: its buffers and tables of connections.
PASST_BYTES = 32 * MIB
# What the kernel keeps for the pod of a socket for each of the 75 000 ports that are no ephemeral ones, where none is listed: 3.5 KiB
# each, and some more with IPv6.
PASST_ALL_PORTS_BYTES = 272 * MIB
# Stack, state and I/O buffers of one virtual processor.
VCPU_BYTES = 4 * MIB
# Frame buffer of the video card and what VNC keeps of it.
VIDEO_BYTES = 16 * MIB
# To this the launcher bounds QEMU's cache of translated code: a third of the guest's memory, within limits.
TRANSLATION_CACHE_SHARE = 3
TRANSLATION_CACHE_MIN_BYTES = 40 * MIB
TRANSLATION_CACHE_MAX_BYTES = 256 * MIB
# Page tables: 8 bytes for each page of 4096.
GUEST_BYTES_PER_PAGE_TABLE_BYTE = 512

# What an instance gets that names no memory at all; admission refuses those, stored objects may be older.
DEFAULT_GUEST_BYTES = 128 * MIB


def vcpu_count(vmi: v1.VirtualMachineInstance) -> int:
    """Virtual processors of the guest: sockets × cores × threads, each 1 when not given."""
    cpu = vmi.spec.domain.cpu or v1.CPU()
    return (cpu.sockets or 1) * (cpu.cores or 1) * (cpu.threads or 1)


def guest_memory_bytes(vmi: v1.VirtualMachineInstance) -> int:
    """Memory the guest sees, in bytes: `memory.guest`, else the memory requested, else the memory limit."""
    domain = vmi.spec.domain
    resources = domain.resources or v1.ResourceRequirements()
    candidates = (
        domain.memory.guest if domain.memory else None,
        (resources.requests or {}).get("memory"),
        (resources.limits or {}).get("memory"),
    )
    return next((quantity_to_int(c) for c in candidates if c is not None), DEFAULT_GUEST_BYTES)


def has_graphics(vmi: v1.VirtualMachineInstance) -> bool:
    """The guest has a video card."""
    return vmi.spec.domain.devices.autoattach_graphics_device is not False


def _passt_bytes(vmi: v1.VirtualMachineInstance) -> int:
    interfaces = vmi.spec.domain.devices.interfaces or ()
    passt = [interface for interface in interfaces if interface.passt_binding is not None]
    all_ports = [interface for interface in passt if not interface.ports]
    return len(passt) * PASST_BYTES + len(all_ports) * PASST_ALL_PORTS_BYTES


def translation_cache_bytes(vmi: v1.VirtualMachineInstance) -> int:
    """What QEMU keeps of the code that it translates for a guest without KVM."""
    share = guest_memory_bytes(vmi) // TRANSLATION_CACHE_SHARE
    return min(max(share, TRANSLATION_CACHE_MIN_BYTES), TRANSLATION_CACHE_MAX_BYTES)


def memory_overhead_bytes(vmi: v1.VirtualMachineInstance, config: ClusterConfig) -> int:
    """Memory the pod needs beyond the guest's, in bytes, rounded up to a mebibyte.

    One virtual processor under KVM: 126 MiB and two per GiB of guest memory. Without KVM the translation cache is added.
    """
    overhead = (
        SUPERVISOR_BYTES
        + LAUNCHER_BYTES
        + LIBVIRTD_BYTES
        + QEMU_BYTES
        + len(vmi.spec.domain.devices.filesystems or ()) * VIRTIOFSD_BYTES
        + _passt_bytes(vmi)
        + vcpu_count(vmi) * VCPU_BYTES
        + (VIDEO_BYTES if has_graphics(vmi) else 0)
        + guest_memory_bytes(vmi) // GUEST_BYTES_PER_PAGE_TABLE_BYTE
        + (translation_cache_bytes(vmi) if config.use_emulation else 0)
    )
    mebibytes = (overhead * config.memory_overhead_ratio / MIB).to_integral_value(ROUND_CEILING)
    return int(mebibytes) * MIB


def compute_resources(vmi: v1.VirtualMachineInstance, config: ClusterConfig) -> dict[str, Any]:
    """Requests and limits of the `compute` container, as a pod spells them. What is neither processor nor memory is copied."""
    wanted = vmi.spec.domain.resources or v1.ResourceRequirements()
    wanted_requests, wanted_limits = wanted.requests or {}, wanted.limits or {}
    overhead = memory_overhead_bytes(vmi, config)
    requests: dict[str, Any] = {
        **wanted_requests,
        "cpu": _cpu_request(vmi, config),
        "memory": str(_backed_bytes(vmi, config) + overhead),
    }
    limits: dict[str, Any] = dict(wanted_limits)
    if "memory" in limits:
        limits["memory"] = str(quantity_to_int(limits["memory"]) + overhead)
    if not config.use_emulation:
        for device in (names.KVM_RESOURCE, names.VHOST_NET_RESOURCE):
            limits[device] = requests[device] = "1"
    return {"requests": requests, "limits": limits} if limits else {"requests": requests}


def _backed_bytes(vmi: v1.VirtualMachineInstance, config: ClusterConfig) -> int:
    """What is requested for the guest's own memory: what the manifest says, else the cluster's share of it."""
    requests = (vmi.spec.domain.resources or v1.ResourceRequirements()).requests or {}
    if "memory" in requests:
        return quantity_to_int(requests["memory"])
    return guest_memory_bytes(vmi) * 100 // config.memory_overcommit_percent


def _cpu_request(vmi: v1.VirtualMachineInstance, config: ClusterConfig) -> Any:
    """What the manifest says, else the cluster's setting, else a share of each virtual processor."""
    wanted = vmi.spec.domain.resources or v1.ResourceRequirements()
    for source in (wanted.requests, wanted.limits):
        if source and "cpu" in source:
            return source["cpu"]
    if config.cpu_request is not None:
        return config.cpu_request
    milli = Decimal(1000 * vcpu_count(vmi)) / config.cpu_allocation_ratio
    return f"{int(milli.to_integral_value(ROUND_CEILING))}m"
