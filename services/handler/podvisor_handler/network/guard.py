"""What a guest may send to the link behind its tap device, as a table of the family `bridge`.

Invariant: pure. On a network whose addresses the cluster hands out, a guest speaks under the hardware address and the addresses
that are its own, in Ethernet, ARP, IPv4, IPv6 and neighbour discovery, and announces no router. Where nobody hands out
addresses only the hardware address is known, and the rest is the guest's own affair. The pod's bridge itself is of no
concern to the network, nothing passes between the two; to the guest it is a DHCP server and nothing else.

A guest with private addresses shares its link with its pod alone, which routes for it. It is held to its hardware address and to
its addresses too: whom it passes for, the kernel notes in a table of neighbours that all pods of a node share. Link-local
addresses it may make up as it likes, but only a few in an hour.

Readable form of guard_of(), for a guest with 10.244.1.5 and without IPv6; the first three chains are shared by all guests of a pod:

    table bridge podvisor {
        chain prerouting { type filter hook prerouting priority filter;
            iifname "tap0" jump tap0 }
        chain input { type filter hook input priority filter;
            iifname "eth0" drop
            iifname "tap0" ether type arp accept
            iifname "tap0" ether type ip udp dport 67 ip daddr { 169.254.75.10, 255.255.255.255 } accept
            iifname "tap0" drop }
        chain output { type filter hook output priority filter;
            oifname "eth0" drop }
        chain forward { type filter hook forward priority filter;
            iifname "tap0" ether type ip udp dport 67 drop
            oifname "tap0" ether type ip udp sport 67 drop }
        chain tap0 {
            ether saddr != 02:11:22:33:44:55 drop
            ether type arp arp saddr ether != 02:11:22:33:44:55 drop
            ether type arp arp saddr ip 10.244.1.5 accept
            ether type arp arp saddr ip 0.0.0.0 arp daddr ip 10.244.1.5 accept
            ether type ip udp dport 67 ip saddr 0.0.0.0 accept
            ether type ip udp dport 67 ip daddr 169.254.75.10 ether daddr set 02:00:00:00:00:00 meta pkttype set host accept
            ether type ip ip saddr 10.244.1.5 accept
            ether type 0x8035 accept
            drop }
    }

And for one with 10.0.2.2 and fd10:0:2::2 behind its pod, which needs none of the chains input, output and forward:

        set tap0-link-locals { type ipv6_addr; flags dynamic,timeout; size 8; timeout 1h; }
        chain tap0 {
            ether saddr != 02:11:22:33:44:55 drop
            ether type arp arp saddr ether != 02:11:22:33:44:55 drop
            ether type arp arp saddr ip 10.0.2.2 accept
            ether type arp arp saddr ip 0.0.0.0 arp daddr ip 10.0.2.2 accept
            ether type ip udp dport 67 ip saddr 0.0.0.0 accept
            ether type ip ip saddr 10.0.2.2 accept
            ether type ip6 icmpv6 type { nd-router-advert, nd-redirect } drop    # a rule each
            ether type ip6 meta l4proto ipv6-icmp ip6 saddr :: accept
            ether type ip6 ip6 saddr fe80::/64 update @tap0-link-locals { ip6 saddr } accept
            ether type ip6 ip6 saddr fd10:0:2::2 accept
            ether type 0x8035 accept
            drop }
"""

import ipaddress
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from podvisor_handler.linux.nft_rules import (
    Base,
    Rule,
    accept,
    back,
    carries,
    drop,
    enters_by,
    goes_to_port,
    has,
    has_not,
    is_one_of_few,
    jump,
    leaves_by,
    write_hardware_destination,
)
from podvisor_handler.linux.nftables import (
    FORWARD,
    INPUT,
    OUTPUT,
    PREROUTING,
    Chain,
    Family,
    Hook,
    Key,
    Set,
    Table,
)
from podvisor_handler.network.names import BRIDGE_MAC

_PRIORITY_FILTER = -200
_DHCP_SERVER_PORT = 67
_EVERYBODY = "255.255.255.255"
_ARP, _IP, _IP6 = b"\x08\x06", b"\x08\x00", b"\x86\xdd"
_RARP = b"\x80\x35"  # by which QEMU announces a guest that has moved
_ROUTER_ADVERTISEMENT, _NEIGHBOUR_SOLICITATION, _NEIGHBOUR_ADVERTISEMENT, _REDIRECT = (
    134,
    135,
    136,
    137,
)
_LISTENER_REPORT = 143
_UNSPECIFIED6 = bytes(16)
_LINK_LOCAL = ipaddress.ip_address("fe80::").packed[:8]
_LINK_LOCALS, _LINK_LOCAL_LIFETIME_S = 8, 3600


@dataclass(frozen=True, slots=True)
class Guest:
    """Who speaks on a link. Addresses are without prefix length. `pod_interface` is what connects the link to others, empty for
    one that ends in the pod."""

    tap: str
    pod_interface: str
    mac: str
    addresses4: tuple[str, ...] = ()
    addresses6: tuple[str, ...] = ()
    dhcp_server: str = ""

    @property
    def is_addressed(self) -> bool:
        """The cluster hands its addresses out."""
        return bool(self.addresses4 or self.addresses6)

    @property
    def is_private(self) -> bool:
        """Nobody but its pod is on its link."""
        return not self.pod_interface


def guard_of(guests: Sequence[Guest]) -> Table:
    """The table that keeps all guests of a pod to what is theirs."""
    bridged = [guest for guest in guests if not guest.is_private]
    private6 = [guest for guest in guests if guest.is_private and guest.addresses6]
    return Table(
        Family.BRIDGE,
        (
            Chain(
                "prerouting",
                [[*enters_by(guest.tap), jump(guest.tap)] for guest in guests],
                Hook("filter", PREROUTING, _PRIORITY_FILTER),
            ),
            *(_between(bridged) if bridged else ()),
            *(chain for guest in guests for chain in _chains(guest)),
        ),
        [
            Set(
                _link_locals(guest),
                Key.IPV6_ADDRESS,
                room=_LINK_LOCALS,
                lifetime_s=_LINK_LOCAL_LIFETIME_S,
            )
            for guest in private6
        ],
    )


def link_local(mac: str) -> str:
    """The link-local address that belongs to a hardware address (RFC 4291)."""
    octets = bytearray(_octets(mac))
    octets[0] ^= 2
    identifier = bytes(octets[:3]) + b"\xff\xfe" + bytes(octets[3:])
    return str(ipaddress.IPv6Address(b"\xfe\x80" + bytes(6) + identifier))


def _between(bridged: Sequence[Guest]) -> Iterator[Chain]:
    """Between pods, guests and their networks."""
    yield Chain(
        "input",
        [rule for guest in bridged for rule in _to_bridge(guest)],
        Hook("filter", INPUT, _PRIORITY_FILTER),
    )
    yield Chain(
        "output",
        [[*leaves_by(guest.pod_interface), drop()] for guest in bridged],
        Hook("filter", OUTPUT, _PRIORITY_FILTER),
    )
    yield Chain(
        "forward",
        [rule for guest in bridged for rule in _own_dhcp(guest)],
        Hook("filter", FORWARD, _PRIORITY_FILTER),
    )


def _to_bridge(guest: Guest) -> Iterator[Rule]:
    """The pod's bridge answers the guest's DHCP. Whatever else it took, the pod would route."""
    yield [*enters_by(guest.pod_interface), drop()]
    if guest.dhcp_server:
        yield [*enters_by(guest.tap), *_type(_ARP), accept()]
        asks = [*_type(_IP), *goes_to_port(socket.IPPROTO_UDP, _DHCP_SERVER_PORT)]
        for address in (guest.dhcp_server, _EVERYBODY):
            to = has(Base.NETWORK, 16, socket.inet_aton(address))
            yield [*enters_by(guest.tap), *asks, *to, accept()]
    yield [*enters_by(guest.tap), drop()]


def _own_dhcp(guest: Guest) -> Iterator[Rule]:
    """The guest asks its own pod, and nobody else answers."""
    if guest.dhcp_server:
        udp = [*_type(_IP), *carries(socket.IPPROTO_UDP)]
        port = _DHCP_SERVER_PORT.to_bytes(2, "big")
        yield [*enters_by(guest.tap), *udp, *has(Base.TRANSPORT, 2, port), drop()]
        yield [*leaves_by(guest.tap), *udp, *has(Base.TRANSPORT, 0, port), drop()]


def _chains(guest: Guest) -> Iterator[Chain]:
    mac = _octets(guest.mac)
    rules: list[Rule] = [
        [*has_not(Base.LINK, 6, mac), drop()],
        [*_type(_ARP), *has_not(Base.NETWORK, 8, mac), drop()],
    ]
    if guest.is_addressed:
        rules += [*_arp(guest), *_ip(guest), *_ip6(guest), [*_type(_RARP), accept()], [drop()]]
    yield Chain(guest.tap, rules)
    if guest.addresses6 and not guest.is_private:
        own = _own6(guest)
        targets: list[Rule] = [[*has(Base.TRANSPORT, 8, address), back()] for address in own]
        yield Chain(_targets(guest), [*targets, [drop()]])


def _arp(guest: Guest) -> Iterator[Rule]:
    for address in map(socket.inet_aton, guest.addresses4):
        yield [*_type(_ARP), *has(Base.NETWORK, 14, address), accept()]
        probe = [*has(Base.NETWORK, 14, bytes(4)), *has(Base.NETWORK, 24, address)]
        yield [*_type(_ARP), *probe, accept()]


def _ip(guest: Guest) -> Iterator[Rule]:
    if guest.dhcp_server:
        asks = [*_type(_IP), *goes_to_port(socket.IPPROTO_UDP, _DHCP_SERVER_PORT)]
        yield [*asks, *has(Base.NETWORK, 12, bytes(4)), accept()]
        # The server is on no network of the guest's: it sends to a router what is to be answered here.
        to_server = has(Base.NETWORK, 16, socket.inet_aton(guest.dhcp_server))
        here = write_hardware_destination(_octets(BRIDGE_MAC))
        for address in () if guest.is_private else map(socket.inet_aton, guest.addresses4):
            yield [*asks, *has(Base.NETWORK, 12, address), *to_server, *here, accept()]
    for address in map(socket.inet_aton, guest.addresses4):
        yield [*_type(_IP), *has(Base.NETWORK, 12, address), accept()]


def _ip6(guest: Guest) -> Iterator[Rule]:
    if not guest.addresses6:
        return
    for kind in (_ROUTER_ADVERTISEMENT, _REDIRECT):
        yield [*_icmp6(kind), drop()]
    yield from _private_link(guest) if guest.is_private else _shared_link(guest)
    for address in _own6(guest):
        yield [*_type(_IP6), *has(Base.NETWORK, 8, address), accept()]


def _private_link(guest: Guest) -> Iterator[Rule]:
    """Who has no address yet is not noted; of link-local ones a few are."""
    unspecified = has(Base.NETWORK, 8, _UNSPECIFIED6)
    yield [*_type(_IP6), *carries(socket.IPPROTO_ICMPV6), *unspecified, accept()]
    of_few = is_one_of_few(_link_locals(guest), Base.NETWORK, 8, 16)
    yield [*_type(_IP6), *has(Base.NETWORK, 8, _LINK_LOCAL), *of_few, accept()]


def _shared_link(guest: Guest) -> Iterator[Rule]:
    """Nobody else's address is advertised or contested."""
    yield [*_icmp6(_NEIGHBOUR_ADVERTISEMENT), jump(_targets(guest))]
    unspecified = has(Base.NETWORK, 8, _UNSPECIFIED6)
    yield [*_icmp6(_NEIGHBOUR_SOLICITATION), *unspecified, jump(_targets(guest))]
    for kind in (_NEIGHBOUR_SOLICITATION, _LISTENER_REPORT):
        yield [*_icmp6(kind), *unspecified, accept()]


def _own6(guest: Guest) -> list[bytes]:
    made_of_mac = () if guest.is_private else (link_local(guest.mac),)
    addresses = (*guest.addresses6, *made_of_mac)
    return [ipaddress.IPv6Address(address).packed for address in addresses]


def _targets(guest: Guest) -> str:
    return f"{guest.tap}-targets"


def _link_locals(guest: Guest) -> str:
    return f"{guest.tap}-link-locals"


def _type(number: bytes) -> Rule:
    return has(Base.LINK, 12, number)


def _icmp6(kind: int) -> Rule:
    return [
        *_type(_IP6),
        *carries(socket.IPPROTO_ICMPV6),
        *has(Base.TRANSPORT, 0, bytes([kind])),
    ]


def _octets(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))
