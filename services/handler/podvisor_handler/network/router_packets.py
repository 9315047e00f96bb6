"""Router advertisements and solicitations of IPv6 (RFC 4861, 8106) as bytes.

Invariant: pure. The guest's address is managed, so a router announces itself and no network; addresses come by DHCPv6.
"""

import ipaddress
import struct
from dataclasses import dataclass

LIFETIME_S = 65535  # the longest that RFC 8319 allows: a guest outlives its handler
_SOLICITATION, _ADVERTISEMENT = 133, 134
_HOP_LIMIT = 64
_MANAGED_AND_OTHER = 0xC0
_OPTION_SOURCE, _OPTION_PREFIX, _OPTION_MTU, _OPTION_SERVERS, _OPTION_SEARCH = 1, 3, 5, 25, 31
_ON_LINK = 0x80
_FOREVER = 0xFFFFFFFF
_HEADER = struct.Struct("!BBH")
_SERVERS_LIMIT = 3
_LABEL_LIMIT = 63
_SEARCH_LIMIT_BYTES = 512  # a guest drops an advertisement in fragments (RFC 6980)


@dataclass(frozen=True, slots=True)
class Router:
    """What a guest is told of the router on its link."""

    mac: str
    prefix: str  # on the link, but not for addresses of the guest's own making
    mtu_bytes: int
    dns_servers: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()


def is_solicitation(message: bytes, hop_limit: int) -> bool:
    """Whether an ICMPv6 message is a valid question for routers. One that has passed a router is none."""
    if hop_limit != 255 or len(message) < 8:
        return False
    kind, code, _ = _HEADER.unpack_from(message)
    return kind == _SOLICITATION and code == 0 and _options_are_sound(message[8:])


def advertisement(router: Router, *, lifetime_s: int = LIFETIME_S) -> bytes:
    """The ICMPv6 message, whose checksum is left to the kernel."""
    fixed = struct.pack(
        "!BBHBBHII", _ADVERTISEMENT, 0, 0, _HOP_LIMIT, _MANAGED_AND_OTHER, lifetime_s, 0, 0
    )
    network = ipaddress.IPv6Network(router.prefix)
    options = [
        _option(_OPTION_SOURCE, bytes.fromhex(router.mac.replace(":", ""))),
        _option(_OPTION_MTU, struct.pack("!HI", 0, router.mtu_bytes)),
        _option(
            _OPTION_PREFIX,
            struct.pack("!BBIII", network.prefixlen, _ON_LINK, _FOREVER, _FOREVER, 0)
            + network.network_address.packed,
        ),
    ]
    servers = router.dns_servers[:_SERVERS_LIMIT]
    if servers:
        packed = b"".join(ipaddress.IPv6Address(server).packed for server in servers)
        options.append(_option(_OPTION_SERVERS, struct.pack("!HI", 0, lifetime_s) + packed))
    names = b""
    for name in map(_domain_name, router.dns_search):
        if len(names) + len(name) > _SEARCH_LIMIT_BYTES:
            break
        names += name
    if names:
        options.append(_option(_OPTION_SEARCH, struct.pack("!HI", 0, lifetime_s) + names))
    return fixed + b"".join(options)


def _option(kind: int, content: bytes) -> bytes:
    content += bytes(-(len(content) + 2) % 8)
    return bytes([kind, (len(content) + 2) // 8]) + content


def _domain_name(name: str) -> bytes:
    """A name on the wire (RFC 1035); nothing for one that has no place there."""
    labels = [label.encode() for label in name.rstrip(".").split(".")]
    if not name.isascii() or not all(0 < len(label) <= _LABEL_LIMIT for label in labels):
        return b""
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def _options_are_sound(options: bytes) -> bool:
    while options:
        if len(options) < 2 or options[1] == 0 or options[1] * 8 > len(options):
            return False
        options = options[options[1] * 8 :]
    return True
