"""Rules of nftables as values: what a packet is asked for, and what becomes of it.

Invariant: pure. A rule is a sequence of expressions, each asked only if those before it hold.
"""

import socket
import struct
from collections.abc import Sequence
from enum import IntEnum

from podvisor_handler.linux.netlink import Attribute

# linux/netfilter/nf_tables.h
_EXPRESSION_NAME, _EXPRESSION_DATA = 1, 2
_DATA_VALUE, _DATA_VERDICT = 1, 2
_VERDICT_CODE, _VERDICT_CHAIN = 1, 2
_DROP, _ACCEPT, _JUMP, _RETURN = 0, 1, -3, -5
_REGISTER_VERDICT = struct.pack(">I", 0)
_REGISTER_1 = struct.pack(">I", 1)
_REGISTER_1_SECOND_WORD = struct.pack(">I", 9)
_EQUAL, _UNEQUAL, _AT_MOST, _AT_LEAST = 0, 1, 3, 5
_META_IIFNAME, _META_OIFNAME, _META_L4PROTO, _META_PKTTYPE = 6, 7, 16, 19
_PACKET_HOST = 0
_UPDATE = 1
_NAT_SOURCE, _NAT_DESTINATION = 0, 1
_INTERFACE_NAME_BYTES = 16

Expression = Sequence[Attribute]
Rule = Sequence[Expression]


class Base(IntEnum):
    """What the offset of a payload counts from."""

    LINK = 0
    NETWORK = 1
    TRANSPORT = 2


def enters_by(device: str) -> Rule:
    """Of packets that come in by a device."""
    return _meta_equals(_META_IIFNAME, _device_name(device))


def leaves_by(device: str) -> Rule:
    """Of packets that go out by a device."""
    return _meta_equals(_META_OIFNAME, _device_name(device))


def carries(protocol: int) -> Rule:
    """Of packets with a transport protocol (IPPROTO_*)."""
    return _meta_equals(_META_L4PROTO, bytes([protocol]))


def goes_to_port(protocol: int, number: int) -> Rule:
    """Of packets to a port."""
    return [*carries(protocol), *has(Base.TRANSPORT, 2, struct.pack(">H", number))]


def goes_to_port_in(ports: str) -> Rule:
    """Of packets to a port in the set of that name, whose elements are made by transport_port()."""
    load: Sequence[Attribute] = [
        (1, _REGISTER_1_SECOND_WORD),
        (2, _number(Base.TRANSPORT)),
        (3, _number(2)),
        (4, _number(2)),
    ]
    return [
        _expression("meta", [(1, _REGISTER_1), (2, _number(_META_L4PROTO))]),
        _expression("payload", load),
        _expression("lookup", [(1, _text(ports)), (2, _REGISTER_1)]),
    ]


def transport_port(protocol: int, number: int) -> bytes:
    """An element of a set of ports; `protocol` is one of IPPROTO_*."""
    return struct.pack(">B3xH2x", protocol, number)


def has(base: Base, offset: int, value: bytes) -> Rule:
    """Of packets that hold `value` at an offset."""
    return [_load(base, offset, len(value)), _compare(_EQUAL, value)]


def has_not(base: Base, offset: int, value: bytes) -> Rule:
    """Of packets that hold something else there."""
    return [_load(base, offset, len(value)), _compare(_UNEQUAL, value)]


def is_between(base: Base, offset: int, first: bytes, last: bytes) -> Rule:
    """Of packets that hold one of the values from `first` to `last` there."""
    limits = [_compare(_AT_LEAST, first), _compare(_AT_MOST, last)]
    return [_load(base, offset, len(first)), *limits]


def is_one_of_few(few: str, base: Base, offset: int, length: int) -> Rule:
    """Of packets whose bytes at an offset are in the set of that name, which takes them in as long as it has room."""
    update: Sequence[Attribute] = [
        (1, _text(few)),
        (3, _number(_UPDATE)),
        (4, _REGISTER_1),
    ]
    return [_load(base, offset, length), _expression("dynset", update)]


def drop() -> Expression:
    """The packet is gone."""
    return _verdict(_DROP)


def accept() -> Expression:
    """No further rule at this hook and priority is asked."""
    return _verdict(_ACCEPT)


def back() -> Expression:
    """The calling chain goes on."""
    return _verdict(_RETURN)


def jump(chain: str) -> Expression:
    """The rules of another chain come next."""
    return _verdict(_JUMP, (_VERDICT_CHAIN, _text(chain)))


def masquerade() -> Expression:
    """The source becomes the address of the device that the packet leaves by."""
    return _expression("masq", [])


def to_destination(address: bytes) -> list[Expression]:
    """The packet goes to another address."""
    return _translate(_NAT_DESTINATION, address)


def from_source(address: bytes) -> list[Expression]:
    """The packet comes from another address."""
    return _translate(_NAT_SOURCE, address)


def write_hardware_destination(mac: bytes) -> list[Expression]:
    """The frame is addressed to `mac`, and taken as meant for this machine."""
    written: Sequence[Attribute] = [
        (2, _number(Base.LINK)),
        (3, _number(0)),
        (4, _number(len(mac))),
        (5, _REGISTER_1),
    ]
    return [
        _immediate(mac),
        _expression("payload", written),
        _immediate(bytes([_PACKET_HOST])),
        _expression("meta", [(2, _number(_META_PKTTYPE)), (3, _REGISTER_1)]),
    ]


def _translate(kind: int, address: bytes) -> list[Expression]:
    family = socket.AF_INET if len(address) == 4 else socket.AF_INET6
    return [
        _immediate(address),
        _expression("nat", [(1, _number(kind)), (2, _number(family)), (3, _REGISTER_1)]),
    ]


def _meta_equals(key: int, value: bytes) -> list[Expression]:
    return [_expression("meta", [(1, _REGISTER_1), (2, _number(key))]), _compare(_EQUAL, value)]


def _load(base: Base, offset: int, length: int) -> Expression:
    load: Sequence[Attribute] = [
        (1, _REGISTER_1),
        (2, _number(base)),
        (3, _number(offset)),
        (4, _number(length)),
    ]
    return _expression("payload", load)


def _compare(operator: int, value: bytes) -> Expression:
    operands: Sequence[Attribute] = [
        (1, _REGISTER_1),
        (2, _number(operator)),
        (3, [(_DATA_VALUE, value)]),
    ]
    return _expression("cmp", operands)


def _immediate(value: bytes) -> Expression:
    return _expression("immediate", [(1, _REGISTER_1), (2, [(_DATA_VALUE, value)])])


def _verdict(code: int, *more: Attribute) -> Expression:
    verdict: Sequence[Attribute] = [
        (_DATA_VERDICT, [(_VERDICT_CODE, struct.pack(">i", code)), *more])
    ]
    return _expression("immediate", [(1, _REGISTER_VERDICT), (2, verdict)])


def _expression(name: str, data: Sequence[Attribute]) -> Expression:
    return [(_EXPRESSION_NAME, _text(name)), (_EXPRESSION_DATA, data)]


def _text(text: str) -> bytes:
    return text.encode() + b"\0"


def _number(value: int) -> bytes:
    return struct.pack(">I", value)


def _device_name(name: str) -> bytes:
    return name.encode().ljust(_INTERFACE_NAME_BYTES, b"\0")
