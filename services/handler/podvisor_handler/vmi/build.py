"""VirtualMachineInstance and facts of its pod → DomainSpec. All policy of what a manifest means.

Invariant: pure. The same instance always becomes the same machine: addresses, identifiers and order
depend on nothing but the arguments.
"""

import hashlib
import ipaddress
from decimal import ROUND_CEILING

from podvisor.domain.v1 import domain_pb2
from podvisor_common.api import core, v1
from podvisor_common.api.quantity import parse_quantity, quantity_to_int
from podvisor_common.api.v1 import names

from podvisor_handler.network.facts import PodNetwork
from podvisor_handler.network.plan import BRIDGE, DEFAULT_GUEST_NETWORK, TAP, Masquerade, Port
from podvisor_handler.vmi.disks import build_disks
from podvisor_handler.vmi.errors import SpecRefused
from podvisor_handler.vmi.filesystems import build_filesystems
from podvisor_handler.vmi.identity import guest_hostname, machine_identity

_DEFAULT_MACHINE = "q35"
_DEFAULT_MODEL = "virtio"
_HOST_CPU_MODELS = ("host-model", "host-passthrough")


def build_domain(
    vmi: v1.VirtualMachineInstance, pod: core.Pod, network: PodNetwork | None
) -> domain_pb2.DomainSpec:
    """The machine that `vmi` describes, in `pod`, behind `network` (None when it has no interface).

    Raises SpecRefused for what admission should have refused.
    """
    domain, devices = vmi.spec.domain, vmi.spec.domain.devices
    firmware = domain.firmware or v1.Firmware()
    accelerator = accelerator_of(pod)
    serial_console = devices.autoattach_serial_console is not False
    return domain_pb2.DomainSpec(
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
        interfaces=_interfaces(vmi, network),
        grace_period_s=vmi.grace_period_s,
        start_paused=vmi.spec.start_strategy == names.START_PAUSED,
        graphics=devices.autoattach_graphics_device is not False,
        serial_console=serial_console,
        serial_log=serial_console and devices.log_serial_console is not False,
    )


def digest_of(spec: domain_pb2.DomainSpec) -> str:
    """What tells specifications apart, without what is confidential in them."""
    return hashlib.sha256(spec.SerializeToString(deterministic=True)).hexdigest()


def guest_memory_bytes(vmi: v1.VirtualMachineInstance) -> int:
    """What the guest sees, in bytes. Raises SpecRefused when nothing says it."""
    domain = vmi.spec.domain
    resources = domain.resources or v1.ResourceRequirements()
    candidates = (
        domain.memory.guest if domain.memory else None,
        (resources.requests or {}).get("memory"),
        (resources.limits or {}).get("memory"),
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


def masquerade_of(vmi: v1.VirtualMachineInstance) -> Masquerade | None:
    """How the guest is attached to the pod's network; None when it has no interface.

    Raises SpecRefused.
    """
    interface = pod_interface(vmi)
    if interface is None:
        return None
    networks = {network.name: network for network in vmi.spec.networks or ()}
    network = networks.get(interface.name)
    cidr = network.pod.vm_network_cidr if network and network.pod else ""
    try:
        # An address in the network names it, as admission allows.
        guest_network = ipaddress.IPv4Network(cidr or DEFAULT_GUEST_NETWORK, strict=False)
    except ValueError as error:
        raise SpecRefused(f"spec.networks: {error}") from error
    ports = {Port((port.protocol or "TCP").lower(), port.port) for port in interface.ports or ()}
    return Masquerade(str(guest_network), tuple(sorted(ports)))


def pod_interface(vmi: v1.VirtualMachineInstance) -> v1.Interface | None:
    """The interface on the pod's network: the first, or the one every machine has by default."""
    devices = vmi.spec.domain.devices
    if devices.interfaces:
        return devices.interfaces[0]
    if devices.autoattach_pod_interface is False:
        return None
    return v1.Interface(name="default", masquerade=v1.Masquerade())


def interface_mac(vmi: v1.VirtualMachineInstance, interface: v1.Interface) -> str:
    """The hardware address of the guest: as given, else locally administered and stable."""
    if interface.mac_address:
        return interface.mac_address.lower().replace("-", ":")
    text = f"{machine_identity(vmi)} {interface.name}"
    return "02:" + hashlib.sha256(text.encode()).digest()[:5].hex(":")


def cpu_topology(domain: v1.Domain) -> tuple[int, int, int]:
    """Sockets, cores and threads of the guest: as given, else as many sockets as processors are requested."""
    cpu = domain.cpu or v1.CPU()
    sockets = cpu.sockets
    if sockets is None and cpu.cores is None and cpu.threads is None:
        sockets = _processors_requested(domain.resources)
    return sockets or 1, cpu.cores or 1, cpu.threads or 1


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


def _processors_requested(resources: v1.ResourceRequirements | None) -> int:
    if resources is None:
        return 1
    amount = (resources.limits or {}).get("cpu") or (resources.requests or {}).get("cpu")
    if amount is None:
        return 1
    return max(1, int(parse_quantity(amount).to_integral_value(ROUND_CEILING)))


def _interfaces(
    vmi: v1.VirtualMachineInstance, network: PodNetwork | None
) -> list[domain_pb2.InterfaceSpec]:
    interface, masquerade = pod_interface(vmi), masquerade_of(vmi)
    if interface is None or masquerade is None or network is None:
        return []
    lease = domain_pb2.DhcpLease(
        bridge=BRIDGE,
        address=masquerade.guest,
        prefix_length=masquerade.prefix_length,
        gateway=masquerade.gateway,
        server=masquerade.gateway,
        dns_servers=network.resolver.servers,
        dns_search=network.resolver.search,
        hostname=guest_hostname(vmi),
    )
    return [
        domain_pb2.InterfaceSpec(
            name=interface.name,
            model=interface.model or _DEFAULT_MODEL,
            mac=interface_mac(vmi, interface),
            tap=TAP,
            mtu_bytes=network.mtu_bytes,
            boot_order=interface.boot_order or 0,
            dhcp=lease,
        )
    ]
