"""DHCPv4 packets (RFC 2131, 2132): what a guest asked, and the one answer there is to it. Pure functions.

Invariants: an answer depends on the request and the lease alone, so a restarted responder answers as its predecessor did. It is
never larger than the guest can take: what the guest asked for comes first, and what does not fit is left out.
"""

from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv4Network
from struct import Struct

from podvisor_launcher.dhcp.names import encode_domains

_FIXED = Struct("!BBBB4sHH4s4s4s4s16s64s128s4s")  # up to and with the magic cookie
_COOKIE = b"\x63\x82\x53\x63"
_BOOTREQUEST, _BOOTREPLY = 1, 2
_ETHERNET, _MAC_BYTES = 1, 6
_MINIMUM_BYTES = 300  # BOOTP's size; some clients drop shorter packets
_INFINITE = b"\xff\xff\xff\xff"
_NO_ADDRESS = bytes(4)
_OPTION_BYTES = 255  # a longer one is written as several (RFC 3396)
_IP_AND_UDP_BYTES = 28
_MIN_DATAGRAM_BYTES, _MAX_DATAGRAM_BYTES = 576, 1500  # what every client takes; what no link splits
_FILE_BYTES = 128  # of the header's field, with the byte that ends it

_PAD, _END = 0, 255
_SUBNET_MASK, _ROUTER, _DNS, _HOST_NAME, _DOMAIN_NAME, _MTU, _NTP = 1, 3, 6, 12, 15, 26, 42
_REQUESTED_ADDRESS, _LEASE_TIME, _MESSAGE_TYPE, _SERVER_ID, _WANTED, _MAX_SIZE = (
    50,
    51,
    53,
    54,
    55,
    57,
)
_TFTP_SERVER, _BOOT_FILE, _DOMAIN_SEARCH, _CLASSLESS_ROUTES = 66, 67, 119, 121
_ON_LINK = IPv4Address("0.0.0.0")
_EVERYWHERE = IPv4Network("0.0.0.0/0")


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
class Route:
    """Leads to `destination` by way of `gateway`; by none where the network is on the link itself."""

    destination: IPv4Network
    gateway: IPv4Address | None


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
    routes: tuple[Route, ...] = ()  # besides the default one
    ntp_servers: tuple[IPv4Address, ...] = ()
    boot_file: str = ""
    tftp_server: str = ""  # an address or a name
    private_options: tuple[tuple[int, bytes], ...] = ()


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
    wanted_options: bytes  # in the order of the guest's preference
    max_bytes: int  # the largest packet the guest takes, without the headers of IP and UDP


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
        wanted_options=options.get(_WANTED, b""),
        max_bytes=_max_bytes(options.get(_MAX_SIZE, b"")),
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
    boot_file = b"" if nak else lease.boot_file.encode()
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
        _NO_ADDRESS if nak else _next_server(lease),
        _NO_ADDRESS,
        request.hardware_address,
        b"",
        boot_file if len(boot_file) < _FILE_BYTES else b"",
        _COOKIE,
    )
    options = _option(_MESSAGE_TYPE, bytes([type_])) + _option(_SERVER_ID, lease.server.packed)
    if not nak:
        options += b"" if inform else _option(_LEASE_TIME, _INFINITE)
        options += _network_options(lease, request, len(fixed) + len(options))
    unicast = not nak and int(request.client_address) != 0
    return Reply(
        type=type_,
        packet=(fixed + options + bytes([_END])).ljust(_MINIMUM_BYTES, b"\0"),
        destination=request.client_address if unicast else IPv4Address("255.255.255.255"),
    )


def _network_options(lease: Lease, request: Request, used_bytes: int) -> bytes:
    """Mask and routes; then what the guest asks for, then the rest, as far as it fits."""
    known = {code: value for code, value in _values(lease) if value}
    wanted = [code for code in request.wanted_options if code in known]
    order = dict.fromkeys((_SUBNET_MASK, _CLASSLESS_ROUTES, _ROUTER, *wanted, *known))
    room = request.max_bytes - used_bytes - 1  # for the end
    encoded = b""
    for code in order:
        option = _option(code, known.get(code, b""))
        if len(encoded) + len(option) <= room:
            encoded += option
    return encoded


def _values(lease: Lease) -> tuple[tuple[int, bytes], ...]:
    return (
        (_SUBNET_MASK, lease.network.netmask.packed),
        (_CLASSLESS_ROUTES, b"".join(_encode_route(each) for each in classless_routes(lease))),
        (_ROUTER, lease.gateway.packed if lease.gateway is not None else b""),
        (_MTU, lease.mtu_bytes.to_bytes(2, "big") if lease.mtu_bytes else b""),
        (_DNS, _addresses(lease.dns_servers[:8])),
        (_HOST_NAME, lease.hostname.encode("ascii", "ignore")[:63]),
        (_DOMAIN_NAME, lease.dns_search[0].encode("ascii", "ignore") if lease.dns_search else b""),
        (_DOMAIN_SEARCH, encode_domains(lease.dns_search, _OPTION_BYTES)),
        (_NTP, _addresses(lease.ntp_servers)),
        (_TFTP_SERVER, lease.tftp_server.encode()),
        (_BOOT_FILE, lease.boot_file.encode()),
        *lease.private_options,
    )


def classless_routes(lease: Lease) -> tuple[Route, ...]:
    """What option 121 (RFC 3442) holds: nothing where mask and gateway say everything, and else the default route as well,
    since a guest that gets the option looks at no other. A gateway outside the guest's own network is on the link
    nevertheless, as with a network of one address, and the guest is told so first."""
    routes = lease.routes
    if lease.gateway is not None:
        routes = (*routes, Route(_EVERYWHERE, lease.gateway))
    known = [lease.network, *(each.destination for each in routes if each.gateway is None)]
    gateways = dict.fromkeys(each.gateway for each in routes if each.gateway is not None)
    off_link = [each for each in gateways if not any(each in network for network in known)]
    if not lease.routes and not off_link:
        return ()
    return (*(Route(IPv4Network(each), None) for each in off_link), *routes)


def _encode_route(route: Route) -> bytes:
    length = route.destination.prefixlen
    significant = route.destination.network_address.packed[: (length + 7) // 8]
    return bytes([length]) + significant + (route.gateway or _ON_LINK).packed


def _next_server(lease: Lease) -> bytes:
    try:
        return IPv4Address(lease.tftp_server).packed
    except ValueError:
        return _NO_ADDRESS  # it has a name, which the header has no room for


def _addresses(addresses: tuple[IPv4Address, ...]) -> bytes:
    return b"".join(each.packed for each in addresses)


def _max_bytes(option: bytes) -> int:
    size = int.from_bytes(option, "big") if len(option) == 2 else 0
    return min(max(size, _MIN_DATAGRAM_BYTES), _MAX_DATAGRAM_BYTES) - _IP_AND_UDP_BYTES


def _option(code: int, value: bytes) -> bytes:
    encoded = b""
    for begin in range(0, len(value), _OPTION_BYTES):
        part = value[begin : begin + _OPTION_BYTES]
        encoded += bytes([code, len(part)]) + part
    return encoded


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
