"""Interfaces of a manifest → how they are attached to the pod, and the devices that the guest gets.

Invariant: pure. The same instance always has the same devices, whatever of its networks is there already.
"""

import hashlib
import ipaddress

from podvisor.domain.v1 import domain_pb2
from podvisor_common.api import v1
from podvisor_common.api.v1.names import InterfaceState
from podvisor_common.launcher_pod import secondary_interface_name

from podvisor_handler.network.attachments import (
    DEFAULT_GUEST_NETWORK,
    DEFAULT_GUEST_NETWORK6,
    Attachment,
    Bridge,
    GuestNetwork,
    Masquerade,
    Passt,
    Port,
)
from podvisor_handler.network.facts import Attached, PodNetwork, further_routes, gateway_of
from podvisor_handler.network.names import server_of
from podvisor_handler.vmi.absence import proves_absence
from podvisor_handler.vmi.errors import SpecRefused
from podvisor_handler.vmi.identity import guest_hostname, machine_identity
from podvisor_handler.vmi.processors import cpu_topology

DEFAULT_MODEL = "virtio"
_QUEUES_LIMIT = 16


def attachments_of(
    vmi: v1.VirtualMachineInstance,
    report: domain_pb2.DomainReport | None,
    wired: PodNetwork | None,
    *,
    runs: bool,
) -> tuple[Attachment, ...]:
    """How the guest shall be attached to the networks of its pod. A guest that `runs` does not wait for what came into its manifest
    later, and what it is to lose stays as long as it may have it, if it is `wired` or nobody knows what is. Raises SpecRefused."""
    networks = {network.name: network for network in vmi.spec.networks or ()}
    return tuple(
        _attachment(vmi, interface, networks.get(interface.name), runs=runs)
        for interface in interfaces_of(vmi)
        if interface.state != InterfaceState.ABSENT
        or ((wired is None or wired.of(interface.name)) and may_be_held(vmi, interface, report))
    )


def may_be_held(
    vmi: v1.VirtualMachineInstance,
    interface: v1.Interface,
    report: domain_pb2.DomainReport | None,
) -> bool:
    """Whether the guest may have a device, or get it yet, that its manifest wants no more."""
    if not proves_absence(report, vmi.metadata.generation or 1):
        return True
    return report is not None and any(each.name == interface.name for each in report.interfaces)


def interfaces_of(vmi: v1.VirtualMachineInstance) -> list[v1.Interface]:
    """The interfaces of the manifest, or the one that every machine has by default. One whose last interface has left has an empty
    list: nobody is given another one for that."""
    devices = vmi.spec.domain.devices
    if devices.interfaces is not None:
        return list(devices.interfaces)
    if devices.autoattach_pod_interface is False:
        return []
    return [v1.Interface(name="default", masquerade=v1.Masquerade())]


def interface_mac(
    vmi: v1.VirtualMachineInstance, interface: v1.Interface, attached: Attached | None = None
) -> str:
    """The hardware address of the guest: as given, else what the pod's interface had if the guest takes it over, else locally
    administered, by the machine's identity. An instance keeps the one that it has got, also when another machine adopts it."""
    if interface.mac_address:
        return _plain_mac(interface)
    if attached is not None and isinstance(attached.attachment.binding, Bridge):
        return attached.mac
    for told in vmi.status.interfaces or ():
        if told.name == interface.name and told.mac:
            return told.mac
    text = f"{machine_identity(vmi)} {interface.name}"
    return "02:" + hashlib.sha256(text.encode()).digest()[:5].hex(":")


def build_interfaces(
    vmi: v1.VirtualMachineInstance, network: PodNetwork | None, *, has_dhcpv6: bool
) -> list[domain_pb2.InterfaceSpec]:
    """The network devices of the guest whose networks are there. A launcher that has no DHCPv6 is told of none. Raises
    SpecRefused."""
    if network is None:
        return []
    specs = []
    for interface in interfaces_of(vmi):
        attached = network.of(interface.name)
        if attached is not None and interface.state != InterfaceState.ABSENT:
            spec = _spec(vmi, interface, attached, network)
            if not has_dhcpv6:
                spec.ClearField("dhcpv6")
            specs.append(spec)
    return specs


def _attachment(
    vmi: v1.VirtualMachineInstance,
    interface: v1.Interface,
    network: v1.Network | None,
    *,
    runs: bool,
) -> Attachment:
    is_secondary = network is not None and network.multus is not None and not network.multus.default
    return Attachment(
        network=interface.name,
        binding=_binding(vmi, interface, network),
        pod_interface=secondary_interface_name(interface.name) if is_secondary else None,
        queues=_queues(vmi, interface),
        may_come_later=is_secondary and (runs or interface.state == InterfaceState.ABSENT),
    )


def _binding(
    vmi: v1.VirtualMachineInstance, interface: v1.Interface, network: v1.Network | None
) -> Masquerade | Bridge | Passt:
    ports = tuple(
        sorted(
            {Port((port.protocol or "TCP").lower(), port.port) for port in interface.ports or ()}
        )
    )
    if interface.bridge is not None:
        return Bridge(_plain_mac(interface))
    if interface.passt_binding is not None:
        return Passt(ports)
    pod = (network.pod if network else None) or v1.PodNetwork()
    return Masquerade(
        interface_mac(vmi, interface),
        _guest_network(interface.name, "vmNetworkCIDR", pod.vm_network_cidr, 4),
        _guest_network(interface.name, "vmIPv6NetworkCIDR", pod.vm_ipv6_network_cidr, 6),
        ports,
    )


def _guest_network(name: str, field: str, cidr: str, version: int) -> GuestNetwork:
    try:
        # An address in the network names it, as admission allows.
        network = ipaddress.ip_network(
            cidr or (DEFAULT_GUEST_NETWORK if version == 4 else DEFAULT_GUEST_NETWORK6),
            strict=False,
        )
    except ValueError as error:
        raise SpecRefused(f'spec.networks "{name}": pod.{field}: {error}') from error
    if network.version != version or network.num_addresses < 4:
        raise SpecRefused(
            f'spec.networks "{name}": pod.{field}: {cidr} is no IPv{version} network with room for a guest and its gateway'
        )
    return GuestNetwork(str(network))


def _queues(vmi: v1.VirtualMachineInstance, interface: v1.Interface) -> int:
    """Of a tap device; passt is one stream."""
    can_have_several = (interface.model or DEFAULT_MODEL) == DEFAULT_MODEL
    can_have_several = can_have_several and interface.passt_binding is None
    if not vmi.spec.domain.devices.network_interface_multiqueue or not can_have_several:
        return 1
    sockets, cores, threads = cpu_topology(vmi.spec.domain)
    return min(sockets * cores * threads, _QUEUES_LIMIT)


def _spec(
    vmi: v1.VirtualMachineInstance,
    interface: v1.Interface,
    attached: Attached,
    network: PodNetwork,
) -> domain_pb2.InterfaceSpec:
    attachment = attached.attachment
    is_bridge = isinstance(attachment.binding, Bridge)
    spec = domain_pb2.InterfaceSpec(
        name=interface.name,
        model=interface.model or DEFAULT_MODEL,
        mac=interface_mac(vmi, interface, attached),
        mtu_bytes=attached.mtu_bytes,
        boot_order=interface.boot_order or 0,
        link_down=interface.state == InterfaceState.DOWN,
        queues=attachment.queues if attachment.queues > 1 else 0,
        pci_address=interface.pci_address,
        acpi_index=interface.acpi_index or 0,
        is_pluggable=is_bridge and attachment.pod_interface is not None,
    )
    match attachment.binding:
        case Passt(ports):
            spec.passt.pod_interface = attached.pod_interface
            for port in ports:
                spec.passt.ports.add(protocol=port.protocol, number=port.number)
            return spec
        case Masquerade() as binding:
            if attached.addresses4:
                spec.dhcp.CopyFrom(_private_lease(attached, binding))
            if attached.addresses6:
                spec.dhcpv6.CopyFrom(_private_lease6(attached, binding, network))
        case Bridge():
            if attached.addresses4:
                spec.dhcp.CopyFrom(_pods_lease(attached))
    spec.tap = attachment.tap
    if spec.HasField("dhcp"):
        _tell(spec.dhcp, vmi, interface, network)
    return spec


def _private_lease(attached: Attached, binding: Masquerade) -> domain_pb2.DhcpLease:
    return domain_pb2.DhcpLease(
        bridge=attached.attachment.bridge,
        address=binding.network.guest,
        prefix_length=binding.network.prefix_length,
        gateway=binding.network.gateway,
        server=binding.network.gateway,
    )


def _private_lease6(
    attached: Attached, binding: Masquerade, network: PodNetwork
) -> domain_pb2.Dhcpv6Lease:
    return domain_pb2.Dhcpv6Lease(
        bridge=attached.attachment.bridge,
        address=binding.network6.guest,
        dns_servers=network.resolver.servers6,
        dns_search=network.resolver.search,
    )


def _pods_lease(attached: Attached) -> domain_pb2.DhcpLease:
    address = ipaddress.IPv4Interface(attached.addresses4[0])
    return domain_pb2.DhcpLease(
        bridge=attached.attachment.bridge,
        address=str(address.ip),
        prefix_length=address.network.prefixlen,
        gateway=gateway_of(attached),
        server=server_of(attached.attachment.stem),
        routes=[
            domain_pb2.Route(destination=route.destination, gateway=route.gateway)
            for route in further_routes(attached)
        ],
    )


def _tell(
    lease: domain_pb2.DhcpLease,
    vmi: v1.VirtualMachineInstance,
    interface: v1.Interface,
    network: PodNetwork,
) -> None:
    """What the guest is told by DHCP besides its address."""
    lease.dns_servers.extend(network.resolver.servers)
    lease.dns_search.extend(network.resolver.search)
    lease.hostname = guest_hostname(vmi)
    options = interface.dhcp_options or v1.DHCPOptions()
    lease.ntp_servers.extend(options.ntp_servers or ())
    lease.boot_file_name = options.boot_file_name
    lease.tftp_server_name = options.tftp_server_name
    for option in options.private_options or ():
        lease.private_options.add(code=option.option, value=option.value)


def _plain_mac(interface: v1.Interface) -> str:
    return interface.mac_address.lower().replace("-", ":")
