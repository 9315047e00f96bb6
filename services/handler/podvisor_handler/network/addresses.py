"""Addresses and routes of the calling thread's network namespace, by rtnetlink."""

import errno
import ipaddress
import socket
import struct
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from podvisor_handler.linux.netlink import (
    ACK,
    APPEND,
    CREATE,
    DUMP,
    EXCLUSIVE,
    REQUEST,
    Attribute,
    Message,
    NetlinkSocket,
    decode_attributes,
)
from podvisor_handler.network.namespace import Route

# linux/rtnetlink.h, if_addr.h
_NEWADDR, _DELADDR, _GETADDR, _NEWROUTE, _GETROUTE = 20, 21, 22, 24, 26
_ADDRESS_HEADER = struct.Struct("=BBBBI")
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST, _IFA_FLAGS = 1, 2, 4, 8
_NO_DAD, _NO_PREFIX_ROUTE = 0x02, 0x200
_ROUTE_HEADER = struct.Struct("=BBBBBBBBI")
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_TABLE, _RTA_VIA = 1, 4, 5, 6, 15, 18
_MAIN_TABLE, _LOCAL_TABLE, _UNICAST, _LOCAL = 254, 255, 1, 2
_PROTOCOL_KERNEL, _PROTOCOL_STATIC = 2, 4
_SCOPE_UNIVERSE, _SCOPE_LINK = 0, 253
_ON_LINK = 4
_LOOPBACK6 = "::1/128"
# A metric; that of the loopback is 0.
_AFTER_THE_LOOPBACK = 2048
# No rule leads to it.
_KEPT_TABLE = 0x6B367400
# The near ends of the links at whose far ends kept addresses are; one for each.
_NEAR_END = ipaddress.IPv4Address("169.254.76.1")


def list_addresses(
    route: NetlinkSocket, names: Mapping[int, str], *, kept_by: frozenset[str] = frozenset()
) -> dict[str, tuple[str, ...]]:
    """Addresses with their prefix length, by device name, `names` by index; of the devices `kept_by`, those that keep_address() had
    them keep."""
    addresses: dict[str, tuple[str, ...]] = {}
    header = _ADDRESS_HEADER.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
    for payload in route.dump(Message(_GETADDR, REQUEST | DUMP, header)):
        family, prefix_length, _, _, index = _ADDRESS_HEADER.unpack_from(payload)
        found = decode_attributes(payload[_ADDRESS_HEADER.size :])
        name = names.get(index)
        if family not in (socket.AF_INET, socket.AF_INET6) or name is None:
            continue
        far = found.get(_IFA_ADDRESS, b"")
        packed = far if name in kept_by else found.get(_IFA_LOCAL, far)
        address = f"{ipaddress.ip_address(packed)}/{prefix_length}"
        addresses[name] = (*addresses.get(name, ()), address)
    return addresses


def add_address(route: NetlinkSocket, name: str, address: str) -> None:
    """Gives a device an address, which is not contested on the link."""
    interface = ipaddress.ip_interface(address)
    packed = interface.packed
    attributes: list[Attribute] = [(_IFA_LOCAL, packed), (_IFA_ADDRESS, packed)]
    if interface.version == 4:
        broadcast = interface.network.broadcast_address.packed
        attributes.append((_IFA_BROADCAST, broadcast))
    else:
        attributes.append((_IFA_FLAGS, struct.pack("=I", _NO_DAD)))
    _change_address(route, _NEWADDR, name, interface, attributes)


def keep_address(route: NetlinkSocket, name: str, address: str, number: int) -> None:
    """Has a device keep an address without a route to it; one of IPv4 is not even the namespace's own."""
    interface = ipaddress.ip_interface(address)
    near = (_NEAR_END + number).packed if interface.version == 4 else interface.packed
    attributes: list[Attribute] = [
        (_IFA_LOCAL, near),
        (_IFA_ADDRESS, interface.packed),
        (_IFA_FLAGS, struct.pack("=I", _NO_DAD | _NO_PREFIX_ROUTE)),
    ]
    _change_address(route, _NEWADDR, name, interface, attributes)


def delete_address(route: NetlinkSocket, name: str, address: str) -> None:
    """Takes an IPv4 address from a device."""
    interface = ipaddress.ip_interface(address)
    try:
        _change_address(route, _DELADDR, name, interface, [(_IFA_LOCAL, interface.packed)])
    except OSError as error:
        # It may have gone with the first one of its network.
        if error.errno != errno.EADDRNOTAVAIL:
            raise


@dataclass(frozen=True, slots=True)
class Routes:
    """The routes of a namespace; those to several routers at once are not told."""

    # Those of IPv4 of the main table but for what the kernel makes of addresses.
    told: tuple[Route, ...]
    # All of the main table, of both families.
    every: tuple[Route, ...]
    # Those that keep_route() had devices keep.
    kept: tuple[Route, ...]
    # The devices, other than the loopback itself, by which the namespace takes packets to ::1.
    loopbacks: frozenset[str]


def list_routes(route: NetlinkSocket, names: Mapping[int, str]) -> Routes:
    """All there are by the devices of `names`, which has them by index, from one dump."""
    told, every, kept, loopbacks = [], [], [], set()
    for found in _dump_routes(route, names):
        known = found.route
        if found.type == _LOCAL and known.destination == _LOOPBACK6:
            loopbacks.add(known.device)
        if found.type != _UNICAST:
            continue
        if found.table == _MAIN_TABLE:
            every.append(known)
        if found.family != socket.AF_INET or found.protocol == _PROTOCOL_KERNEL:
            continue
        if ":" in known.gateway:  # which no guest can be told
            known = replace(known, gateway="")
        if found.table == _MAIN_TABLE:
            told.append(known)
        elif found.table == _KEPT_TABLE:
            kept.append(known)
    return Routes(tuple(told), tuple(every), tuple(kept), frozenset(loopbacks - {"lo"}))


def add_route(route: NetlinkSocket, wanted: Route) -> None:
    """Adds an IPv4 route."""
    _add_route(route, wanted, _MAIN_TABLE, CREATE | EXCLUSIVE)


def keep_route(route: NetlinkSocket, wanted: Route) -> None:
    """Has a device keep an IPv4 route, where it routes nothing."""
    _add_route(route, wanted, _KEPT_TABLE, CREATE | APPEND)


def take_loopback(route: NetlinkSocket, name: str) -> None:
    """Has the namespace take packets to ::1 by a device. From outside there are none, whatever a sender does: the kernel drops
    them before anything else. The loopback is asked first by who sends."""
    header = _ROUTE_HEADER.pack(
        socket.AF_INET6, 128, 0, 0, _LOCAL_TABLE, _PROTOCOL_STATIC, _SCOPE_UNIVERSE, _LOCAL, 0
    )
    attributes: list[Attribute] = [
        (_RTA_DST, ipaddress.ip_interface(_LOOPBACK6).packed),
        (_RTA_OIF, struct.pack("=I", socket.if_nametoindex(name))),
        (_RTA_PRIORITY, struct.pack("=I", _AFTER_THE_LOOPBACK)),
    ]
    route.change(Message(_NEWROUTE, REQUEST | ACK | CREATE | EXCLUSIVE, header, attributes))


def _change_address(
    route: NetlinkSocket,
    kind: int,
    name: str,
    interface: ipaddress.IPv4Interface | ipaddress.IPv6Interface,
    attributes: list[Attribute],
) -> None:
    family = socket.AF_INET if interface.version == 4 else socket.AF_INET6
    index = socket.if_nametoindex(name)
    header = _ADDRESS_HEADER.pack(family, interface.network.prefixlen, 0, 0, index)
    flags = REQUEST | ACK | (CREATE | EXCLUSIVE if kind == _NEWADDR else 0)
    route.change(Message(kind, flags, header, attributes))


class _Found(NamedTuple):
    family: int
    table: int
    protocol: int  # who made it
    type: int
    route: Route


def _dump_routes(route: NetlinkSocket, names: Mapping[int, str]) -> Iterator[_Found]:
    """Routes of all tables by a device to a destination or one router."""
    header = _ROUTE_HEADER.pack(socket.AF_UNSPEC, 0, 0, 0, 0, 0, 0, 0, 0)
    for payload in route.dump(Message(_GETROUTE, REQUEST | DUMP, header)):
        family, prefix_length, _, _, table, protocol, _, type_, _ = _ROUTE_HEADER.unpack_from(
            payload
        )
        found = decode_attributes(payload[_ROUTE_HEADER.size :])
        name = names.get(_number(found.get(_RTA_OIF)))
        if family not in (socket.AF_INET, socket.AF_INET6) or name is None:
            continue
        anywhere = bytes(4 if family == socket.AF_INET else 16)
        destination = socket.inet_ntop(family, found.get(_RTA_DST, anywhere))
        known = Route(
            device=name,
            destination=f"{destination}/{prefix_length}",
            gateway=_gateway(found, family),
            metric=_number(found.get(_RTA_PRIORITY)),
        )
        yield _Found(family, _number(found.get(_RTA_TABLE)) or table, protocol, type_, known)


def _gateway(found: Mapping[int, bytes], family: int) -> str:
    """The router of a route; one of the other family stands elsewhere, behind its family. Empty for none."""
    if _RTA_GATEWAY in found:
        return socket.inet_ntop(family, found[_RTA_GATEWAY])
    if _RTA_VIA in found:
        via = found[_RTA_VIA]
        return socket.inet_ntop(int.from_bytes(via[:2], sys.byteorder), via[2:])
    return ""


def _add_route(route: NetlinkSocket, wanted: Route, table: int, flags: int) -> None:
    network = ipaddress.IPv4Network(wanted.destination)
    header = _ROUTE_HEADER.pack(
        socket.AF_INET,
        network.prefixlen,
        0,
        0,
        0,
        _PROTOCOL_STATIC,
        _SCOPE_UNIVERSE if wanted.gateway else _SCOPE_LINK,
        _UNICAST,
        _ON_LINK if wanted.gateway else 0,
    )
    attributes: list[Attribute] = [
        (_RTA_TABLE, struct.pack("=I", table)),
        (_RTA_DST, network.network_address.packed),
        (_RTA_OIF, struct.pack("=I", socket.if_nametoindex(wanted.device))),
        (_RTA_PRIORITY, struct.pack("=I", wanted.metric)),
    ]
    if wanted.gateway:
        attributes.append((_RTA_GATEWAY, socket.inet_aton(wanted.gateway)))
    route.change(Message(_NEWROUTE, REQUEST | ACK | flags, header, attributes))


def _number(value: bytes | None) -> int:
    return int.from_bytes(value or b"", sys.byteorder)
