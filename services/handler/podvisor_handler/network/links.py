"""Network devices and addresses of the calling thread's network namespace, by rtnetlink."""

import fcntl
import os
import socket
import struct
import sys

from podvisor_handler.linux.netlink import (
    ACK,
    CREATE,
    DUMP,
    EXCLUSIVE,
    REQUEST,
    Attribute,
    Message,
    NetlinkSocket,
    decode_attributes,
)
from podvisor_handler.network.plan import Link

# linux/rtnetlink.h, if_link.h, if_addr.h
_NEWLINK, _GETLINK, _NEWADDR, _GETADDR = 16, 18, 20, 22
_LINK_HEADER = struct.Struct("=BxHiII")
_ADDRESS_HEADER = struct.Struct("=BBBBI")
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER, _IFLA_LINKINFO = 1, 3, 4, 10, 18
_INFO_KIND = 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST = 1, 2, 4
_UP = 0x1

# linux/if_tun.h
_TUNSETIFF, _TUNSETPERSIST, _TUNSETOWNER, _TUNSETGROUP = (
    0x400454CA,
    0x400454CB,
    0x400454CC,
    0x400454CE,
)
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x2, 0x1000, 0x4000


def list_links(route: NetlinkSocket) -> dict[str, Link]:
    """All devices by name."""
    links = {}
    for payload in route.dump(Message(_GETLINK, REQUEST | DUMP, _LINK_HEADER.pack(0, 0, 0, 0, 0))):
        _, _, index, flags, _ = _LINK_HEADER.unpack_from(payload)
        found = decode_attributes(payload[_LINK_HEADER.size :])
        name = found[_IFLA_IFNAME].rstrip(b"\0").decode()
        links[name] = Link(
            index=index,
            mtu_bytes=int.from_bytes(found[_IFLA_MTU], sys.byteorder),
            up=bool(flags & _UP),
            master=int.from_bytes(found.get(_IFLA_MASTER, b""), sys.byteorder),
        )
    return links


def list_addresses(route: NetlinkSocket, links: dict[str, Link]) -> dict[str, frozenset[str]]:
    """IPv4 addresses with their prefix length, by device name."""
    names = {link.index: name for name, link in links.items()}
    addresses: dict[str, frozenset[str]] = {}
    header = _ADDRESS_HEADER.pack(socket.AF_INET, 0, 0, 0, 0)
    for payload in route.dump(Message(_GETADDR, REQUEST | DUMP, header)):
        family, prefix_length, _, _, index = _ADDRESS_HEADER.unpack_from(payload)
        found = decode_attributes(payload[_ADDRESS_HEADER.size :])
        if family != socket.AF_INET or _IFA_LOCAL not in found or index not in names:
            continue
        address = f"{socket.inet_ntoa(found[_IFA_LOCAL])}/{prefix_length}"
        name = names[index]
        addresses[name] = addresses.get(name, frozenset()) | {address}
    return addresses


def create_bridge(route: NetlinkSocket, name: str, *, mac: str, mtu_bytes: int) -> None:
    """Makes a bridge, up."""
    attributes: list[Attribute] = [
        (_IFLA_IFNAME, name.encode() + b"\0"),
        (_IFLA_ADDRESS, bytes.fromhex(mac.replace(":", ""))),
        (_IFLA_MTU, struct.pack("=I", mtu_bytes)),
        (_IFLA_LINKINFO, [(_INFO_KIND, b"bridge\0")]),
    ]
    header = _LINK_HEADER.pack(0, 0, 0, _UP, _UP)
    route.change(Message(_NEWLINK, REQUEST | ACK | CREATE | EXCLUSIVE, header, attributes))


def configure_link(
    route: NetlinkSocket, index: int, *, mtu_bytes: int, master: int | None = None
) -> None:
    """Sets the MTU and, when given, the bridge of a device, and brings it up."""
    attributes: list[Attribute] = [(_IFLA_MTU, struct.pack("=I", mtu_bytes))]
    if master is not None:
        attributes.append((_IFLA_MASTER, struct.pack("=I", master)))
    header = _LINK_HEADER.pack(0, 0, index, _UP, _UP)
    route.change(Message(_NEWLINK, REQUEST | ACK, header, attributes))


def add_address(route: NetlinkSocket, index: int, *, address: str, prefix_length: int) -> None:
    """Gives a device an IPv4 address."""
    packed = socket.inet_aton(address)
    broadcast = int.from_bytes(packed, "big") | (1 << (32 - prefix_length)) - 1
    attributes: list[Attribute] = [
        (_IFA_LOCAL, packed),
        (_IFA_ADDRESS, packed),
        (_IFA_BROADCAST, broadcast.to_bytes(4, "big")),
    ]
    header = _ADDRESS_HEADER.pack(socket.AF_INET, prefix_length, 0, 0, index)
    route.change(Message(_NEWADDR, REQUEST | ACK | CREATE | EXCLUSIVE, header, attributes))


def create_tap(tun_device: str, name: str, *, owner_uid: int) -> None:
    """Makes a tap device that `owner_uid` may open. `tun_device` is the path of /dev/net/tun.

    Persistence comes last, so that a tap that exists is complete.
    """
    tun = os.open(tun_device, os.O_RDWR | os.O_CLOEXEC)
    try:
        request = struct.pack("=16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR)
        fcntl.ioctl(tun, _TUNSETIFF, request)
        fcntl.ioctl(tun, _TUNSETOWNER, owner_uid)
        fcntl.ioctl(tun, _TUNSETGROUP, owner_uid)
        fcntl.ioctl(tun, _TUNSETPERSIST, 1)
    finally:
        os.close(tun)
