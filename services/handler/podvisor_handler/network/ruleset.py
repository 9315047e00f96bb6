"""The address translation of a masqueraded guest, and what it may send, as one nftables transaction.

Invariant: pure. The batch replaces the whole table, whatever it held before, and leaves its digest
in the table's comment; the kernel takes all of it or nothing.

Readable form of what masquerade_batch() makes, for a guest at 10.0.2.2 with all ports:

    table ip podvisor {
        chain prerouting { type nat hook prerouting priority dstnat;
            iifname "eth0" dnat to 10.0.2.2 }
        chain forward { type filter hook forward priority filter;
            iifname "k6t-eth0" ip saddr != 10.0.2.2 drop }
        chain postrouting { type nat hook postrouting priority srcnat;
            ip saddr 10.0.2.2 oifname "eth0" masquerade }
    }
"""

import socket
import struct
from collections.abc import Sequence

from podvisor_handler.linux.netlink import (
    ACK,
    APPEND,
    CREATE,
    REQUEST,
    Attribute,
    Message,
    decode_attributes,
)
from podvisor_handler.network.plan import BRIDGE, POD_INTERFACE, Masquerade, Port

TABLE = "podvisor"
_COMMENT = "podvisor "

# linux/netfilter/nfnetlink.h and nf_tables.h
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_SUBSYSTEM = 10
_NEWTABLE, _GETTABLE, _DELTABLE, _NEWCHAIN, _NEWRULE = 0, 1, 2, 3, 6
_TABLE_NAME, _TABLE_USERDATA = 1, 6
_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_TYPE = 1, 3, 4, 7
_HOOK_NUMBER, _HOOK_PRIORITY = 1, 2
_RULE_TABLE, _RULE_CHAIN, _RULE_EXPRESSIONS = 1, 2, 4
_LIST_ELEMENT, _EXPRESSION_NAME, _EXPRESSION_DATA = 1, 1, 2
_DATA_VALUE, _DATA_VERDICT = 1, 2
_VERDICT_CODE, _DROP = 1, 0
_REGISTER_VERDICT = struct.pack(">I", 0)
_EQUAL, _UNEQUAL = 0, 1
_IPV4 = 2
_PREROUTING, _FORWARD, _POSTROUTING = 0, 2, 4
_PRIORITY_DSTNAT, _PRIORITY_FILTER, _PRIORITY_SRCNAT = -100, 0, 100
_REGISTER_1 = struct.pack(">I", 1)
_META_IIFNAME, _META_OIFNAME, _META_L4PROTO = 6, 7, 16
_NETWORK_HEADER, _TRANSPORT_HEADER = 1, 2
_NAT_DESTINATION = 1
_INTERFACE_NAME_BYTES = 16

Expression = Sequence[Attribute]


def masquerade_batch(desired: Masquerade) -> list[Message]:
    """The messages of one transaction that puts `desired` into effect."""
    guest = socket.inet_aton(desired.guest)
    inbound: list[list[Expression]]
    if desired.ports:
        inbound = [_inbound(guest, port) for port in sorted(desired.ports)]
    else:
        inbound = [_inbound(guest, None)]
    # No container without NET_RAW can send under an address that is not its pod's; nor shall a guest.
    forged = [
        *_meta_equals(_META_IIFNAME, _interface_name(BRIDGE)),
        *_payload_compared(_UNEQUAL, _NETWORK_HEADER, 12, guest),
        _drop(),
    ]
    outbound = [
        *_payload_equals(_NETWORK_HEADER, 12, guest),
        *_meta_equals(_META_OIFNAME, _interface_name(POD_INTERFACE)),
        _expression("masq", []),
    ]
    return [
        _edge(_BATCH_BEGIN),
        # Adding a table that exists changes nothing; so the deletion always finds one.
        _change(_NEWTABLE, [(_TABLE_NAME, _text(TABLE))], CREATE),
        _change(_DELTABLE, [(_TABLE_NAME, _text(TABLE))]),
        _change(
            _NEWTABLE,
            [(_TABLE_NAME, _text(TABLE)), (_TABLE_USERDATA, _comment(desired.digest))],
            CREATE,
        ),
        _chain("prerouting", "nat", _PREROUTING, _PRIORITY_DSTNAT),
        *(_rule("prerouting", expressions) for expressions in inbound),
        _chain("forward", "filter", _FORWARD, _PRIORITY_FILTER),
        _rule("forward", forged),
        _chain("postrouting", "nat", _POSTROUTING, _PRIORITY_SRCNAT),
        _rule("postrouting", outbound),
        _edge(_BATCH_END),
    ]


def table_request() -> Message:
    """Asks for the table."""
    return Message(
        _SUBSYSTEM << 8 | _GETTABLE, REQUEST, _family_header(), [(_TABLE_NAME, _text(TABLE))]
    )


def digest_of_table(answer: bytes | None) -> str | None:
    """The digest that the table carries; None when there is no table, or one of another origin."""
    if answer is None:
        return None
    userdata = decode_attributes(answer[4:]).get(_TABLE_USERDATA, b"")
    comment = userdata[2:].rstrip(b"\0").decode(errors="replace")
    return comment.removeprefix(_COMMENT) if comment.startswith(_COMMENT) else None


def _inbound(guest: bytes, port: Port | None) -> list[Expression]:
    expressions = _meta_equals(_META_IIFNAME, _interface_name(POD_INTERFACE))
    if port is not None:
        protocol = socket.IPPROTO_TCP if port.protocol == "tcp" else socket.IPPROTO_UDP
        expressions += _meta_equals(_META_L4PROTO, bytes([protocol]))
        expressions += _payload_equals(_TRANSPORT_HEADER, 2, struct.pack(">H", port.number))
    return [
        *expressions,
        _expression("immediate", [(1, _REGISTER_1), (2, [(_DATA_VALUE, guest)])]),
        _expression("nat", [(1, _number(_NAT_DESTINATION)), (2, _number(_IPV4)), (3, _REGISTER_1)]),
    ]


def _meta_equals(key: int, value: bytes) -> list[Expression]:
    return [_expression("meta", [(1, _REGISTER_1), (2, _number(key))]), _compare(_EQUAL, value)]


def _payload_equals(base: int, offset: int, value: bytes) -> list[Expression]:
    return _payload_compared(_EQUAL, base, offset, value)


def _payload_compared(operator: int, base: int, offset: int, value: bytes) -> list[Expression]:
    load: Sequence[Attribute] = [
        (1, _REGISTER_1),
        (2, _number(base)),
        (3, _number(offset)),
        (4, _number(len(value))),
    ]
    return [_expression("payload", load), _compare(operator, value)]


def _compare(operator: int, value: bytes) -> Expression:
    operands: Sequence[Attribute] = [
        (1, _REGISTER_1),
        (2, _number(operator)),
        (3, [(_DATA_VALUE, value)]),
    ]
    return _expression("cmp", operands)


def _drop() -> Expression:
    verdict: Sequence[Attribute] = [(_DATA_VERDICT, [(_VERDICT_CODE, _number(_DROP))])]
    return _expression("immediate", [(1, _REGISTER_VERDICT), (2, verdict)])


def _expression(name: str, data: Sequence[Attribute]) -> Expression:
    return [(_EXPRESSION_NAME, _text(name)), (_EXPRESSION_DATA, data)]


def _chain(name: str, type_: str, hook: int, priority: int) -> Message:
    where: Sequence[Attribute] = [
        (_HOOK_NUMBER, _number(hook)),
        (_HOOK_PRIORITY, struct.pack(">i", priority)),
    ]
    attributes: Sequence[Attribute] = [
        (_CHAIN_TABLE, _text(TABLE)),
        (_CHAIN_NAME, _text(name)),
        (_CHAIN_HOOK, where),
        (_CHAIN_TYPE, _text(type_)),
    ]
    return _change(_NEWCHAIN, attributes, CREATE)


def _rule(chain: str, expressions: Sequence[Expression]) -> Message:
    attributes: Sequence[Attribute] = [
        (_RULE_TABLE, _text(TABLE)),
        (_RULE_CHAIN, _text(chain)),
        (_RULE_EXPRESSIONS, [(_LIST_ELEMENT, expression) for expression in expressions]),
    ]
    return _change(_NEWRULE, attributes, CREATE | APPEND)


def _change(kind: int, attributes: Sequence[Attribute], flags: int = 0) -> Message:
    return Message(_SUBSYSTEM << 8 | kind, REQUEST | ACK | flags, _family_header(), attributes)


def _edge(kind: int) -> Message:
    return Message(kind, REQUEST, struct.pack(">BBH", 0, 0, _SUBSYSTEM))


def _family_header() -> bytes:
    return struct.pack(">BBH", _IPV4, 0, 0)


def _comment(digest: str) -> bytes:
    text = _text(_COMMENT + digest)
    return bytes([0, len(text)]) + text


def _text(text: str) -> bytes:
    return text.encode() + b"\0"


def _number(value: int) -> bytes:
    return struct.pack(">I", value)


def _interface_name(name: str) -> bytes:
    return name.encode().ljust(_INTERFACE_NAME_BYTES, b"\0")
