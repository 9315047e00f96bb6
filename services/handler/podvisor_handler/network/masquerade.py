"""A guest with private addresses behind its pod's: what the namespace needs for it. What it may send on its link, guard.py says.

Invariant: pure. Readable form of the tables that tables_of() makes, for a guest behind `eth0` of 10.244.1.5 with all ports; that of
IPv6 is alike, and in its first chain has two rules more:

            iifname "k6t-eth0" ip6 daddr != fd10:0:2::1 ip6 daddr fd10:0:2::-fd10:0:2::ff drop
            iifname "k6t-eth0" ip6 daddr != fe80::1 ip6 daddr != fe80::ff:fe00:0 ip6 daddr fe80::/64 drop

    table ip podvisor {
        chain honest { type filter hook prerouting priority raw;
            iifname "eth0" ip daddr 10.0.2.2 drop
            iifname "k6t-eth0" ip daddr 127.0.0.0/8 drop }
        chain forward { type filter hook forward priority filter;
            iifname "k6t-eth0" ip saddr != 10.0.2.2 drop
            iifname "k6t-eth0" oifname "k6t-eth0" ip daddr != 10.0.2.2 drop }
        chain prerouting { type nat hook prerouting priority dstnat;
            iifname "eth0" jump to-guest
            iifname "k6t-eth0" ip daddr 10.244.1.5 jump to-guest }
        chain output { type nat hook output priority dstnat;
            oifname "lo" ip daddr 127.0.0.1 jump to-guest
            oifname "lo" ip daddr 10.244.1.5 jump to-guest }
        chain to-guest {
            dnat to 10.0.2.2 }                # only `meta l4proto . th dport @ports` where ports are listed
        chain postrouting { type nat hook postrouting priority srcnat;
            oifname "eth0" ip saddr 10.0.2.2 masquerade
            oifname "k6t-eth0" ip saddr 127.0.0.1 snat to 10.0.2.1
            oifname "k6t-eth0" ip saddr 10.244.1.5 snat to 10.0.2.1
            oifname "k6t-eth0" ip saddr 10.0.2.2 snat to 10.0.2.1 }
    }
"""

import ipaddress
import socket
from collections.abc import Iterator, Sequence

from podvisor_handler.linux.nft_rules import (
    Base,
    Rule,
    drop,
    enters_by,
    from_source,
    goes_to_port_in,
    has,
    has_not,
    is_between,
    jump,
    leaves_by,
    masquerade,
    to_destination,
    transport_port,
)
from podvisor_handler.linux.nftables import (
    FORWARD,
    OUTPUT,
    POSTROUTING,
    PREROUTING,
    Chain,
    Family,
    Hook,
    Key,
    Set,
    Table,
)
from podvisor_handler.network.attachments import GuestNetwork, Masquerade, Port
from podvisor_handler.network.facts import Attached
from podvisor_handler.network.guard import Guest, link_local
from podvisor_handler.network.names import BRIDGE_MAC, ROUTER_ADDRESS
from podvisor_handler.network.namespace import (
    AddAddress,
    ConfigureLink,
    CreateBridge,
    Observed,
    Operation,
    TakeLoopback,
    WriteSysctl,
)

_PRIORITY_RAW, _PRIORITY_DSTNAT, _PRIORITY_FILTER, _PRIORITY_SRCNAT = -300, -100, 0, 100
# Offsets of the source and the destination.
_SOURCE = {Family.IP: 12, Family.IP6: 8}
_DESTINATION = {Family.IP: 16, Family.IP6: 24}
_LOOPBACK = {Family.IP: "127.0.0.1", Family.IP6: "::1"}
_LOOPBACK_NETWORK = {Family.IP: b"\x7f", Family.IP6: ipaddress.ip_address("::1").packed}


def sysctls_of(now: Observed, attached: Attached) -> dict[str, str]:
    """What the namespace shall be set to so that the guest's packets are routed."""
    wanted = {}
    if attached.addresses4:
        wanted["net/ipv4/ip_forward"] = "1"
    if attached.addresses6 and now.has_ipv6:
        # A router takes no router's word, and forgets what it was told, unless it is told to. So this comes first.
        accept = f"net/ipv6/conf/{attached.pod_interface}/accept_ra"
        if now.sysctls.get(accept) == "1":
            wanted[accept] = "2"
        wanted["net/ipv6/conf/all/forwarding"] = "1"
    return wanted


def links_of(now: Observed, attached: Attached, binding: Masquerade) -> list[Operation]:
    """Makes the bridge with the gateway's addresses."""
    bridge, mtu_bytes = attached.attachment.bridge, attached.mtu_bytes
    operations: list[Operation] = []
    found = now.links.get(bridge)
    if found is None:
        operations.append(CreateBridge(bridge, BRIDGE_MAC, mtu_bytes))
    elif found.mtu_bytes != mtu_bytes or not found.up:
        operations.append(ConfigureLink(bridge, mtu_bytes))
    wanted: list[str] = []
    sysctls: dict[str, str] = {}
    if attached.addresses4:
        # What comes from the pod's loopback is sent on to the guest.
        sysctls[f"net/ipv4/conf/{bridge}/route_localnet"] = "1"
        wanted.append(f"{binding.network.gateway}/{binding.network.prefix_length}")
    if attached.addresses6 and now.has_ipv6:
        sysctls[f"net/ipv6/conf/{bridge}/disable_ipv6"] = "0"
        wanted += [
            f"{binding.network6.gateway}/{binding.network6.prefix_length}",
            f"{ROUTER_ADDRESS}/64",
        ]
    operations += [
        WriteSysctl(path, value)
        for path, value in sysctls.items()
        if now.sysctls.get(path) != value
    ]
    known = now.addresses.get(bridge, ())
    operations += [AddAddress(bridge, address) for address in wanted if address not in known]
    if attached.addresses6 and now.has_ipv6 and bridge not in now.loopbacks:
        # What there is in place of route_localnet.
        operations.append(TakeLoopback(bridge))
    return operations


def guest_of(attached: Attached, binding: Masquerade) -> Guest:
    """Who the guest is on its link to the pod."""
    return Guest(
        tap=attached.attachment.tap,
        pod_interface="",
        mac=binding.mac,
        addresses4=(binding.network.guest,) if attached.addresses4 else (),
        addresses6=(binding.network6.guest,) if attached.addresses6 else (),
        dhcp_server=binding.network.gateway if attached.addresses4 else "",
    )


def tables_of(attached: Attached, binding: Masquerade) -> list[Table]:
    """The address translation."""
    tables = []
    if attached.addresses4:
        tables.append(_table(Family.IP, attached, attached.addresses4, binding.network, binding))
    if attached.addresses6:
        tables.append(_table(Family.IP6, attached, attached.addresses6, binding.network6, binding))
    return tables


def _table(
    family: Family,
    attached: Attached,
    addresses: Sequence[str],
    network: GuestNetwork,
    binding: Masquerade,
) -> Table:
    bridge, outside = attached.attachment.bridge, attached.pod_interface
    guest, gateway = _packed(network.guest), _packed(network.gateway)
    own = [_packed(address) for address in addresses]
    local = [_packed(_LOOPBACK[family]), *own]
    ports, to_guest = _set_of(binding.ports), to_destination(guest)
    source, destination = _SOURCE[family], _DESTINATION[family]
    return Table(
        family,
        (
            *_filters(family, attached, network),
            Chain(
                "prerouting",
                [
                    [*enters_by(outside), jump("to-guest")],
                    *(
                        [
                            *enters_by(bridge),
                            *has(Base.NETWORK, destination, address),
                            jump("to-guest"),
                        ]
                        for address in own
                    ),
                ],
                Hook("nat", PREROUTING, _PRIORITY_DSTNAT),
            ),
            Chain(
                "output",
                [
                    [*leaves_by("lo"), *has(Base.NETWORK, destination, address), jump("to-guest")]
                    for address in local
                ],
                Hook("nat", OUTPUT, _PRIORITY_DSTNAT),
            ),
            Chain(
                "to-guest",
                [[*goes_to_port_in(ports.name), *to_guest] if binding.ports else to_guest],
            ),
            Chain(
                "postrouting",
                [
                    [*leaves_by(outside), *has(Base.NETWORK, source, guest), masquerade()],
                    *(
                        [
                            *leaves_by(bridge),
                            *has(Base.NETWORK, source, address),
                            *from_source(gateway),
                        ]
                        # The guest itself is there when it asks for its pod's address.
                        for address in (*local, guest)
                    ),
                ],
                Hook("nat", POSTROUTING, _PRIORITY_SRCNAT),
            ),
        ),
        (ports,) if binding.ports else (),
    )


def _filters(family: Family, attached: Attached, network: GuestNetwork) -> Iterator[Chain]:
    """What is not translated but dropped."""
    bridge, outside = attached.attachment.bridge, attached.pod_interface
    guest, destination = _packed(network.guest), _DESTINATION[family]
    loopback = _LOOPBACK_NETWORK[family]
    yield Chain(
        "honest",
        [
            # Outside there is no such address: who shares the pod's link would get past the list of ports.
            [*enters_by(outside), *has(Base.NETWORK, destination, guest), drop()],
            # The bridge routes to the loopback, for the pod's own processes alone.
            [*enters_by(bridge), *has(Base.NETWORK, destination, loopback), drop()],
            *(_no_redirection(bridge, network) if family == Family.IP6 else ()),
        ],
        Hook("filter", PREROUTING, _PRIORITY_RAW),
    )
    # No container without NET_RAW can send under an address that is not its pod's; nor shall a guest.
    forged = [*enters_by(bridge), *has_not(Base.NETWORK, _SOURCE[family], guest), drop()]
    # Nobody else is on its link. Whom the kernel looks for there takes a place in the table of neighbours of all pods.
    others = has_not(Base.NETWORK, destination, guest)
    nobody = [*enters_by(bridge), *leaves_by(bridge), *others, drop()]
    yield Chain("forward", [forged, nobody], Hook("filter", FORWARD, _PRIORITY_FILTER))


def _no_redirection(bridge: str, network: GuestNetwork) -> Iterator[Rule]:
    """Of IPv6 the kernel notes whom it would redirect the guest to before it asks whether to forward."""
    destination = _DESTINATION[Family.IP6]
    first, last = map(_packed, network.range)
    gateway = has_not(Base.NETWORK, destination, _packed(network.gateway))
    own = is_between(Base.NETWORK, destination, first, last)
    yield [*enters_by(bridge), *gateway, *own, drop()]
    # The second one the kernel makes of the bridge's hardware address.
    routers = (ROUTER_ADDRESS, link_local(BRIDGE_MAC))
    others = [each for it in routers for each in has_not(Base.NETWORK, destination, _packed(it))]
    near = has(Base.NETWORK, destination, _packed(ROUTER_ADDRESS)[:8])
    yield [*enters_by(bridge), *others, *near, drop()]


def _set_of(ports: Sequence[Port]) -> Set:
    protocols = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP}
    elements = [transport_port(protocols[port.protocol], port.number) for port in sorted(ports)]
    return Set("ports", Key.TRANSPORT_PORT, elements)


def _packed(address: str) -> bytes:
    return ipaddress.ip_interface(address).packed
