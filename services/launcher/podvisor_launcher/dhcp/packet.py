"""DHCPv4 packets (RFC 2131, 2132): what a guest asked, and the one answer there is to it. Pure functions.

Invariant: an answer depends on the request and the lease alone, so a restarted responder answers as its predecessor did.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv4Network
from struct import Struct

_FIXED = Struct("!BBBB4sHH4s4s4s4s16s64s128s4s")  # up to and with the magic cookie
_COOKIE = b"\x63\x82\x53\x63"
_BOOTREQUEST, _BOOTREPLY = 1, 2
_ETHERNET, _MAC_BYTES = 1, 6
_MINIMUM_BYTES = 300  # BOOTP's size; some clients drop shorter packets
_INFINITE = b"\xff\xff\xff\xff"
_NO_ADDRESS = bytes(4)
_DOMAIN_BYTES = 255

_PAD, _END = 0, 255
_SUBNET_MASK, _ROUTER, _DNS, _HOST_NAME, _DOMAIN_NAME, _MTU = 1, 3, 6, 12, 15, 26
_REQUESTED_ADDRESS, _LEASE_TIME, _MESSAGE_TYPE, _SERVER_ID, _DOMAIN_SEARCH = 50, 51, 53, 54, 119


class MessageType(IntEnum):
    """Option 53."""

    DISCOVER = 1
    OFFER = 2
    REQUEST = 3
    DECLINE = 4
    ACK = 5
    NAK = 6
    RELEASE = 7
    INFORM = 8


@dataclass(frozen=True, slots=True)
class Lease:
    """All that a guest is told. `mtu_bytes` 0 leaves the guest's own choice alone."""

    address: IPv4Address
    network: IPv4Network
    server: IPv4Address
    gateway: IPv4Address | None = None
    dns_servers: tuple[IPv4Address, ...] = ()
    dns_search: tuple[str, ...] = ()
    hostname: str = ""
    mtu_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Request:
    """What a guest sent."""

    type: MessageType
    mac: str  # lower case with colons
    transaction: bytes
    flags: int
    client_address: IPv4Address  # 0.0.0.0 unless the guest uses an address already
    requested_address: IPv4Address | None
    server: IPv4Address | None
    hardware_address: bytes  # chaddr as it came, 16 bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """A packet, and where it goes."""

    type: MessageType
    packet: bytes
    destination: IPv4Address


def parse_request(packet: bytes) -> Request | None:
    """The request in `packet`; None for anything else, however malformed."""
    if len(packet) < _FIXED.size:
        return None
    op, htype, hlen, _, xid, _, flags, ciaddr, _, _, _, chaddr, _, _, cookie = _FIXED.unpack_from(
        packet
    )
    if (op, htype, hlen, cookie) != (_BOOTREQUEST, _ETHERNET, _MAC_BYTES, _COOKIE):
        return None
    options = _parse_options(packet[_FIXED.size :])
    try:
        type_ = MessageType(options.get(_MESSAGE_TYPE, b"\0")[0])
    except (ValueError, IndexError):
        return None
    return Request(
        type=type_,
        mac=chaddr[:_MAC_BYTES].hex(":"),
        transaction=xid,
        flags=flags,
        client_address=IPv4Address(ciaddr),
        requested_address=_address(options.get(_REQUESTED_ADDRESS)),
        server=_address(options.get(_SERVER_ID)),
        hardware_address=chaddr,
    )


def answer(request: Request, lease: Lease) -> Reply | None:
    """The reply to `request`; None where a server keeps silent."""
    match request.type:
        case MessageType.DISCOVER:
            return _reply(request, lease, MessageType.OFFER)
        case MessageType.REQUEST:
            if request.server not in (None, lease.server):
                return None  # the guest took another server's offer
            wanted = request.requested_address or request.client_address
            granted = wanted == lease.address
            return _reply(request, lease, MessageType.ACK if granted else MessageType.NAK)
        case MessageType.INFORM:
            return _reply(request, lease, MessageType.ACK)
        case _:
            return None


def _reply(request: Request, lease: Lease, type_: MessageType) -> Reply:
    nak = type_ is MessageType.NAK
    inform = request.type is MessageType.INFORM
    options = _option(_MESSAGE_TYPE, bytes([type_])) + _option(_SERVER_ID, lease.server.packed)
    if not nak:
        options += b"" if inform else _option(_LEASE_TIME, _INFINITE)
        options += _network_options(lease)
    fixed = _FIXED.pack(
        _BOOTREPLY,
        _ETHERNET,
        _MAC_BYTES,
        0,
        request.transaction,
        0,
        request.flags,
        _NO_ADDRESS if nak else request.client_address.packed,
        _NO_ADDRESS if nak or inform else lease.address.packed,
        _NO_ADDRESS,
        _NO_ADDRESS,
        request.hardware_address,
        b"",
        b"",
        _COOKIE,
    )
    unicast = not nak and int(request.client_address) != 0
    return Reply(
        type=type_,
        packet=(fixed + options + bytes([_END])).ljust(_MINIMUM_BYTES, b"\0"),
        destination=request.client_address if unicast else IPv4Address("255.255.255.255"),
    )


def _network_options(lease: Lease) -> bytes:
    options = _option(_SUBNET_MASK, lease.network.netmask.packed)
    if lease.gateway is not None:
        options += _option(_ROUTER, lease.gateway.packed)
    if lease.dns_servers:
        options += _option(_DNS, b"".join(each.packed for each in lease.dns_servers[:8]))
    if lease.hostname:
        options += _option(_HOST_NAME, lease.hostname.encode("ascii", "ignore")[:63])
    if lease.dns_search:
        options += _option(_DOMAIN_NAME, lease.dns_search[0].encode("ascii", "ignore")[:255])
        options += _option(_DOMAIN_SEARCH, encode_domains(lease.dns_search))
    if lease.mtu_bytes:
        options += _option(_MTU, lease.mtu_bytes.to_bytes(2, "big"))
    return options


def encode_domains(domains: Sequence[str]) -> bytes:
    """Search domains as RFC 3397 wants them, without compression; those that no longer fit one option are left out."""
    encoded = b""
    for domain in domains:
        labels = domain.strip(".").encode("ascii", "ignore").split(b".")
        if not all(0 < len(label) < 64 for label in labels):
            continue
        name = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
        if len(encoded) + len(name) > _DOMAIN_BYTES:
            break
        encoded += name
    return encoded


def _option(code: int, value: bytes) -> bytes:
    return bytes([code, len(value)]) + value if value else b""


def _parse_options(data: bytes) -> dict[int, bytes]:
    options: dict[int, bytes] = {}
    position = 0
    while position < len(data) and data[position] != _END:
        code = data[position]
        if code == _PAD:
            position += 1
            continue
        if position + 1 >= len(data):
            break
        length = data[position + 1]
        options.setdefault(code, data[position + 2 : position + 2 + length])
        position += 2 + length
    return options


def _address(value: bytes | None) -> IPv4Address | None:
    return IPv4Address(value) if value is not None and len(value) == 4 else None
