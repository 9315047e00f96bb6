"""What a guest may send on a link that it shares with others, for real. Needs root."""

import subprocess

import pytest
from podvisor_handler.network.attachments import Attachment, Bridge
from podvisor_handler.network.netns import wire

from tests.unit.handler.bridged_pods import (
    BRIDGED,
    LISTEN,
    NEIGHBOUR,
    NEIGHBOUR6,
    OTHER_MAC,
    OWN,
    OWN6,
    POD,
    SEND,
    arp,
    icmp6,
    ipv4,
    marks_seen,
    neighbours,
    vlan,
)
from tests.unit.handler.namespaces import needs_root, peer_seen, pod, within

pytestmark = needs_root

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
            seen = marks_seen(other, guest, [*FORGED.values(), *ALLOWED])
    assert [mark[-4:] for mark in seen] == ["01-a", "02-b", "03-c", "04-d"]


async def test_a_guest_with_a_hardware_address_of_its_own_has_that() -> None:
    with pod(POD) as process:
        await wire(process, (Attachment("default", Bridge(mac=OTHER_MAC)),))
        with neighbours(process) as (guest, other):
            frames = [ipv4(OWN, b"forged01"), ipv4(OWN, b"honest", mac=OTHER_MAC)]
            assert marks_seen(other, guest, frames) == []


BROADCAST = """
import socket, sys
device, own, other, is_server = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "server"
speaker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
speaker.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
speaker.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
speaker.bind(("", own))
speaker.settimeout(5)
print("ready", flush=True)
if is_server:
    print(speaker.recvfrom(64)[1][0])
speaker.sendto(b"forged-or-not", ("255.255.255.255", other))
if not is_server:
    print(speaker.recvfrom(64)[1][0])
"""


async def test_a_guest_without_an_address_is_answered_and_nobody_else_hears_of_it() -> None:
    with pod(POD) as process:
        await wire(process, BRIDGED)
        with neighbours(process) as (guest, other):
            within(guest, "ip", "addr", "flush", "dev", "guest0")
            asked_by, answered_by, heard = _asked(process.pid, guest, other)
        assert (asked_by, answered_by, heard) == ("0.0.0.0", "169.254.75.10", [])


def _asked(server_pid: int, guest_pid: int, other_pid: int) -> tuple[str, str, list[str]]:
    """Whom a DHCP server in the pod sees, whom its client sees, and what a neighbour hears of it."""
    listener, server = (
        subprocess.Popen(
            ["nsenter", "-t", str(pid), "-n", "python3", "-c", *code],
            stdout=subprocess.PIPE,
            text=True,
        )
        for pid, code in (
            (other_pid, [LISTEN, "uplink"]),
            (server_pid, [BROADCAST, "k6t-eth0", "67", "68", "server"]),
        )
    )
    for each in (listener, server):
        assert each.stdout is not None
        assert each.stdout.readline() == "ready\n"
    answer = within(guest_pid, "python3", "-c", BROADCAST, "guest0", "68", "67", "client").split()
    within(guest_pid, "python3", "-c", SEND, ipv4(OWN, b"honest").hex())
    asked = server.communicate(timeout=10)[0].strip()
    return asked, answer[-1], listener.communicate(timeout=10)[0].split()


@pytest.mark.parametrize("kind", ["tcp", "udp"])
async def test_the_guest_does_not_reach_what_else_its_pod_listens_on(kind: str) -> None:
    """Nor what the pod routes: to the guest's network it is nobody."""
    with pod(POD) as process:
        await wire(process, BRIDGED)
        with neighbours(process) as (guest, _):
            to_bridge = ["lladdr", "02:00:00:00:00:00", "dev", "guest0"]
            within(guest, "ip", "neigh", "replace", "10.244.1.1", *to_bridge)
            with pytest.raises(subprocess.CalledProcessError):
                await peer_seen(process.pid, guest, "169.254.75.10", 22, kind)
