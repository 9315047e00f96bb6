"""DHCP packets: what a guest sends and what it gets."""

import struct
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest
from podvisor_launcher.dhcp.names import encode_domains
from podvisor_launcher.dhcp.packet import (
    Lease,
    MessageType,
    Reply,
    Route,
    answer,
    classless_routes,
    parse_request,
)

MAC = bytes.fromhex("020000123456")
LEASE = Lease(
    address=IPv4Address("10.0.2.2"),
    network=IPv4Network("10.0.2.0/24"),
    server=IPv4Address("10.0.2.1"),
    gateway=IPv4Address("10.0.2.1"),
    dns_servers=(IPv4Address("10.96.0.10"), IPv4Address("10.96.0.11")),
    dns_search=("default.svc.cluster.local", "cluster.local"),
    hostname="myvm",
    mtu_bytes=1450,
)


def request(type_: int, *, ciaddr: str = "0.0.0.0", **options: bytes) -> bytes:
    """A packet as a client sends it; options as `o50=...`."""
    header = struct.pack(
        "!BBBBIHH4s12s16s192s",
        1,
        1,
        6,
        0,
        0xDEADBEEF,
        0,
        0x8000,
        IPv4Address(ciaddr).packed,
        b"",
        MAC,
        b"",
    )
    encoded = bytes([53, 1, type_])
    for name, value in options.items():
        encoded += bytes([int(name[1:]), len(value)]) + value
    return header + b"\x63\x82\x53\x63" + encoded + b"\xff"


def reply_to(packet: bytes, lease: Lease = LEASE) -> Reply | None:
    parsed = parse_request(packet)
    assert parsed is not None
    return answer(parsed, lease)


def options_of(reply: Reply) -> dict[int, bytes]:
    options, position = {}, 240
    while reply.packet[position] != 255:
        code, length = reply.packet[position], reply.packet[position + 1]
        options[code] = reply.packet[position + 2 : position + 2 + length]
        position += 2 + length
    return options


def test_an_offer_holds_everything() -> None:
    reply = reply_to(request(MessageType.DISCOVER))
    assert reply is not None
    assert reply.type is MessageType.OFFER
    assert reply.destination == IPv4Address("255.255.255.255")
    assert reply.packet[:8] == b"\x02\x01\x06\x00\xde\xad\xbe\xef"
    assert reply.packet[10:12] == b"\x80\x00"
    assert reply.packet[16:20] == LEASE.address.packed
    assert reply.packet[28:34] == MAC
    assert len(reply.packet) >= 300
    assert options_of(reply) == {
        53: b"\x02",
        54: LEASE.server.packed,
        51: b"\xff\xff\xff\xff",
        1: b"\xff\xff\xff\x00",
        3: LEASE.server.packed,
        6: bytes([10, 96, 0, 10, 10, 96, 0, 11]),
        12: b"myvm",
        15: b"default.svc.cluster.local",
        119: encode_domains(LEASE.dns_search, 255),
        26: (1450).to_bytes(2, "big"),
    }


def test_what_the_lease_lacks_is_not_offered() -> None:
    bare = Lease(LEASE.address, LEASE.network, LEASE.server)
    reply = reply_to(request(MessageType.DISCOVER), bare)
    assert reply is not None
    assert set(options_of(reply)) == {53, 54, 51, 1}


@pytest.mark.parametrize(
    ("situation", "packet", "type_"),
    [
        (
            "takes the offer",
            request(3, o50=LEASE.address.packed, o54=LEASE.server.packed),
            MessageType.ACK,
        ),
        ("remembers its address", request(3, o50=LEASE.address.packed), MessageType.ACK),
        ("renews", request(3, ciaddr="10.0.2.2"), MessageType.ACK),
        ("remembers another network", request(3, o50=bytes([192, 168, 0, 9])), MessageType.NAK),
        ("asks for nothing", request(3), MessageType.NAK),
        ("takes another server's offer", request(3, o50=LEASE.address.packed, o54=bytes(4)), None),
        ("has its own address", request(8, ciaddr="10.0.2.9"), MessageType.ACK),
        ("gives it back", request(7), None),
        ("declines", request(4), None),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_guest_may_say(situation: str, packet: bytes, type_: MessageType | None) -> None:
    reply = reply_to(packet)
    assert (reply.type if reply else None) is type_


def test_a_renewal_is_answered_where_it_came_from() -> None:
    reply = reply_to(request(3, ciaddr="10.0.2.2"))
    assert reply is not None
    assert reply.destination == IPv4Address("10.0.2.2")


def test_a_refusal_names_no_address() -> None:
    reply = reply_to(request(3, o50=bytes([192, 168, 0, 9])))
    assert reply is not None
    assert reply.packet[12:20] == bytes(8)
    assert set(options_of(reply)) == {53, 54}


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        bytes(239),
        bytes(300),
        request(99),
        request(1)[:240],
        b"\x02" + request(1)[1:],
        request(1)[:236] + b"\0\0\0\0" + request(1)[240:],
        request(1)[:240] + b"\x35",
        request(1)[:240] + b"\x35\x00\xff",
    ],
)
def test_garbage_is_no_request(packet: bytes) -> None:
    assert parse_request(packet) is None


def test_domains_are_encoded_and_bounded() -> None:
    assert encode_domains(["a.bc."], 255) == b"\x01a\x02bc\x00"
    assert encode_domains(["x" * 64, "ok"], 255) == b"\x02ok\x00"
    assert encode_domains([".".join(["x" * 60] * 5), "ok"], 1000) == b"\x02ok\x00"
    assert len(encode_domains([f"{number:060d}.local" for number in range(20)], 255)) <= 255


def test_everything_an_owner_may_ask_for_is_offered() -> None:
    rich = replace(
        LEASE,
        ntp_servers=(IPv4Address("10.0.0.5"), IPv4Address("10.0.0.6")),
        boot_file="pxelinux.0",
        tftp_server="192.0.2.7",
        private_options=((224, b"a"), (254, "ü".encode())),
    )
    reply = reply_to(request(MessageType.DISCOVER), rich)
    assert reply is not None
    options = options_of(reply)
    assert {code: options[code] for code in (42, 66, 67, 224, 254)} == {
        42: bytes([10, 0, 0, 5, 10, 0, 0, 6]),
        66: b"192.0.2.7",
        67: b"pxelinux.0",
        224: b"a",
        254: b"\xc3\xbc",
    }
    assert reply.packet[20:24] == bytes([192, 0, 2, 7])
    assert reply.packet[108:236].rstrip(b"\0") == b"pxelinux.0"


def test_a_boot_file_that_the_header_has_no_room_for_is_an_option_alone() -> None:
    reply = reply_to(request(MessageType.DISCOVER), replace(LEASE, boot_file="x" * 128))
    assert reply is not None
    assert options_of(reply)[67] == b"x" * 128
    assert reply.packet[108:236] == bytes(128)


def test_a_tftp_server_with_a_name_is_an_option_alone() -> None:
    reply = reply_to(request(MessageType.DISCOVER), replace(LEASE, tftp_server="boot.example"))
    assert reply is not None
    assert options_of(reply)[66] == b"boot.example"
    assert reply.packet[20:24] == bytes(4)


NETWORK = IPv4Network("10.1.0.0/16")
GATEWAY = IPv4Address("10.0.2.1")
FAR = IPv4Address("169.254.1.1")
EVERYWHERE = IPv4Network("0.0.0.0/0")


@pytest.mark.parametrize(
    ("situation", "changes", "expected"),
    [
        ("mask and gateway say it all", {}, ()),
        ("no gateway", {"gateway": None}, ()),
        (
            "another network",
            {"routes": (Route(NETWORK, GATEWAY),)},
            (Route(NETWORK, GATEWAY), Route(EVERYWHERE, GATEWAY)),
        ),
        (
            "another network and no gateway",
            {"routes": (Route(NETWORK, GATEWAY),), "gateway": None},
            (Route(NETWORK, GATEWAY),),
        ),
        (
            "a network of one address",
            {"network": IPv4Network("10.0.2.2/32"), "gateway": FAR},
            (Route(IPv4Network("169.254.1.1/32"), None), Route(EVERYWHERE, FAR)),
        ),
        (
            "a router that a route of its own leads to",
            {
                "network": IPv4Network("10.0.2.2/32"),
                "gateway": FAR,
                "routes": (Route(IPv4Network("169.254.1.0/24"), None),),
            },
            (Route(IPv4Network("169.254.1.0/24"), None), Route(EVERYWHERE, FAR)),
        ),
        (
            "a far router of one network",
            {"routes": (Route(NETWORK, FAR),)},
            (
                Route(IPv4Network("169.254.1.1/32"), None),
                Route(NETWORK, FAR),
                Route(EVERYWHERE, GATEWAY),
            ),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_routes(situation: str, changes: dict[str, object], expected: tuple[Route, ...]) -> None:
    assert classless_routes(replace(LEASE, **changes)) == expected  # type: ignore[arg-type]


def test_routes_are_written_with_as_much_of_the_network_as_counts() -> None:
    reply = reply_to(
        request(MessageType.DISCOVER), replace(LEASE, routes=(Route(NETWORK, GATEWAY),))
    )
    assert reply is not None
    assert options_of(reply)[121] == bytes([16, 10, 1, 10, 0, 2, 1, 0, 10, 0, 2, 1])


def test_more_than_an_option_holds_is_written_as_several() -> None:
    networks = [IPv4Network(f"10.{number}.0.0/16") for number in range(40)]
    lease = replace(LEASE, routes=tuple(Route(each, GATEWAY) for each in networks))
    reply = reply_to(request(MessageType.DISCOVER, o57=(1500).to_bytes(2, "big")), lease)
    assert reply is not None
    first = reply.packet.index(bytes([121, 255]))
    assert reply.packet[first + 257 : first + 259] == bytes([121, 40 * 7 + 5 - 255])


@pytest.mark.parametrize(
    ("said", "limit"),
    [
        (b"", 548),
        ((100).to_bytes(2, "big"), 548),
        ((1000).to_bytes(2, "big"), 972),
        (b"\xff\xff", 1472),
    ],
)
def test_an_answer_is_as_large_as_the_guest_can_take(said: bytes, limit: int) -> None:
    full = replace(LEASE, private_options=tuple((code, b"x" * 100) for code in range(224, 254)))
    packet = request(1, o57=said) if said else request(1)
    reply = reply_to(packet, full)
    assert reply is not None
    assert limit - 102 < len(reply.packet) <= limit


def test_what_a_guest_asks_for_comes_first() -> None:
    full = replace(LEASE, private_options=tuple((code, b"x" * 100) for code in range(224, 254)))
    reply = reply_to(request(MessageType.DISCOVER, o55=bytes([250, 6, 3, 99])), full)
    assert reply is not None
    assert list(options_of(reply))[:7] == [53, 54, 51, 1, 3, 250, 6]
