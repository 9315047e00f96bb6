"""DHCPv6 messages (RFC 8415): what a guest asked, and the one answer there is to it. Pure functions.

Invariants: an answer depends on the request and the lease alone, so a restarted responder is the same server to the guest. A
message of which any part is malformed is none, and what an answer repeats of one is bounded.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv6Address
from struct import Struct
from uuid import UUID

from podvisor_launcher.dhcp.names import encode_domains

_HEADER_BYTES = 4  # type and transaction
_OPTION = Struct("!HH")
_IA_NA = Struct("!III")
_IA_ADDRESS = Struct("!16sII")
_FOREVER = 0xFFFFFFFF
_DOMAINS_BYTES = 512
_DUID_BYTES = range(3, 131)
_DUID_UUID = 4
_MAX_IAS = 8  # of one message that are answered

_CLIENT_ID, _SERVER_ID, _IDENTITY, _TEMPORARY, _ADDRESS = 1, 2, 3, 4, 5
_STATUS, _RAPID_COMMIT, _DNS, _DOMAIN_SEARCH, _PREFIXES = 13, 14, 23, 24, 25


class Message(IntEnum):
    """Types of messages."""

    SOLICIT = 1
    ADVERTISE = 2
    REQUEST = 3
    CONFIRM = 4
    RENEW = 5
    REBIND = 6
    REPLY = 7
    RELEASE = 8
    DECLINE = 9
    INFORMATION_REQUEST = 11


class Status(IntEnum):
    """What became of a request."""

    SUCCESS = 0
    NO_ADDRESSES = 2
    NOT_ON_LINK = 4


_TO_ONE_SERVER = {Message.REQUEST, Message.RENEW, Message.RELEASE, Message.DECLINE}
_TO_ANY_SERVER = {Message.SOLICIT, Message.CONFIRM, Message.REBIND}
_GRANTING = {Message.REQUEST, Message.RENEW, Message.REBIND}


@dataclass(frozen=True, slots=True)
class Lease6:
    """All that a guest is told. `server` is the DUID of whoever tells it."""

    address: IPv6Address
    server: bytes
    dns_servers: tuple[IPv6Address, ...] = ()
    dns_search: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Identity:
    """A set of addresses that a guest asks for (IA_NA), with those it names."""

    number: int
    addresses: tuple[IPv6Address, ...] = ()


@dataclass(frozen=True, slots=True)
class Request6:
    """What a guest sent."""

    type: Message
    transaction: bytes
    client: bytes  # DUID; empty where the guest names none
    server: bytes  # DUID; empty where the message is for any server
    identities: tuple[Identity, ...] = ()
    rapid_commit: bool = False
    has_other_sets: bool = False  # of temporary addresses, or of prefixes


@dataclass(frozen=True, slots=True)
class Reply6:
    """A message for the guest. `grants` when the guest has the address by it."""

    type: Message
    packet: bytes
    grants: bool = False


def server_duid(uuid: UUID) -> bytes:
    """The DUID of a server that is known by `uuid` (RFC 6355)."""
    return _DUID_UUID.to_bytes(2, "big") + uuid.bytes


def parse_request6(packet: bytes) -> Request6 | None:
    """The request in `packet`; None for anything else, however malformed."""
    if len(packet) < _HEADER_BYTES:
        return None
    try:
        options = list(_options(packet[_HEADER_BYTES:]))
        singles = dict(reversed(options))  # of several the first counts
        return Request6(
            type=Message(packet[0]),
            transaction=packet[1:_HEADER_BYTES],
            client=_duid(singles, _CLIENT_ID),
            server=_duid(singles, _SERVER_ID),
            identities=tuple(_identity(value) for code, value in options if code == _IDENTITY),
            rapid_commit=_RAPID_COMMIT in singles,
            has_other_sets=_TEMPORARY in singles or _PREFIXES in singles,
        )
    except ValueError:
        return None


def answer6(request: Request6, lease: Lease6) -> Reply6 | None:
    """The reply to `request`; None where a server keeps silent (RFC 8415, 16)."""
    if not _is_for(request, lease):
        return None
    match request.type:
        case Message.SOLICIT if request.rapid_commit:
            rapid = _option(_RAPID_COMMIT, b"", or_empty=True)
            body = rapid + _addresses(request, lease) + _network_options(lease)
            return _reply(request, lease, Message.REPLY, body, grants=bool(request.identities))
        case Message.SOLICIT:
            body = _addresses(request, lease) + _network_options(lease)
            return _reply(request, lease, Message.ADVERTISE, body)
        case Message.REQUEST | Message.RENEW | Message.REBIND:
            body = _addresses(request, lease) + _network_options(lease)
            return _reply(request, lease, Message.REPLY, body, grants=bool(request.identities))
        case Message.CONFIRM:
            return _confirm(request, lease)
        case Message.RELEASE | Message.DECLINE:
            return _reply(request, lease, Message.REPLY, _status(Status.SUCCESS))
        case Message.INFORMATION_REQUEST:
            return _reply(request, lease, Message.REPLY, _network_options(lease))
        case _:
            return None


def _is_for(request: Request6, lease: Lease6) -> bool:
    if request.type in _TO_ONE_SERVER:
        return bool(request.client) and request.server == lease.server
    if request.type in _TO_ANY_SERVER:
        return bool(request.client) and not request.server
    if request.type is Message.INFORMATION_REQUEST:
        asks_for_more = bool(request.identities) or request.has_other_sets
        return request.server in (b"", lease.server) and not asks_for_more
    return False


def _confirm(request: Request6, lease: Lease6) -> Reply6 | None:
    named = [address for each in request.identities for address in each.addresses]
    if not named:
        return None
    is_right = all(each == lease.address for each in named)
    status = Status.SUCCESS if is_right else Status.NOT_ON_LINK
    return _reply(request, lease, Message.REPLY, _status(status), grants=is_right)


def _addresses(request: Request6, lease: Lease6) -> bytes:
    """The address for the first set that is asked for; there is none for another."""
    encoded = b""
    for position, identity in enumerate(request.identities[:_MAX_IAS]):
        if position == 0:
            content = _address(lease.address, _FOREVER)
            if request.type in _GRANTING:
                others = dict.fromkeys(each for each in identity.addresses if each != lease.address)
                content += b"".join(_address(each, 0) for each in list(others)[:_MAX_IAS])
        else:
            content = _status(Status.NO_ADDRESSES)
        encoded += _option(_IDENTITY, _IA_NA.pack(identity.number, _FOREVER, _FOREVER) + content)
    return encoded


def _network_options(lease: Lease6) -> bytes:
    servers = b"".join(each.packed for each in lease.dns_servers[:8])
    return _option(_DNS, servers) + _option(
        _DOMAIN_SEARCH, encode_domains(lease.dns_search, _DOMAINS_BYTES)
    )


def _reply(
    request: Request6, lease: Lease6, type_: Message, body: bytes, *, grants: bool = False
) -> Reply6:
    client = _option(_CLIENT_ID, request.client)
    header = bytes([type_]) + request.transaction + client + _option(_SERVER_ID, lease.server)
    return Reply6(type_, header + body, grants)


def _address(address: IPv6Address, lifetime_s: int) -> bytes:
    return _option(_ADDRESS, _IA_ADDRESS.pack(address.packed, lifetime_s, lifetime_s))


def _status(status: Status) -> bytes:
    return _option(_STATUS, status.to_bytes(2, "big"))


def _option(code: int, value: bytes, *, or_empty: bool = False) -> bytes:
    return _OPTION.pack(code, len(value)) + value if value or or_empty else b""


def _options(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Code and value of each option. Raises ValueError where one is longer than what there is."""
    position = 0
    while position < len(data):
        if position + _OPTION.size > len(data):
            raise ValueError("an option without a length")
        code, length = _OPTION.unpack_from(data, position)
        position += _OPTION.size
        if position + length > len(data):
            raise ValueError("an option that is cut off")
        yield code, data[position : position + length]
        position += length


def _duid(options: Mapping[int, bytes], code: int) -> bytes:
    if code not in options:
        return b""
    if len(options[code]) not in _DUID_BYTES:
        raise ValueError("a DUID of an impossible length")
    return options[code]


def _identity(value: bytes) -> Identity:
    if len(value) < _IA_NA.size:
        raise ValueError("a set of addresses that is cut off")
    number, _, _ = _IA_NA.unpack_from(value)
    return Identity(number, tuple(_named_addresses(value[_IA_NA.size :])))


def _named_addresses(options: bytes) -> Iterator[IPv6Address]:
    for code, value in _options(options):
        if code != _ADDRESS:
            continue
        if len(value) < _IA_ADDRESS.size:
            raise ValueError("an address that is cut off")
        yield IPv6Address(_IA_ADDRESS.unpack_from(value)[0])
