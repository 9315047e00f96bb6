"""VirtualMachineInstance and facts of its pod → DomainSpec. All policy of what a manifest means.

Invariant: pure. The same instance always becomes the same machine: addresses, identifiers and order
depend on nothing but the arguments.
"""

import hashlib

from podvisor.domain.v1 import domain_pb2
from podvisor_common.api import core, v1
from podvisor_common.api.quantity import quantity_to_int
from podvisor_common.api.v1 import names

from podvisor_handler.launchers.state import HARDWARE_SINCE
from podvisor_handler.network.facts import PodNetwork
from podvisor_handler.vmi.board import set_board
from podvisor_handler.vmi.credentials import build_credentials
from podvisor_handler.vmi.disks import build_disks
from podvisor_handler.vmi.errors import LauncherTooOld, SpecRefused
from podvisor_handler.vmi.filesystems import build_filesystems
from podvisor_handler.vmi.identity import machine_identity
from podvisor_handler.vmi.interfaces import build_interfaces
from podvisor_handler.vmi.peripherals import set_peripherals
from podvisor_handler.vmi.processors import cpu_topology

_DEFAULT_MACHINE = "q35"
# The numbers of the fields of DomainSpec that launchers know from a version of the contract on, by that version.
FIELDS_SINCE = {1: frozenset(range(1, 19)), HARDWARE_SINCE: frozenset({*range(19, 39), 40})}
_HOST_CPU_MODELS = ("host-model", "host-passthrough")


def build_domain(
    vmi: v1.VirtualMachineInstance,
    pod: core.Pod,
    network: PodNetwork | None,
    *,
    has_dhcpv6: bool = True,
    has_hardware: bool = True,
) -> domain_pb2.DomainSpec:
    """The machine that `vmi` describes, in `pod`, on `network` (None when it has no interface). `has_dhcpv6` and `has_hardware`
    say whether its launcher knows what that is.

    Raises SpecRefused for what admission should have refused, and LauncherTooOld.
    """
    domain, devices = vmi.spec.domain, vmi.spec.domain.devices
    firmware = domain.firmware or v1.Firmware()
    accelerator = accelerator_of(pod)
    serial_console = devices.autoattach_serial_console is not False
    spec = domain_pb2.DomainSpec(
        namespace=vmi.metadata.namespace,
        name=vmi.metadata.name,
        uid=vmi.metadata.uid,
        firmware_uuid=(firmware.uuid or machine_identity(vmi)).lower(),
        firmware_serial=firmware.serial,
        generation=vmi.metadata.generation or 1,
        cpu=_cpu(domain, accelerator),
        memory=domain_pb2.MemorySpec(guest_bytes=guest_memory_bytes(vmi)),
        machine_type=(domain.machine and domain.machine.type) or _DEFAULT_MACHINE,
        accelerator=accelerator,
        disks=build_disks(vmi, pod),
        filesystems=build_filesystems(vmi, pod),
        interfaces=build_interfaces(vmi, network, has_dhcpv6=has_dhcpv6),
        grace_period_s=vmi.grace_period_s,
        start_paused=vmi.spec.start_strategy == names.START_PAUSED,
        graphics=devices.autoattach_graphics_device is not False,
        serial_console=serial_console,
        access_credentials=build_credentials(vmi),
        serial_log=serial_console and devices.log_serial_console is not False,
    )
    set_board(spec, vmi, pod)
    set_peripherals(spec, vmi, pod)
    if not has_hardware:
        _check_hardware(spec, pod)
    return spec


def _check_hardware(spec: domain_pb2.DomainSpec, pod: core.Pod) -> None:
    """A launcher would ignore a field that it does not know, and start another machine than the one that is wanted."""
    used = [
        field.name for field, _ in spec.ListFields() if field.number in FIELDS_SINCE[HARDWARE_SINCE]
    ]
    if used:
        raise LauncherTooOld(
            f'the launcher in pod "{pod.metadata.name}" is of an earlier release, which cannot build {", ".join(used)};'
            " delete the instance and make it anew, then its pod is of this one"
        )


def digest_of(spec: domain_pb2.DomainSpec) -> str:
    """What tells specifications apart, without what is confidential in them."""
    return hashlib.sha256(spec.SerializeToString(deterministic=True)).hexdigest()


def guest_memory_bytes(vmi: v1.VirtualMachineInstance) -> int:
    """What the guest sees, in bytes. Raises SpecRefused when nothing says it."""
    domain = vmi.spec.domain
    memory, resources = domain.memory or v1.Memory(), domain.resources or v1.ResourceRequirements()
    candidates = (
        memory.guest,
        (resources.requests or {}).get("memory"),
        (resources.limits or {}).get("memory"),
        memory.hugepages.page_size if memory.hugepages is not None else None,
    )
    amount = next((quantity for quantity in candidates if quantity is not None), None)
    if amount is None:
        raise SpecRefused("spec.domain.memory.guest: how much memory the guest has is not given")
    return quantity_to_int(amount)


def accelerator_of(pod: core.Pod) -> domain_pb2.Accelerator.ValueType:
    """KVM exactly when the pod was given it by the device plugin, which knows whether it works."""
    for container in pod.spec.containers or ():
        resources = container.resources or core.ResourceRequirements()
        if names.KVM_RESOURCE in {**(resources.requests or {}), **(resources.limits or {})}:
            return domain_pb2.ACCELERATOR_KVM
    return domain_pb2.ACCELERATOR_TCG


def _cpu(domain: v1.Domain, accelerator: domain_pb2.Accelerator.ValueType) -> domain_pb2.CpuSpec:
    model = domain.cpu.model if domain.cpu else ""
    sockets, cores, threads = cpu_topology(domain)
    emulated = accelerator == domain_pb2.ACCELERATOR_TCG
    return domain_pb2.CpuSpec(
        sockets=sockets,
        cores=cores,
        threads=threads,
        model="" if emulated and model in _HOST_CPU_MODELS else model,
    )
