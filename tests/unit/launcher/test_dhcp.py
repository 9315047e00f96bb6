"""DHCP packets: what a guest sends and what it gets."""

import asyncio
import socket
import struct
from collections import Counter
from ipaddress import IPv4Address, IPv4Network

import pytest
from podvisor_launcher.dhcp import responder
from podvisor_launcher.dhcp.packet import (
    Lease,
    MessageType,
    Reply,
    answer,
    encode_domains,
    parse_request,
)
from podvisor_launcher.dhcp.responder import Listener, offers_by_bridge

from tests.unit.launcher.specs import interface, spec

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
        119: encode_domains(LEASE.dns_search),
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
    assert encode_domains(["a.bc."]) == b"\x01a\x02bc\x00"
    assert encode_domains(["x" * 64, "ok"]) == b"\x02ok\x00"
    assert len(encode_domains([f"{number:060d}.local" for number in range(20)])) <= 255


def test_offers_come_from_the_specification() -> None:
    silent = interface("quiet", mac="02:00:00:00:00:02")
    silent.ClearField("dhcp")
    offers = offers_by_bridge(spec(interfaces=[interface(), silent]))
    assert list(offers) == ["k6t-eth0"]
    (offer,) = offers["k6t-eth0"]
    assert (offer.interface, offer.mac) == ("default", "02:00:00:12:34:56")
    assert offer.lease.network == IPv4Network("10.0.2.0/24")
    assert offer.lease.mtu_bytes == 1450


async def test_a_flood_is_taken_in_small_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responder, "_PAUSE_S", 0.01)
    server, guest = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    server.bind(("127.0.0.1", 0))
    guest.connect(server.getsockname())
    turns, seen = 0, list[int]()
    done = asyncio.Event()

    def respond(packet: bytes) -> None:
        seen.append(turns)
        if packet == b"last":
            done.set()

    listener = Listener(server, respond)
    try:
        for _ in range(99):
            guest.send(b"x")
        guest.send(b"last")
        async with asyncio.timeout(10):
            while not done.is_set():
                turns += 1
                await asyncio.sleep(0)
    finally:
        listener.close()
        guest.close()
    assert len(seen) == 100
    assert max(Counter(seen).values()) == 16


async def test_an_address_that_cannot_be_answered_is_no_reason_to_stop() -> None:
    server, guest = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    server.bind(("127.0.0.1", 0))
    guest.connect(server.getsockname())
    nowhere = Reply(
        MessageType.ACK, b"x", IPv4Address("255.255.255.255")
    )  # not allowed to broadcast
    asked = asyncio.Queue[bytes]()

    def respond(packet: bytes) -> Reply:
        asked.put_nowait(packet)
        return nowhere

    listener = Listener(server, respond)
    try:
        async with asyncio.timeout(10):
            for packet in (b"one", b"two"):
                guest.send(packet)
                assert await asked.get() == packet
    finally:
        listener.close()
        guest.close()
