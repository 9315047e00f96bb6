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
from podvisor_handler.linux.nft_rules import Rule

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
_SET_TABLE, _SET_NAME, _SET_FLAGS, _SET_KEY_TYPE, _SET_KEY_BYTES = 1, 2, 3, 4, 5
_SET_DESCRIPTION, _SET_ID, _SET_LIFETIME_MS, _SET_ROOM = 9, 10, 11, 1
_FORGETS, _BY_PACKETS = 0x10, 0x20
_ELEMENTS_TABLE, _ELEMENTS_SET, _ELEMENTS, _ELEMENT_KEY = 1, 2, 3, 1
# An attribute has 64 KiB, and an element less than 32 bytes.
_ELEMENTS_LIMIT = 2000
_LIST_ELEMENT = 1
_DATA_VALUE = 1


class Family(IntEnum):
    """Families of tables."""

    IP = 2
    BRIDGE = 7
    IP6 = 10


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
    IPV6_ADDRESS = (8, 16)


@dataclass(frozen=True, slots=True)
class Set:
    """Values that a packet is looked up in. One with `room` for some is filled by packets, and forgets what none had for
    `lifetime_s`."""

    name: str
    key: Key
    elements: Sequence[bytes] = ()
    room: int = 0
    lifetime_s: int = 0


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
    attributes: list[Attribute] = [
        (_SET_TABLE, _text(TABLE)),
        (_SET_NAME, _text(it.name)),
        (_SET_KEY_TYPE, _number(type_)),
        (_SET_KEY_BYTES, _number(size)),
        (_SET_ID, _number(1)),  # asked for, and of no use to who goes by names
    ]
    if it.room:
        attributes += [
            (_SET_FLAGS, _number(_BY_PACKETS | _FORGETS)),
            (_SET_DESCRIPTION, [(_SET_ROOM, _number(it.room))]),
            (_SET_LIFETIME_MS, struct.pack(">Q", it.lifetime_s * 1000)),
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
