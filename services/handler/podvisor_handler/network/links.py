"""Network devices of the calling thread's network namespace, by rtnetlink."""

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
from podvisor_handler.network.namespace import LAUNCHER_UID, Link

# linux/rtnetlink.h, if_link.h
_NEWLINK, _DELLINK, _GETLINK = 16, 17, 18
_LINK_HEADER = struct.Struct("=BxHiII")
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER, _IFLA_LINKINFO = 1, 3, 4, 10, 18
_INFO_KIND, _INFO_SLAVE_KIND, _INFO_SLAVE_DATA = 1, 4, 5
_BRPORT_LEARNING = 8
_UP = 0x1

# linux/if_tun.h
_TUNSETIFF, _TUNSETPERSIST, _TUNSETOWNER, _TUNSETGROUP = (
    0x400454CA,
    0x400454CB,
    0x400454CC,
    0x400454CE,
)
_IFF_TAP, _IFF_MULTI_QUEUE, _IFF_NO_PI, _IFF_VNET_HDR = 0x2, 0x100, 0x1000, 0x4000


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
            mac=found.get(_IFLA_ADDRESS, b"").hex(":"),
            learns=_learns(found.get(_IFLA_LINKINFO, b"")),
        )
    return links


def create_bridge(route: NetlinkSocket, name: str, *, mac: str, mtu_bytes: int) -> None:
    """Makes a bridge, up."""
    attributes: list[Attribute] = [
        (_IFLA_IFNAME, name.encode() + b"\0"),
        (_IFLA_ADDRESS, _octets(mac)),
        (_IFLA_MTU, struct.pack("=I", mtu_bytes)),
        (_IFLA_LINKINFO, [(_INFO_KIND, b"bridge\0")]),
    ]
    header = _LINK_HEADER.pack(0, 0, 0, _UP, _UP)
    route.change(Message(_NEWLINK, REQUEST | ACK | CREATE | EXCLUSIVE, header, attributes))


def configure_link(
    route: NetlinkSocket, name: str, *, mtu_bytes: int, master: str | None = None
) -> None:
    """Sets the MTU and, when given, the bridge of a device, and brings it up."""
    attributes: list[Attribute] = [(_IFLA_MTU, struct.pack("=I", mtu_bytes))]
    if master is not None:
        attributes.append((_IFLA_MASTER, struct.pack("=I", socket.if_nametoindex(master))))
    _change(route, name, up=True, attributes=attributes)


def stop_learning(route: NetlinkSocket, name: str) -> None:
    """Has a bridge not conclude from what comes in by a port who is behind it."""
    port: list[Attribute] = [(_BRPORT_LEARNING, b"\0")]
    kind: list[Attribute] = [(_INFO_SLAVE_KIND, b"bridge\0"), (_INFO_SLAVE_DATA, port)]
    _change(route, name, up=True, attributes=[(_IFLA_LINKINFO, kind)])


def take_down(route: NetlinkSocket, name: str) -> None:
    """Takes a device down."""
    _change(route, name, up=False, attributes=[])


def set_mac(route: NetlinkSocket, name: str, mac: str) -> None:
    """Gives a device another hardware address, and leaves it down."""
    _change(route, name, up=False, attributes=[(_IFLA_ADDRESS, _octets(mac))])


def remove_link(route: NetlinkSocket, name: str) -> None:
    """Removes a device."""
    header = _LINK_HEADER.pack(0, 0, socket.if_nametoindex(name), 0, 0)
    route.change(Message(_DELLINK, REQUEST | ACK, header))


def create_tap(tun_device: str, name: str, *, is_multiqueue: bool) -> None:
    """Makes a tap device that the launcher's user may open. `tun_device` is the path of /dev/net/tun.

    Persistence comes last, so that a tap that exists is complete.
    """
    tun = os.open(tun_device, os.O_RDWR | os.O_CLOEXEC)
    flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR | (_IFF_MULTI_QUEUE if is_multiqueue else 0)
    try:
        fcntl.ioctl(tun, _TUNSETIFF, struct.pack("=16sH22x", name.encode(), flags))
        fcntl.ioctl(tun, _TUNSETOWNER, LAUNCHER_UID)
        fcntl.ioctl(tun, _TUNSETGROUP, LAUNCHER_UID)
        fcntl.ioctl(tun, _TUNSETPERSIST, 1)
    finally:
        os.close(tun)


def _learns(link_info: bytes) -> bool:
    """Whether a bridge learns from the device; so it does as long as nobody has said otherwise."""
    port = decode_attributes(decode_attributes(link_info).get(_INFO_SLAVE_DATA, b""))
    return port.get(_BRPORT_LEARNING) != b"\0"


def _change(route: NetlinkSocket, name: str, *, up: bool, attributes: list[Attribute]) -> None:
    header = _LINK_HEADER.pack(0, 0, socket.if_nametoindex(name), _UP if up else 0, _UP)
    route.change(Message(_NEWLINK, REQUEST | ACK, header, attributes))


def _octets(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))
