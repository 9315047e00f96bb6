"""A guest that takes over its pod's interface, for real: what it is told, what it may send, and what becomes of a start that was
broken off. Needs root."""

import contextlib
import json
import socket
import struct
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from podvisor_handler.linux.process import PinnedProcess
from podvisor_handler.network import netns
from podvisor_handler.network.attachments import Attachment, Bridge, Masquerade
from podvisor_handler.network.facts import further_routes, gateway_of
from podvisor_handler.network.names import secondary_pod_interface
from podvisor_handler.network.netns import NetworkNotReady, wire

from tests.unit.handler.namespaces import (
    inside,
    links_of,
    needs_root,
    neighbour,
    peer_seen,
    plug_guest,
    pod,
    within,
)

pytestmark = needs_root

MAC = "0a:58:0a:f4:01:05"
POD = f"""
ip link add eth0 mtu 1400 address {MAC} type veth peer name uplink
ip addr add 10.244.1.5/24 dev eth0
ip addr add 2001:db8::5/64 dev eth0 nodad
ip link set eth0 up
ip link set uplink up
ip route add default via 10.244.1.1
ip route add 10.96.0.0/12 via 10.244.1.2
"""
BLUE = secondary_pod_interface("blue")
STEM = BLUE.removeprefix("pod")
WITH_BLUE = f"""
{POD}
ip link add {BLUE} type veth peer name blue
ip link set {BLUE} up
ip link set blue up
"""
BRIDGED = (Attachment("default", Bridge()),)
ON_BLUE = Attachment("blue", Bridge(), BLUE)


async def test_the_guest_gets_what_the_interface_was() -> None:
    with pod(POD) as process:
        (attached,) = (await wire(process, BRIDGED)).attached
        assert (attached.pod_interface, attached.mac, attached.mtu_bytes) == ("eth0", MAC, 1400)
        assert attached.addresses == ("10.244.1.5/24", "2001:db8::5/64")
        assert gateway_of(attached) == "10.244.1.1"
        (route,) = further_routes(attached)
        assert (route.destination, route.gateway) == ("10.96.0.0/12", "10.244.1.2")
        links = links_of(process)
        assert links["eth0"]["address"] != MAC
        assert links["eth0"]["master"] == links["tap0"]["master"] == "k6t-eth0"
        assert links["eth0"]["addr_info"] == []
        assert links["k6t-eth0"]["mtu"] == 1400
        assert "10.244.1.5" not in inside(process, "ip", "route", "show", "table", "local")


async def test_a_handler_that_knows_nothing_finds_the_same() -> None:
    with pod(POD) as process:
        first = await wire(process, BRIDGED)
        again = await wire(process, BRIDGED)
        assert not again.changed
        assert again.attached == first.attached


def state_of(process: PinnedProcess) -> Any:
    """All that wiring decides, without what differs from one namespace to the next."""
    links = {
        name: (
            link["address"] if not name.startswith("tap") else "",
            link["mtu"],
            link.get("master"),
            "UP" in link["flags"],
            sorted(
                (each["local"], each.get("address"), each["prefixlen"])
                for each in link["addr_info"]
                if each["scope"] == "global"
            ),
        )
        for name, link in links_of(process).items()
        if name not in ("uplink", "blue", BLUE)
    }
    routes = json.loads(inside(process, "ip", "-j", "route", "show", "table", "all"))
    kept = sorted(
        str((each.get("table"), each["dst"], each.get("gateway"), each["dev"]))
        for each in routes
        if each.get("type") != "local"
    )
    return links, kept, inside(process, "nft", "list", "ruleset")


class Refused(OSError):
    """What the kernel would say."""


async def test_a_start_broken_off_after_any_operation_is_completed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desired = (Attachment("default", Bridge()), Attachment("blue", Bridge(), BLUE))
    real = netns.carry_out
    with pod(WITH_BLUE) as process:
        expected = await wire(process, desired)
        state = state_of(process)
    for allowed in range(100):
        left = allowed

        def carry_out(*arguments: Any) -> None:
            nonlocal left
            if left == 0:
                raise Refused(1, "broken off")
            left -= 1
            real(*arguments)

        with pod(WITH_BLUE) as process:
            monkeypatch.setattr(netns, "carry_out", carry_out)
            with contextlib.suppress(NetworkNotReady):
                await wire(process, desired)
                break
            monkeypatch.setattr(netns, "carry_out", real)
            found = await wire(process, desired)
            assert [each.addresses for each in found.attached] == [
                each.addresses for each in expected.attached
            ], allowed
            assert found.attached[0] == expected.attached[0], allowed
            assert state_of(process)[0].keys() == state[0].keys(), allowed
            assert _without_blue(state_of(process)) == _without_blue(state), allowed
            assert not (await wire(process, desired)).changed
    assert allowed > 20


def _without_blue(state: Any) -> Any:
    """Its hardware address is the kernel's choice."""
    links, routes, ruleset = state
    links = {name: link for name, link in links.items() if STEM not in name}
    tables = [line for line in ruleset.splitlines() if "ether" not in line and "@ll" not in line]
    return links, routes, [line for line in tables if "comment" not in line]


async def test_a_network_without_addresses() -> None:
    with pod(WITH_BLUE) as process:
        found = await wire(process, (Attachment("default", Masquerade()), ON_BLUE))
        blue = found.of("blue")
        assert blue is not None
        assert (blue.pod_interface, blue.addresses, blue.routes) == (BLUE, (), ())
        links = links_of(process)
        assert links[f"tap{STEM}"]["master"] == links[BLUE]["master"] == f"k6t-{STEM}"
        assert not (await wire(process, (Attachment("default", Masquerade()), ON_BLUE))).changed


async def test_an_interface_that_is_not_there_yet() -> None:
    later = Attachment("blue", Bridge(), BLUE, may_come_later=True)
    with pod(POD) as process:
        with pytest.raises(NetworkNotReady, match='"blue"'):
            await wire(process, (*BRIDGED, ON_BLUE))
        found = await wire(process, (*BRIDGED, later))
        assert found.missing == (later,)
        assert [each.attachment for each in found.attached] == [*BRIDGED]


async def test_what_is_wanted_no_more_is_removed() -> None:
    with pod(WITH_BLUE) as process:
        await wire(process, (*BRIDGED, ON_BLUE))
        assert (await wire(process, BRIDGED)).changed
        assert {f"k6t-{STEM}", f"tap{STEM}"}.isdisjoint(links_of(process))
        # What the pod's interface was is not forgotten as long as it is there.
        assert f"was-{STEM}" in links_of(process)
        inside(process, "ip", "link", "del", BLUE)
        assert (await wire(process, BRIDGED)).changed
        assert f"was-{STEM}" not in links_of(process)
        assert not (await wire(process, BRIDGED)).changed


async def test_nothing_is_left_on_the_node() -> None:
    before = subprocess.run(["ip", "-o", "link"], capture_output=True, check=True).stdout  # noqa: ASYNC221
    with pod(WITH_BLUE) as process:
        await wire(process, (*BRIDGED, ON_BLUE))
    after = subprocess.run(["ip", "-o", "link"], capture_output=True, check=True).stdout  # noqa: ASYNC221
    assert _names(after) == _names(before)


def _names(listed: bytes) -> set[bytes]:
    return {line.split(b":")[1] for line in listed.splitlines()}


@contextlib.contextmanager
def neighbours(process: PinnedProcess) -> Iterator[tuple[int, int]]:
    """A guest on the bridge and a neighbour before eth0, as processes."""
    plug_guest(process, "k6t-eth0")
    addresses = ["10.244.1.5/24", "2001:db8::5/64"]
    with (
        neighbour(process, "guest0", addresses, ["10.244.1.1"], mac=MAC) as guest,
        neighbour(process, "uplink", ["10.244.1.1/24", "2001:db8::1/64"]) as other,
    ):
        yield guest, other


@pytest.mark.parametrize("kind", ["tcp", "udp"])
async def test_guest_and_neighbour_reach_each_other(kind: str) -> None:
    with pod(POD) as process:
        await wire(process, BRIDGED)
        with neighbours(process) as (guest, other):
            assert await peer_seen(guest, other, "10.244.1.5", 22, kind) == "10.244.1.1"
            assert await peer_seen(other, guest, "10.244.1.1", 80, kind) == "10.244.1.5"
            assert await peer_seen(guest, other, "2001:db8::5", 22, kind) == "2001:db8::1"


async def test_the_guest_reaches_its_dhcp_server_and_nobody_elses() -> None:
    """It takes it for one behind a router, as its address is on no network of the guest's."""
    with pod(POD) as process:
        await wire(process, BRIDGED)
        with neighbours(process) as (guest, _):
            assert await peer_seen(process.pid, guest, "169.254.75.10", 67, "udp") == "10.244.1.5"


LISTEN = """
import socket, sys
listener = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
listener.bind(("uplink", 0))
listener.settimeout(5)
print("ready", flush=True)
while True:
    frame = listener.recv(2048)
    if frame.endswith(b"honest"):
        break
    if b"forged" in frame:
        print(frame[-8:].decode())
"""
SEND = """
import socket, sys
sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
sender.bind(("guest0", 0))
for frame in sys.argv[1:]:
    sender.send(bytes.fromhex(frame))
"""
OTHER_MAC = "0a:58:0a:f4:01:06"
OWN, NEIGHBOUR, OWN6, NEIGHBOUR6 = "10.244.1.5", "10.244.1.6", "2001:db8::5", "2001:db8::6"


def octets(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def ethernet(type_: int, payload: bytes, *, source: str = MAC, mark: bytes) -> bytes:
    """A frame to everybody whose last bytes tell what it is."""
    return b"\xff" * 6 + octets(source) + type_.to_bytes(2, "big") + payload + mark


def arp(
    sender: str, mark: bytes, *, mac: str = MAC, target: str = "10.244.1.1", operation: int = 2
) -> bytes:
    """An ARP packet; by default a reply."""
    header = struct.pack("!HHBBH", 1, 0x800, 6, 4, operation)
    sent = octets(mac) + socket.inet_aton(sender) + bytes(6) + socket.inet_aton(target)
    return ethernet(0x806, header + sent, mark=mark)


def ipv4(source: str, mark: bytes, *, mac: str = MAC, port: int = 9) -> bytes:
    """A UDP packet."""
    udp = struct.pack("!HHHH", 68, port, 8 + len(mark), 0)
    header = struct.pack("!BBHHHBBH", 0x45, 0, 28 + len(mark), 0, 0, 64, 17, 0)
    addresses = socket.inet_aton(source) + socket.inet_aton("10.244.1.1")
    total = sum(struct.unpack("!10H", header + addresses))
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    header = header[:10] + checksum.to_bytes(2, "big")
    return ethernet(0x800, header + addresses + udp, source=mac, mark=mark)


def icmp6(source: str, kind: int, target: str, mark: bytes) -> bytes:
    """A packet of neighbour discovery."""
    message = struct.pack("!BBHI", kind, 0, 0, 0) + socket.inet_pton(socket.AF_INET6, target)
    header = struct.pack("!IHBB", 0x60000000, len(message) + len(mark), 58, 255)
    ends = [socket.inet_pton(socket.AF_INET6, each) for each in (source, "ff02::1")]
    return ethernet(0x86DD, header + b"".join(ends) + message, mark=mark)


def vlan(frame: bytes) -> bytes:
    """The frame in a virtual LAN."""
    return frame[:12] + b"\x81\x00\x00\x00" + frame[12:]


FORGED = {
    "another hardware address": ipv4(OWN, b"forged01", mac=OTHER_MAC),
    "another address": ipv4(NEIGHBOUR, b"forged02"),
    "an answer for a neighbour": arp(NEIGHBOUR, b"forged03"),
    "an answer with another's hardware address": arp(OWN, b"forged04", mac=OTHER_MAC),
    "a gratuitous answer": arp("10.244.1.1", b"forged05"),
    "a question under another address": arp(NEIGHBOUR, b"forged06", operation=1),
    "a probe for another's address": arp("0.0.0.0", b"forged07", target=NEIGHBOUR, operation=1),
    "in a virtual LAN": vlan(arp(NEIGHBOUR, b"forged08")),
    "a neighbour advertised": icmp6(OWN6, 136, NEIGHBOUR6, b"forged09"),
    "a router advertised": icmp6(OWN6, 134, OWN6, b"forged10"),
    "another address of IPv6": icmp6(NEIGHBOUR6, 135, NEIGHBOUR6, b"forged11"),
    "a contested address": icmp6("::", 135, NEIGHBOUR6, b"forged12"),
    "a redirection": icmp6(OWN6, 137, OWN6, b"forged13"),
    "a link-local router": icmp6("fe80::1", 136, "fe80::1", b"forged14"),
    "a question to another DHCP server": ipv4(OWN, b"forged15", port=67),
}
ALLOWED = [
    arp(OWN, b"not-forged-01-a"),
    arp("0.0.0.0", b"not-forged-02-b", target=OWN, operation=1),
    icmp6(OWN6, 136, OWN6, b"not-forged-03-c"),
    icmp6("::", 135, OWN6, b"not-forged-04-d"),
    ipv4(OWN, b"honest"),
]


async def test_the_guest_cannot_pass_for_another() -> None:
    with pod(POD) as process:
        await wire(process, BRIDGED)
        with neighbours(process) as (guest, other):
            seen = _seen(other, guest, [*FORGED.values(), *ALLOWED])
    assert [mark[-4:] for mark in seen] == ["01-a", "02-b", "03-c", "04-d"]


async def test_a_guest_with_a_hardware_address_of_its_own_has_that() -> None:
    with pod(POD) as process:
        await wire(process, (Attachment("default", Bridge(mac=OTHER_MAC)),))
        with neighbours(process) as (guest, other):
            frames = [ipv4(OWN, b"forged01"), ipv4(OWN, b"honest", mac=OTHER_MAC)]
            assert _seen(other, guest, frames) == []


def _seen(listener_pid: int, sender_pid: int, frames: list[bytes]) -> list[str]:
    listener = subprocess.Popen(
        ["nsenter", "-t", str(listener_pid), "-n", "python3", "-c", LISTEN],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert listener.stdout is not None
    assert listener.stdout.readline() == "ready\n"
    within(sender_pid, "python3", "-c", SEND, *(frame.hex() for frame in frames))
    return listener.communicate(timeout=10)[0].split()
