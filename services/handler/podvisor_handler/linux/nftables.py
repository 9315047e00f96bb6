"""Tables of nftables as values, and the transaction that puts them into effect.

Invariant: pure. A transaction replaces whole tables, whatever they held before, and leaves a digest of what they hold
in their comments; the kernel takes all of it or nothing.
"""

import hashlib
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum

from podvisor_handler.linux.netlink import (
    ACK,
    APPEND,
    CREATE,
    REQUEST,
    Attribute,
    Message,
    decode_attributes,
    encode_attributes,
)

TABLE = "podvisor"
_COMMENT = "podvisor "

# linux/netfilter/nfnetlink.h and nf_tables.h
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_SUBSYSTEM = 10
_NEWTABLE, _GETTABLE, _DELTABLE, _NEWCHAIN, _NEWRULE, _NEWSET, _NEWSETELEM = 0, 1, 2, 3, 6, 9, 12
_TABLE_NAME, _TABLE_USERDATA = 1, 6
_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_TYPE = 1, 3, 4, 7
_HOOK_NUMBER, _HOOK_PRIORITY = 1, 2
_RULE_TABLE, _RULE_CHAIN, _RULE_EXPRESSIONS = 1, 2, 4
_SET_TABLE, _SET_NAME, _SET_KEY_TYPE, _SET_KEY_BYTES, _SET_ID = 1, 2, 4, 5, 10
_ELEMENTS_TABLE, _ELEMENTS_SET, _ELEMENTS, _ELEMENT_KEY = 1, 2, 3, 1
# An attribute has 64 KiB, and an element less than 32 bytes.
_ELEMENTS_LIMIT = 2000
_LIST_ELEMENT, _EXPRESSION_NAME, _EXPRESSION_DATA = 1, 1, 2
_DATA_VALUE, _DATA_VERDICT = 1, 2
_VERDICT_CODE, _VERDICT_CHAIN = 1, 2
_DROP, _ACCEPT, _JUMP, _RETURN = 0, 1, -3, -5
_REGISTER_VERDICT = struct.pack(">I", 0)
_REGISTER_1 = struct.pack(">I", 1)
_REGISTER_1_SECOND_WORD = struct.pack(">I", 9)
_EQUAL, _UNEQUAL = 0, 1
_META_IIFNAME, _META_OIFNAME, _META_L4PROTO, _META_PKTTYPE = 6, 7, 16, 19
_PACKET_HOST = 0
_NAT_SOURCE, _NAT_DESTINATION = 0, 1
_INTERFACE_NAME_BYTES = 16

Expression = Sequence[Attribute]
Rule = Sequence[Expression]


class Family(IntEnum):
    """Families of tables."""

    IP = 2
    BRIDGE = 7
    IP6 = 10


class Base(IntEnum):
    """What the offset of a payload counts from."""

    LINK = 0
    NETWORK = 1
    TRANSPORT = 2


@dataclass(frozen=True, slots=True)
class Hook:
    """Where the kernel calls a chain: `filter` or `nat`, the hook's number, and the order among others there."""

    type: str
    number: int
    priority: int


# The numbers are the same in all families.
PREROUTING, INPUT, FORWARD, OUTPUT, POSTROUTING = 0, 1, 2, 3, 4


@dataclass(frozen=True, slots=True)
class Chain:
    """Rules in order. One without a hook is called by others."""

    name: str
    rules: Sequence[Rule]
    hook: Hook | None = None


class Key(Enum):
    """What a set holds: the number by which nft knows the type, and bytes of an element."""

    TRANSPORT_PORT = (12 << 6 | 13, 8)


@dataclass(frozen=True, slots=True)
class Set:
    """Values that a packet is looked up in. Of one size, however many there are."""

    name: str
    key: Key
    elements: Sequence[bytes] = ()


@dataclass(frozen=True, slots=True)
class Table:
    """The chains of our table in a family, and the sets that their rules look into."""

    family: Family
    chains: Sequence[Chain]
    sets: Sequence[Set] = ()


def digest_of(tables: Iterable[Table]) -> str:
    """Changes whenever what the tables do does."""
    hashed = hashlib.sha256()
    for table in tables:
        for message in _contents(table):
            hashed.update(bytes([table.family]) + encode_attributes(message.attributes))
    return hashed.hexdigest()[:16]


def replacement(tables: Sequence[Table], stale: Iterable[Family] = ()) -> list[Message]:
    """The messages of one transaction that puts `tables` into effect and removes those of the families `stale`."""
    digest = digest_of(tables)
    return [
        _edge(_BATCH_BEGIN),
        *(_change(family, _DELTABLE, [(_TABLE_NAME, _text(TABLE))]) for family in stale),
        *(message for table in tables for message in _replaced(table, digest)),
        _edge(_BATCH_END),
    ]


def table_request(family: Family) -> Message:
    """Asks for our table of a family."""
    name: Sequence[Attribute] = [(_TABLE_NAME, _text(TABLE))]
    return Message(_SUBSYSTEM << 8 | _GETTABLE, REQUEST, _family_header(family), name)


def digest_of_answer(answer: bytes | None) -> str | None:
    """The digest that the table carries, empty for one of another origin; None when there is no table."""
    if answer is None:
        return None
    userdata = decode_attributes(answer[4:]).get(_TABLE_USERDATA, b"")
    comment = userdata[2:].rstrip(b"\0").decode(errors="replace")
    return comment.removeprefix(_COMMENT) if comment.startswith(_COMMENT) else ""


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


def goes_to_port_in(ports: Set) -> Rule:
    """Of packets to one of `ports`, whose elements are made by transport_port()."""
    load: Sequence[Attribute] = [
        (1, _REGISTER_1_SECOND_WORD),
        (2, _number(Base.TRANSPORT)),
        (3, _number(2)),
        (4, _number(2)),
    ]
    return [
        _expression("meta", [(1, _REGISTER_1), (2, _number(_META_L4PROTO))]),
        _expression("payload", load),
        _expression("lookup", [(1, _text(ports.name)), (2, _REGISTER_1)]),
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
    family = Family.IP if len(address) == 4 else Family.IP6
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


def _replaced(table: Table, digest: str) -> list[Message]:
    name: Attribute = (_TABLE_NAME, _text(TABLE))
    return [
        # Adding a table that exists changes nothing; so the deletion always finds one.
        _change(table.family, _NEWTABLE, [name], CREATE),
        _change(table.family, _DELTABLE, [name]),
        _change(table.family, _NEWTABLE, [name, (_TABLE_USERDATA, _comment(digest))], CREATE),
        *_contents(table),
    ]


def _contents(table: Table) -> list[Message]:
    # All sets and chains before the rules that name them.
    return [
        *(message for each in table.sets for message in _set(table.family, each)),
        *(_chain(table.family, chain) for chain in table.chains),
        *(_rule(table.family, chain.name, rule) for chain in table.chains for rule in chain.rules),
    ]


def _set(family: Family, it: Set) -> Iterator[Message]:
    type_, size = it.key.value
    attributes: Sequence[Attribute] = [
        (_SET_TABLE, _text(TABLE)),
        (_SET_NAME, _text(it.name)),
        (_SET_KEY_TYPE, _number(type_)),
        (_SET_KEY_BYTES, _number(size)),
        (_SET_ID, _number(1)),  # asked for, and of no use to who goes by names
    ]
    yield _change(family, _NEWSET, attributes, CREATE)
    for start in range(0, len(it.elements), _ELEMENTS_LIMIT):
        elements: Sequence[Attribute] = [
            (_LIST_ELEMENT, [(_ELEMENT_KEY, [(_DATA_VALUE, element)])])
            for element in it.elements[start : start + _ELEMENTS_LIMIT]
        ]
        some: Sequence[Attribute] = [
            (_ELEMENTS_TABLE, _text(TABLE)),
            (_ELEMENTS_SET, _text(it.name)),
            (_ELEMENTS, elements),
        ]
        yield _change(family, _NEWSETELEM, some, CREATE)


def _chain(family: Family, chain: Chain) -> Message:
    attributes: list[Attribute] = [
        (_CHAIN_TABLE, _text(TABLE)),
        (_CHAIN_NAME, _text(chain.name)),
    ]
    if chain.hook is not None:
        where: Sequence[Attribute] = [
            (_HOOK_NUMBER, _number(chain.hook.number)),
            (_HOOK_PRIORITY, struct.pack(">i", chain.hook.priority)),
        ]
        attributes += [(_CHAIN_HOOK, where), (_CHAIN_TYPE, _text(chain.hook.type))]
    return _change(family, _NEWCHAIN, attributes, CREATE)


def _rule(family: Family, chain: str, rule: Rule) -> Message:
    attributes: Sequence[Attribute] = [
        (_RULE_TABLE, _text(TABLE)),
        (_RULE_CHAIN, _text(chain)),
        (_RULE_EXPRESSIONS, [(_LIST_ELEMENT, expression) for expression in rule]),
    ]
    return _change(family, _NEWRULE, attributes, CREATE | APPEND)


def _change(family: Family, kind: int, attributes: Sequence[Attribute], flags: int = 0) -> Message:
    header = _family_header(family)
    return Message(_SUBSYSTEM << 8 | kind, REQUEST | ACK | flags, header, attributes)


def _edge(kind: int) -> Message:
    return Message(kind, REQUEST, struct.pack(">BBH", socket.AF_UNSPEC, 0, _SUBSYSTEM))


def _family_header(family: Family) -> bytes:
    return struct.pack(">BBH", family, 0, 0)


def _comment(digest: str) -> bytes:
    text = _text(_COMMENT + digest)
    return bytes([0, len(text)]) + text


def _text(text: str) -> bytes:
    return text.encode() + b"\0"


def _number(value: int) -> bytes:
    return struct.pack(">I", value)


def _device_name(name: str) -> bytes:
    return name.encode().ljust(_INTERFACE_NAME_BYTES, b"\0")
