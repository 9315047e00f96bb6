"""What a guest with private addresses may send to its pod, for real. Needs root."""

import contextlib
import ipaddress
import json
import socket
import struct
import subprocess
from collections.abc import Iterator

import pytest
from podvisor_handler.linux.process import PinnedProcess
from podvisor_handler.network.attachments import Attachment, Masquerade
from podvisor_handler.network.names import BRIDGE_MAC
from podvisor_handler.network.netns import wire

from tests.unit.handler.bridged_pods import (
    MAC,
    OTHER_MAC,
    SEND,
    arp,
    icmp6,
    ipv4,
    marks_seen,
    octets,
    vlan,
)
from tests.unit.handler.namespaces import (
    WITH_BOTH_FAMILIES,
    inside,
    needs_root,
    neighbour,
    plug_guest,
    pod,
    within,
)

pytestmark = needs_root

MASQUERADED = (Attachment("default", Masquerade(MAC)),)
OWN, OWN6, GATEWAY = "10.0.2.2", "fd10:0:2::2", "10.0.2.1"
FORGED = [
    ipv4(OWN, b"forged01", mac=OTHER_MAC),
    ipv4("10.0.2.3", b"forged02"),
    arp("10.0.2.3", b"forged03", target=GATEWAY, operation=1),
    arp("203.0.113.7", b"forged04"),
    arp(OWN, b"forged05", mac=OTHER_MAC),
    arp(GATEWAY, b"forged06"),
    vlan(arp(OWN, b"forged07")),
    icmp6("fd10:0:2::77", 135, "fd10:0:2::1", b"forged08"),
    icmp6("2001:db8::77", 135, "fd10:0:2::1", b"forged09"),
    icmp6("fe80::2", 134, "fe80::2", b"forged10"),
    icmp6("fe80::2", 137, "fe80::2", b"forged11"),
]
ALLOWED = [
    arp(OWN, b"not-forged-01-a", target=GATEWAY, operation=1),
    arp("0.0.0.0", b"not-forged-02-b", target=OWN, operation=1),
    ipv4("0.0.0.0", b"not-forged-03-c", port=67),
    icmp6("::", 135, OWN6, b"not-forged-04-d"),
    icmp6("::", 133, OWN6, b"not-forged-05-e"),
    icmp6("fe80::a:b:c:d", 133, OWN6, b"not-forged-06-f"),
    icmp6(OWN6, 136, OWN6, b"not-forged-07-g"),
]


def datagram(source: str, destination: str) -> bytes:
    """A datagram, in a frame to the gateway."""
    udp = struct.pack("!HHHH", 9, 9, 8, 0)
    if ":" in source:
        header = struct.pack("!IHBB", 0x60000000, len(udp), socket.IPPROTO_UDP, 64)
        ends = [socket.inet_pton(socket.AF_INET6, each) for each in (source, destination)]
        packet, type_ = header + b"".join(ends) + udp, 0x86DD
    else:
        header = struct.pack("!BBHHHBBH", 0x45, 0, 28, 0, 0, 64, socket.IPPROTO_UDP, 0)
        ends = [socket.inet_aton(each) for each in (source, destination)]
        total = sum(struct.unpack("!10H", header + b"".join(ends)))
        checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
        packet, type_ = header[:10] + checksum.to_bytes(2, "big") + b"".join(ends) + udp, 0x800
    return octets(BRIDGE_MAC) + octets(MAC) + type_.to_bytes(2, "big") + packet


@contextlib.contextmanager
def guest_of(process: PinnedProcess) -> Iterator[int]:
    plug_guest(process, "k6t-eth0")
    addresses = [f"{OWN}/24", f"{OWN6}/120"]
    with neighbour(process, "guest0", addresses, [GATEWAY], mac=MAC) as guest:
        yield guest


def neighbours_of(process: PinnedProcess) -> set[str]:
    """Whom the pod knows, or looks for, at the other end of its bridge."""
    shown = inside(process, "ip", "-j", "neigh", "show", "nud", "all", "dev", "k6t-eth0")
    found = {each["dst"] for each in json.loads(shown)}
    return {each for each in found if not ipaddress.ip_address(each).is_multicast}


async def test_a_guest_passes_for_nobody_but_itself() -> None:
    with pod(WITH_BOTH_FAMILIES) as process:
        await wire(process, MASQUERADED)
        with guest_of(process) as guest:
            frames = [*FORGED, *ALLOWED, ipv4(OWN, b"honest")]
            seen = marks_seen(process.pid, guest, frames, device="k6t-eth0")
    assert [mark[-4:] for mark in seen] == ["01-a", "02-b", "03-c", "04-d", "05-e", "06-f", "07-g"]


async def test_where_the_pod_has_no_ipv6_its_guest_speaks_none() -> None:
    with pod() as process:
        await wire(process, MASQUERADED)
        with guest_of(process) as guest:
            frames = [icmp6("fe80::a", 133, "fe80::a", b"forged01"), ipv4(OWN, b"honest")]
            assert marks_seen(process.pid, guest, frames, device="k6t-eth0") == []


async def test_a_guest_does_not_fill_the_table_of_neighbours() -> None:
    """Which is one for all pods of a node."""
    with pod(WITH_BOTH_FAMILIES) as process:
        await wire(process, MASQUERADED)
        with guest_of(process) as guest:
            asked = [
                arp(f"10.0.2.{number}", b"", target=GATEWAY, operation=1)
                for number in range(3, 200)
            ]
            within(guest, "python3", "-c", SEND, *(frame.hex() for frame in asked))
            _speak_from_many(process, guest)
            known = neighbours_of(process)
    assert OWN6 in known
    assert {each for each in known if ":" not in each} <= {OWN}
    link_local = {each for each in known if each.startswith("fe80")}
    assert 2 <= len(link_local) <= 8


@pytest.mark.parametrize(
    ("source", "destinations"),
    [
        (OWN, "10.0.2.{}"),
        (OWN6, "fd10:0:2::{}"),
        (OWN6, "fe80::9:{}"),
        ("fe80::7:1", "fe80::9:{}"),
        ("fe80::7:1", "fd10:0:2::{}"),
    ],
)
async def test_nor_by_what_it_sends_to_its_own_network(source: str, destinations: str) -> None:
    """By its gateway, which would have to look for whom it is for."""
    nobody = {destinations.format(number) for number in range(10, 100)}
    with pod(WITH_BOTH_FAMILIES) as process:
        await wire(process, MASQUERADED)
        with guest_of(process) as guest:
            frames = [datagram(source, each).hex() for each in sorted(nobody)]
            within(guest, "python3", "-c", SEND, *frames)
            # What comes after them has been heard.
            _speak_from_many(process, guest)
            known = neighbours_of(process)
    assert OWN6 in known
    assert known.isdisjoint(nobody)


FROM_MANY = """
import socket, sys
interface = socket.if_nametoindex("guest0")
for address in sys.argv[1:]:
    speaker = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    speaker.bind((address, 0, 0, interface if address.startswith("fe80") else 0))
    to = ("fe80::1", 9, 0, interface) if address.startswith("fe80") else ("fd10:0:2::1", 9)
    speaker.sendto(b"hello", to)
"""
HEAR = """
import socket
listener = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
listener.bind(("fd10:0:2::1", 9))
listener.settimeout(5)
print("ready", flush=True)
listener.recv(9)
"""


def _speak_from_many(process: PinnedProcess, guest: int) -> None:
    """From many link-local addresses, and last from its own one, until that has been heard."""
    many = [f"fe80::7:{number:x}" for number in range(1, 40)]
    for address in many:
        within(guest, "ip", "addr", "add", f"{address}/64", "dev", "guest0", "nodad")
    listener = subprocess.Popen(
        ["nsenter", "-t", str(process.pid), "-n", "python3", "-c", HEAR],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert listener.stdout is not None
    assert listener.stdout.readline() == "ready\n"
    within(guest, "python3", "-c", FROM_MANY, *many, OWN6)
    listener.communicate(timeout=10)
    assert listener.returncode == 0
