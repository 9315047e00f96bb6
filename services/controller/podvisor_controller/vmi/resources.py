"""What a launcher pod asks of its node: memory, processor time, devices. Pure.

Invariant: the memory request covers everything the pod makes resident, so that the scheduler's books are right; the
terms below are checked against measured memory by the benchmarks.
"""

from decimal import ROUND_CEILING, Decimal
from typing import Any

from podvisor_common.api import v1
from podvisor_common.api.quantity import format_bytes, quantity_to_int
from podvisor_common.api.v1 import names
from podvisor_common.launcher_pod import KERNEL_LIMIT_BYTES

from podvisor_controller.config import ClusterConfig
from podvisor_controller.vmi.kernel import kernel_container
from podvisor_controller.vmi.probes import agent_probes

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
# What the container runtime needs for the moment in which it starts a program in the container, once for each probe.
PROBE_BYTES = 10 * MIB
# Stack, state and I/O buffers of one virtual processor.
VCPU_BYTES = 4 * MIB
# Frame buffer of the video card and what VNC keeps of it.
VIDEO_BYTES = 16 * MIB
# Of a card on bus virtio, whose guest has frame buffers made as it needs them: one of 3840 × 2160 points, and what VNC keeps of it.
VIRTIO_VIDEO_BYTES = 64 * MIB
# The firmware's image and variables, and what QEMU keeps of them.
EFI_BYTES = 10 * MIB
# The process that is the guest's TPM.
TPM_BYTES = 10 * MIB
# Stack and state of a thread that handles requests of disks.
IO_THREAD_BYTES = 1 * MIB
# Of them under policy `auto`: so many for each processor, and no more than disks.
IO_THREADS_PER_VCPU = 2
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
    """Memory the guest sees, in bytes: `memory.guest`, else the memory requested, else the memory limit, else one large page."""
    domain = vmi.spec.domain
    memory, resources = domain.memory or v1.Memory(), domain.resources or v1.ResourceRequirements()
    candidates = (
        memory.guest,
        (resources.requests or {}).get("memory"),
        (resources.limits or {}).get("memory"),
        memory.hugepages.page_size if memory.hugepages is not None else None,
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


def _video_bytes(vmi: v1.VirtualMachineInstance) -> int:
    if not has_graphics(vmi):
        return 0
    video = vmi.spec.domain.devices.video
    return VIRTIO_VIDEO_BYTES if video is not None and video.type == "virtio" else VIDEO_BYTES


def _board_bytes(vmi: v1.VirtualMachineInstance) -> int:
    """What firmware, a kernel that QEMU starts, TPM and I/O threads take."""
    domain = vmi.spec.domain
    bootloader = domain.firmware.bootloader if domain.firmware is not None else None
    tpm = domain.devices.tpm
    return (
        (EFI_BYTES if bootloader is not None and bootloader.efi is not None else 0)
        + (KERNEL_LIMIT_BYTES if kernel_container(vmi) is not None else 0)
        + (TPM_BYTES if tpm is not None and tpm.enabled is not False else 0)
        + _io_threads(vmi) * IO_THREAD_BYTES
    )


def _io_threads(vmi: v1.VirtualMachineInstance) -> int:
    """How many of them there are at most, beside those that disks have for themselves."""
    domain = vmi.spec.domain
    match domain.io_threads_policy:
        case "shared":
            return 1
        case "auto":
            disks = len(domain.devices.disks or ())
            return min(disks, vcpu_count(vmi) * IO_THREADS_PER_VCPU)
        case "supplementalPool" if domain.io_threads is not None:
            return domain.io_threads.supplemental_pool_thread_count or 0
    return 0


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
        + _board_bytes(vmi)
        + agent_probes(vmi) * PROBE_BYTES
        + vcpu_count(vmi) * VCPU_BYTES
        + _video_bytes(vmi)
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
        "memory": str(
            _backed_bytes(vmi, config) + (0 if wanted.overcommit_guest_overhead else overhead)
        ),
    }
    limits: dict[str, Any] = dict(wanted_limits)
    if "memory" in limits:
        limits["memory"] = str(_beside_hugepages(vmi, quantity_to_int(limits["memory"])) + overhead)
    if (page := hugepage_resource(vmi)) is not None:
        limits[page] = requests[page] = str(guest_memory_bytes(vmi))
    if not config.use_emulation:
        for device in (names.KVM_RESOURCE, names.VHOST_NET_RESOURCE):
            limits[device] = requests[device] = "1"
    return {"requests": requests, "limits": limits} if limits else {"requests": requests}


def hugepage_resource(vmi: v1.VirtualMachineInstance) -> str | None:
    """The resource of nodes that the guest's memory is made of; None for ordinary memory."""
    memory = vmi.spec.domain.memory
    if memory is None or memory.hugepages is None:
        return None
    return f"hugepages-{format_bytes(quantity_to_int(memory.hugepages.page_size))}"


def _beside_hugepages(vmi: v1.VirtualMachineInstance, amount_bytes: int) -> int:
    """What of an amount of memory is ordinary memory: large pages are a resource of their own."""
    if hugepage_resource(vmi) is None:
        return amount_bytes
    return max(amount_bytes - guest_memory_bytes(vmi), 0)


def _backed_bytes(vmi: v1.VirtualMachineInstance, config: ClusterConfig) -> int:
    """What is requested for the guest's own memory, but for large pages: what the manifest says, else the cluster's share of it."""
    requests = (vmi.spec.domain.resources or v1.ResourceRequirements()).requests or {}
    if "memory" in requests:
        return _beside_hugepages(vmi, quantity_to_int(requests["memory"]))
    if hugepage_resource(vmi) is not None:
        return 0
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
