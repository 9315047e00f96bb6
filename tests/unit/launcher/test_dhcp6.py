"""DHCPv6 messages: what a guest sends and what it gets."""

import struct
from ipaddress import IPv6Address
from uuid import UUID

import pytest
from podvisor_launcher.dhcp.names import encode_domains
from podvisor_launcher.dhcp.packet6 import (
    Lease6,
    Reply6,
    answer6,
    parse_request6,
    server_duid,
)

CLIENT = bytes.fromhex("00030001020000123456")
SERVER = server_duid(UUID("0b4f3f5c-6d4c-4f0e-9a57-3f6f5a1f7a11"))
ADDRESS, ELSEWHERE = IPv6Address("fd10:0:2::2"), IPv6Address("2001:db8::9")
LEASE = Lease6(
    address=ADDRESS,
    server=SERVER,
    dns_servers=(IPv6Address("fd00:10:96::a"),),
    dns_search=("default.svc.cluster.local",),
)
FOREVER = b"\xff" * 4
ME, THEE = (1, CLIENT), (2, SERVER)
DNS = (23, IPv6Address("fd00:10:96::a").packed)
SEARCH = (24, encode_domains(LEASE.dns_search, 255))
SUCCESS, NO_ADDRESSES, NOT_ON_LINK = ((13, bytes([0, code])) for code in (0, 2, 4))

Option = tuple[int, bytes]


def encoded(*options: Option) -> bytes:
    return b"".join(struct.pack("!HH", code, len(value)) + value for code, value in options)


def message(type_: int, *options: Option) -> bytes:
    return bytes([type_]) + b"\x01\x02\x03" + encoded(*options)


def wish(number: int = 7, *addresses: IPv6Address) -> Option:
    """A set of addresses, as a client asks for it."""
    named = [(5, each.packed + bytes(8)) for each in addresses]
    return 3, struct.pack("!III", number, 0, 0) + encoded(*named)


def given(number: int, *options: Option) -> Option:
    """A set of addresses, as a server tells it."""
    return 3, number.to_bytes(4, "big") + FOREVER * 2 + encoded(*options)


def ours() -> Option:
    return 5, ADDRESS.packed + FOREVER * 2


def no_more(address: IPv6Address) -> Option:
    return 5, address.packed + bytes(8)


def reply_to(packet: bytes) -> Reply6 | None:
    parsed = parse_request6(packet)
    assert parsed is not None
    return answer6(parsed, LEASE)


@pytest.mark.parametrize(
    ("situation", "asked", "type_", "told", "grants"),
    [
        ("solicits", message(1, ME, wish()), 2, (given(7, ours()), DNS, SEARCH), False),
        (
            "solicits and will take what comes",
            message(1, ME, (14, b""), wish()),
            7,
            ((14, b""), given(7, ours()), DNS, SEARCH),
            True,
        ),
        ("solicits no address", message(1, ME), 2, (DNS, SEARCH), False),
        (
            "takes no address that comes",
            message(1, ME, (14, b"")),
            7,
            ((14, b""), DNS, SEARCH),
            False,
        ),
        (
            "solicits two addresses",
            message(1, ME, wish(), wish(8)),
            2,
            (given(7, ours()), given(8, NO_ADDRESSES), DNS, SEARCH),
            False,
        ),
        (
            "requests",
            message(3, ME, THEE, wish(7, ADDRESS)),
            7,
            (given(7, ours()), DNS, SEARCH),
            True,
        ),
        (
            "renews",
            message(5, ME, THEE, wish(7, ADDRESS)),
            7,
            (given(7, ours()), DNS, SEARCH),
            True,
        ),
        (
            "renews what it had elsewhere",
            message(5, ME, THEE, wish(7, ELSEWHERE)),
            7,
            (given(7, ours(), no_more(ELSEWHERE)), DNS, SEARCH),
            True,
        ),
        ("rebinds", message(6, ME, wish(7, ADDRESS)), 7, (given(7, ours()), DNS, SEARCH), True),
        ("is right", message(4, ME, wish(7, ADDRESS)), 7, (SUCCESS,), True),
        ("comes from elsewhere", message(4, ME, wish(7, ELSEWHERE)), 7, (NOT_ON_LINK,), False),
        ("releases", message(8, ME, THEE, wish(7, ADDRESS)), 7, (SUCCESS,), False),
        ("declines", message(9, ME, THEE, wish(7, ADDRESS)), 7, (SUCCESS,), False),
        ("asks what there is", message(11, ME), 7, (DNS, SEARCH), False),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_guest_is_told(
    situation: str, asked: bytes, type_: int, told: tuple[Option, ...], grants: bool
) -> None:
    reply = reply_to(asked)
    assert reply is not None
    assert reply.type == type_
    assert reply.packet == message(type_, ME, THEE, *told)
    assert reply.grants == grants


def test_a_guest_without_a_name_may_ask_what_there_is() -> None:
    reply = reply_to(message(11))
    assert reply is not None
    assert reply.packet == message(7, THEE, DNS, SEARCH)


@pytest.mark.parametrize(
    ("situation", "asked"),
    [
        ("solicits without a name", message(1, wish())),
        ("solicits from one server", message(1, ME, THEE, wish())),
        ("requests from another server", message(3, ME, (2, CLIENT), wish())),
        ("requests from nobody", message(3, ME, wish())),
        ("requests without a name", message(3, THEE, wish())),
        ("renews with nobody", message(5, ME, wish())),
        ("rebinds with one server", message(6, ME, THEE, wish())),
        ("confirms nothing", message(4, ME, wish())),
        ("releases elsewhere", message(8, ME, (2, CLIENT), wish())),
        ("declines without a name", message(9, THEE, wish())),
        ("asks another server", message(11, ME, (2, CLIENT))),
        ("asks what there is and for an address", message(11, ME, wish())),
        ("asks what there is and for a prefix", message(11, ME, (25, bytes(12)))),
        ("takes itself for a server", message(7, ME, THEE)),
        ("advertises", message(2, ME, THEE)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_answered(situation: str, asked: bytes) -> None:
    assert reply_to(asked) is None


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"\x01\x02\x03",
        message(0, ME),
        message(10, ME),
        message(12, ME),
        message(13, ME),
        message(255, ME),
        message(1, ME)[:-1],
        message(1, ME) + b"\x00",
        message(1, ME) + b"\x00\x03\xff\xff",
        message(1, (1, b"")),
        message(1, (1, bytes(131))),
        message(3, ME, (2, b"x")),
        message(1, ME, (3, bytes(11))),
        message(1, ME, (3, bytes(12) + b"\x00\x05\x00")),
        message(1, ME, (3, bytes(12) + encoded((5, bytes(23))))),
        message(1, ME, (3, bytes(12) + b"\x00\x05\x00\x19" + bytes(24))),
    ],
)
def test_garbage_is_no_request(packet: bytes) -> None:
    assert parse_request6(packet) is None


def test_what_is_repeated_to_a_guest_is_bounded() -> None:
    named = [IPv6Address(number) for number in range(1, 40)]
    reply = reply_to(message(5, ME, THEE, wish(1, *named), *(wish(each) for each in range(2, 40))))
    assert reply is not None
    assert len(reply.packet) < 700
