"""What is offered to the guest on which bridge. Pure."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from uuid import UUID, uuid5

from podvisor.domain.v1 import domain_pb2 as pb

from podvisor_launcher.dhcp.packet import Lease, Route
from podvisor_launcher.dhcp.packet6 import Lease6, server_duid

_PRIVATE_OPTIONS = range(224, 255)
_PRIVATE_OPTION_BYTES = 255


@dataclass(frozen=True, slots=True)
class Offer:
    """A lease for the interface with the hardware address `mac`."""

    interface: str
    mac: str
    lease: Lease


@dataclass(frozen=True, slots=True)
class Offer6:
    """A lease for the one guest on a bridge, whatever it calls itself."""

    interface: str
    lease: Lease6


def offers_by_bridge(spec: pb.DomainSpec) -> dict[str, tuple[Offer, ...]]:
    """What to offer by DHCPv4 on which bridge. Raises ValueError for an address that is none."""
    offers: dict[str, tuple[Offer, ...]] = {}
    for interface in spec.interfaces:
        if interface.HasField("dhcp"):
            offer = Offer(interface.name, interface.mac.lower(), _lease(interface))
            bridge = interface.dhcp.bridge
            offers[bridge] = (*offers.get(bridge, ()), offer)
    return offers


def offers6_by_bridge(spec: pb.DomainSpec) -> dict[str, Offer6]:
    """What to offer by DHCPv6 on which bridge. Raises ValueError for an address that is none."""
    return {
        interface.dhcpv6.bridge: Offer6(interface.name, _lease6(interface, spec.uid))
        for interface in spec.interfaces
        if interface.HasField("dhcpv6")
    }


def _lease(interface: pb.InterfaceSpec) -> Lease:
    dhcp = interface.dhcp
    return Lease(
        address=IPv4Address(dhcp.address),
        network=IPv4Network((dhcp.address, dhcp.prefix_length), strict=False),
        server=IPv4Address(dhcp.server),
        gateway=IPv4Address(dhcp.gateway) if dhcp.gateway else None,
        dns_servers=tuple(IPv4Address(each) for each in dhcp.dns_servers),
        dns_search=tuple(dhcp.dns_search),
        hostname=dhcp.hostname,
        mtu_bytes=interface.mtu_bytes,
        routes=tuple(
            Route(
                IPv4Network(each.destination, strict=False),
                IPv4Address(each.gateway) if each.gateway else None,
            )
            for each in dhcp.routes
        ),
        ntp_servers=tuple(IPv4Address(each) for each in dhcp.ntp_servers),
        boot_file=dhcp.boot_file_name,
        tftp_server=dhcp.tftp_server_name,
        private_options=tuple(_private_option(each) for each in dhcp.private_options),
    )


def _lease6(interface: pb.InterfaceSpec, uid: str) -> Lease6:
    dhcp = interface.dhcpv6
    return Lease6(
        address=IPv6Address(dhcp.address),
        server=server_duid(uuid5(UUID(uid), interface.name)),
        dns_servers=tuple(IPv6Address(each) for each in dhcp.dns_servers),
        dns_search=tuple(dhcp.dns_search),
    )


def _private_option(option: pb.DhcpOption) -> tuple[int, bytes]:
    value = option.value.encode()
    if option.code not in _PRIVATE_OPTIONS or len(value) > _PRIVATE_OPTION_BYTES:
        raise ValueError(
            f"option {option.code} must be from 224 to 254 and hold at most {_PRIVATE_OPTION_BYTES} bytes"
        )
    return option.code, value
