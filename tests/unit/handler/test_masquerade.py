"""Who reaches whom through the address translation of a wired pod, for real. Needs root."""

import asyncio
import contextlib
import subprocess
from collections.abc import Iterator

import pytest
from podvisor_handler.linux.process import PinnedProcess
from podvisor_handler.network.attachments import Attachment, Masquerade, Port
from podvisor_handler.network.netns import wire

from tests.unit.handler.namespaces import (
    WITH_BOTH_FAMILIES,
    inside,
    links_of,
    needs_root,
    neighbour,
    peer_seen,
    plug_guest,
    pod,
    within,
)
from tests.unit.handler.networks import GUEST_MAC

pytestmark = needs_root

POD = f"""{WITH_BOTH_FAMILIES}ip route add default via 10.244.1.1
ip route add default via 2001:db8::1 dev eth0
"""
POD_ADDRESSES = ("10.244.1.5", "2001:db8::5")
GUEST = ("10.0.2.2", "fd10:0:2::2")
CLIENT = ("10.244.1.1", "2001:db8::1")
BOTH = pytest.mark.parametrize("family", [0, 1], ids=["IPv4", "IPv6"])
EVERY_WAY = pytest.mark.parametrize("kind", ["tcp", "udp"])


def attached(*ports: Port) -> tuple[Attachment, ...]:
    return (Attachment("default", Masquerade(GUEST_MAC, ports=ports)),)


@contextlib.contextmanager
def neighbours(process: PinnedProcess) -> Iterator[tuple[int, int]]:
    """A guest behind the bridge and a client before eth0, as processes."""
    plug_guest(process, "k6t-eth0")
    with (
        neighbour(
            process,
            "guest0",
            ["10.0.2.2/24", "fd10:0:2::2/120"],
            ["10.0.2.1", "fd10:0:2::1"],
            mac=GUEST_MAC,
        ) as guest,
        neighbour(process, "uplink", ["10.244.1.1/24", "2001:db8::1/64"]) as client,
    ):
        yield guest, client


@EVERY_WAY
@BOTH
async def test_guest_and_world_reach_each_other(family: int, kind: str) -> None:
    with pod(POD) as process:
        await wire(process, attached())
        with neighbours(process) as (guest, client):
            inbound = await peer_seen(guest, client, POD_ADDRESSES[family], 22, kind)
            outbound = await peer_seen(client, guest, CLIENT[family], 80, kind)
        assert inbound == CLIENT[family]
        assert outbound == POD_ADDRESSES[family]


@EVERY_WAY
@BOTH
async def test_the_guest_is_reached_from_within_the_pod(family: int, kind: str) -> None:
    """By what enters the pod's namespace to forward a port, and by a process of the pod."""
    gateway = ("10.0.2.1", "fd10:0:2::1")[family]
    with pod(POD) as process:
        await wire(process, attached(Port(kind, 22)))
        with neighbours(process) as (guest, _):
            loopback = ("127.0.0.1", "::1")[family]
            assert await peer_seen(guest, process.pid, loopback, 22, kind) == gateway
            assert await peer_seen(guest, process.pid, POD_ADDRESSES[family], 22, kind) == gateway
            # What is not listed stays in the pod.
            own = POD_ADDRESSES[family]
            assert await peer_seen(process.pid, process.pid, own, 23, kind) == own


@BOTH
async def test_the_guest_reaches_itself_by_its_pods_address(family: int) -> None:
    with pod(POD) as process:
        await wire(process, attached())
        with neighbours(process) as (guest, _):
            seen = await peer_seen(guest, guest, POD_ADDRESSES[family], 22)
        assert seen == ("10.0.2.1", "fd10:0:2::1")[family]


@EVERY_WAY
@BOTH
async def test_only_listed_ports_reach_the_guest(family: int, kind: str) -> None:
    with pod(POD) as process:
        await wire(process, attached(Port(kind, 22)))
        with neighbours(process) as (guest, client):
            assert await peer_seen(guest, client, POD_ADDRESSES[family], 22, kind)
            with pytest.raises(subprocess.CalledProcessError) as refused:
                await peer_seen(guest, client, POD_ADDRESSES[family], 23, kind)
        assert "refused" in refused.value.stderr


@EVERY_WAY
@BOTH
async def test_who_is_on_the_pods_link_does_not_get_past_the_list_of_ports(
    family: int, kind: str
) -> None:
    """By the guest's own address, with the pod for a router."""
    with pod(POD) as process:
        await wire(process, attached(Port(kind, 22)))
        with neighbours(process) as (guest, client):
            within(client, "ip", "route", "add", GUEST[family], "via", POD_ADDRESSES[family])
            with pytest.raises(subprocess.CalledProcessError) as unreachable:
                await peer_seen(guest, client, GUEST[family], 23, kind)
        assert "timed out" in unreachable.value.stderr


@BOTH
async def test_the_guest_does_not_reach_the_pods_loopback(family: int) -> None:
    loopback = ("127.0.0.1", "::1")[family]
    way = (
        ["ip", "route", "add", "127.0.0.1", "via", "10.0.2.1", "dev", "guest0", "src", "10.0.2.2"],
        ["ip", "-6", "route", "add", "::1", "via", "fd10:0:2::1", "dev", "guest0", "table", "7"],
    )[family]
    with pod(POD) as process:
        await wire(process, attached())
        with neighbours(process) as (guest, _):
            within(guest, "sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1")
            within(guest, "ip", "link", "set", "lo", "down")
            within(guest, *way)
            with pytest.raises(subprocess.CalledProcessError):
                await peer_seen(process.pid, guest, loopback, 22)


SOURCES_SEEN = """
import socket, sys
address = sys.argv[1]
server = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
server.bind((address, 9))
server.settimeout(5)
print("ready", flush=True)
seen = []
while True:
    text, peer = server.recvfrom(64)
    seen.append(peer[0])
    if text == b"honest":
        break
print(*seen)
"""
SEND_FROM = """
import socket, sys
address = sys.argv[1]
for source, text in zip(sys.argv[2::2], sys.argv[3::2]):
    client = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    client.bind((source, 0))
    client.sendto(text.encode(), (address, 9))
"""


def _sources_seen(client: int, guest: int, address: str, packets: list[str]) -> list[str]:
    server = subprocess.Popen(
        ["nsenter", "-t", str(client), "-n", "python3", "-c", SOURCES_SEEN, address],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    assert server.stdout.readline() == "ready\n"
    within(guest, "python3", "-c", SEND_FROM, address, *packets)
    return server.communicate(timeout=10)[0].split()


@pytest.mark.parametrize(
    ("family", "forged"),
    [(0, ["10.0.2.77", "203.0.113.7"]), (1, ["fd10:0:2::77", "2001:db8:7::7"])],
    ids=["IPv4", "IPv6"],
)
async def test_the_guest_cannot_send_under_another_address(family: int, forged: list[str]) -> None:
    with pod(POD) as process:
        await wire(process, attached())
        with neighbours(process) as (guest, client):
            packets = []
            for source in forged:
                within(
                    guest,
                    "ip",
                    "addr",
                    "add",
                    f"{source}/{(32, 128)[family]}",
                    "dev",
                    "guest0",
                    "nodad",
                )
                packets += [source, "forged"]
            packets += [GUEST[family], "honest"]
            seen = await asyncio.to_thread(_sources_seen, client, guest, CLIENT[family], packets)
        assert seen == [POD_ADDRESSES[family]]


async def test_a_router_that_learned_its_way_keeps_it() -> None:
    """Forwarding makes a kernel forget what routers told it, and deaf to them."""
    with pod(POD) as process:
        inside(process, "ip", "-6", "route", "del", "default")
        inside(
            process,
            *[
                "ip",
                "-6",
                "route",
                "add",
                "default",
                "via",
                "fe80::99",
                "dev",
                "eth0",
                "proto",
                "ra",
            ],
        )
        await wire(process, attached())
        assert "fe80::99" in inside(process, "ip", "-6", "route", "show", "default")
        assert inside(process, "cat", "/proc/sys/net/ipv6/conf/eth0/accept_ra").strip() == "2"


async def test_gateways_of_both_families() -> None:
    with pod(POD) as process:
        await wire(process, attached())
        addresses = {each["local"] for each in links_of(process)["k6t-eth0"]["addr_info"]}
        assert {"10.0.2.1", "fd10:0:2::1", "fe80::1"} <= addresses
        assert not (await wire(process, attached())).changed
