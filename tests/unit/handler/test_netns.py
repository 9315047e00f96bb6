"""The network of a pod, wired for real in a namespace that the test makes. Needs root."""

import asyncio
import contextlib
import json
import os
import subprocess
from collections.abc import Iterator

import pytest
from podvisor_handler.linux.process import PinnedProcess, ProcessEnded
from podvisor_handler.network.facts import PodNetwork
from podvisor_handler.network.netns import NetworkNotReady, NetworkRefused, wire
from podvisor_handler.network.plan import Masquerade, Port

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces")

POD = """
set -e
mount -t tmpfs tmpfs /dev
ip link set lo up
{links}
echo ready
exec cat
"""
WITH_ETH0 = """
ip link add eth0 mtu 1400 type veth peer name peer
ip addr add 10.244.1.5/24 dev eth0
ip link set eth0 up
ip link set peer up
"""


@contextlib.contextmanager
def pod(links: str = WITH_ETH0, *, own_network: bool = True) -> Iterator[PinnedProcess]:
    """A process that lives in namespaces as a container does."""
    flags = ["-m", "-n"] if own_network else ["-m"]
    command = ["unshare", *flags, "sh", "-c", POD.format(links=links)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"ready\n"
        pinned = PinnedProcess.open(process.pid)
        yield pinned
        pinned.close()
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(timeout=5)


def inside(process: PinnedProcess, *command: str) -> str:
    """The output of a command run in the pod's namespaces."""
    nsenter = ["nsenter", "-t", str(process.pid), "-n", "-m", *command]
    return subprocess.run(nsenter, check=True, capture_output=True, text=True).stdout


async def test_a_fresh_pod_is_wired() -> None:
    with pod() as process:
        found = await wire(process, Masquerade())
        assert found.mtu_bytes == 1400
        assert found.addresses == ("10.244.1.5",)
        assert found.changed
        links = {
            link["ifname"]: link for link in json.loads(inside(process, "ip", "-d", "-j", "a"))
        }
        bridge, tap = links["k6t-eth0"], links["tap0"]
        assert bridge["linkinfo"]["info_kind"] == "bridge"
        assert bridge["address"] == "02:00:00:00:00:00"
        assert bridge["mtu"] == tap["mtu"] == 1400
        assert [a["local"] for a in bridge["addr_info"] if a["family"] == "inet"] == ["10.0.2.1"]
        assert tap["master"] == "k6t-eth0"
        assert "UP" in tap["flags"]
        assert tap["linkinfo"]["info_data"]["vnet_hdr"]
        assert int(tap["linkinfo"]["info_data"]["user"]) == 107
        assert inside(process, "cat", "/proc/sys/net/ipv4/ip_forward").strip() == "1"
        device = os.stat(f"/proc/{process.pid}/root/dev/net/tun")
        assert (device.st_rdev, device.st_mode & 0o777) == (os.makedev(10, 200), 0o666)


async def test_wiring_again_changes_nothing() -> None:
    with pod() as process:
        first = await wire(process, Masquerade())
        before = inside(process, "ip", "-j", "a")
        second = await wire(process, Masquerade())
        assert (first.changed, second.changed) == (True, False)
        assert inside(process, "ip", "-j", "a") == before


async def test_a_half_wired_pod_is_completed() -> None:
    with pod() as process:
        await wire(process, Masquerade())
        inside(process, "ip", "link", "del", "tap0")
        inside(process, "sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_forward")
        assert (await wire(process, Masquerade())).changed
        assert not (await wire(process, Masquerade())).changed


async def test_listed_ports_replace_the_ruleset() -> None:
    with pod() as process:
        await wire(process, Masquerade())
        listed = Masquerade(ports=(Port("tcp", 22), Port("udp", 53)))
        assert (await wire(process, listed)).changed
        assert not (await wire(process, listed)).changed


async def test_a_pod_without_eth0_is_tried_again_later() -> None:
    with pod(links="") as process, pytest.raises(NetworkNotReady):
        await wire(process, Masquerade())


async def test_the_nodes_own_network_is_never_touched() -> None:
    with pod(links="", own_network=False) as process, pytest.raises(NetworkRefused):
        await wire(process, Masquerade())


async def test_a_process_that_has_ended_is_not_mistaken() -> None:
    with pod() as process:
        pass
    with pytest.raises((ProcessEnded, OSError)):
        await wire(process, Masquerade())


CLIENT_AND_GUEST = """
ip link add eth0 type veth peer name uplink
ip addr add 10.244.1.5/24 dev eth0
ip link set eth0 up
ip route add default via 10.244.1.1
"""


async def wired_with_neighbours(process: PinnedProcess, desired: Masquerade) -> PodNetwork:
    """Wires the pod, and puts a guest behind the bridge and a client before eth0."""
    found = await wire(process, desired)
    inside(process, "ip", "link", "add", "guestport", "type", "veth", "peer", "name", "guest0")
    inside(process, "ip", "link", "set", "guestport", "master", "k6t-eth0", "up")
    return found


@contextlib.contextmanager
def neighbour(process: PinnedProcess, device: str, address: str, gateway: str) -> Iterator[int]:
    """A process in a namespace of its own, with `device` of the pod moved into it."""
    other = subprocess.Popen(
        ["unshare", "-n", "sh", "-c", "echo ready; exec cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert other.stdin is not None
    assert other.stdout is not None
    try:
        assert other.stdout.readline() == b"ready\n"
        inside(process, "ip", "link", "set", device, "netns", f"/proc/{other.pid}/ns/net")
        enter = ["nsenter", "-t", str(other.pid), "-n", "ip"]
        for arguments in (
            ["addr", "add", f"{address}/24", "dev", device],
            ["link", "set", device, "up"],
            ["route", "add", "default", "via", gateway],
        ):
            subprocess.run([*enter, *arguments], check=True, capture_output=True)
        yield other.pid
    finally:
        other.stdin.close()
        other.stdout.close()
        other.wait(timeout=5)


SERVER = """
import socket
server = socket.create_server(("0.0.0.0", {port}))
print("ready", flush=True)
connection, peer = server.accept()
connection.sendall(peer[0].encode())
"""


def peer_seen(server_pid: int, client_pid: int, address: str, port: int) -> str:
    """Connects from one namespace to a server in another; the address the server saw."""
    server = subprocess.Popen(
        ["nsenter", "-t", str(server_pid), "-n", "python3", "-c", SERVER.format(port=port)],
        stdout=subprocess.PIPE,
    )
    assert server.stdout is not None
    try:
        assert server.stdout.readline() == b"ready\n"
        code = (
            "import socket,sys;"
            f"print(socket.create_connection(({address!r},{port}),timeout=3).recv(64).decode())"
        )
        client = ["nsenter", "-t", str(client_pid), "-n", "python3", "-c", code]
        return subprocess.run(
            client, check=True, capture_output=True, text=True, timeout=10
        ).stdout.strip()
    finally:
        server.kill()
        server.stdout.close()
        server.wait(timeout=5)


async def test_guest_and_world_reach_each_other() -> None:
    with pod(CLIENT_AND_GUEST) as process:
        await wired_with_neighbours(process, Masquerade())
        with (
            neighbour(process, "guest0", "10.0.2.2", "10.0.2.1") as guest,
            neighbour(process, "uplink", "10.244.1.1", "10.244.1.5") as client,
        ):
            inbound = await asyncio.to_thread(peer_seen, guest, client, "10.244.1.5", 22)
            outbound = await asyncio.to_thread(peer_seen, client, guest, "10.244.1.1", 80)
        assert inbound == "10.244.1.1"
        assert outbound == "10.244.1.5"


async def test_only_listed_ports_reach_the_guest() -> None:
    with pod(CLIENT_AND_GUEST) as process:
        await wired_with_neighbours(process, Masquerade(ports=(Port("tcp", 22),)))
        with (
            neighbour(process, "guest0", "10.0.2.2", "10.0.2.1") as guest,
            neighbour(process, "uplink", "10.244.1.1", "10.244.1.5") as client,
        ):
            assert await asyncio.to_thread(peer_seen, guest, client, "10.244.1.5", 22)
            with pytest.raises(subprocess.CalledProcessError):
                await asyncio.to_thread(peer_seen, guest, client, "10.244.1.5", 23)


SOURCES_SEEN = """
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("0.0.0.0", 9))
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
for source, text in zip(sys.argv[1::2], sys.argv[2::2]):
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.bind((source, 0))
    client.sendto(text.encode(), ("10.244.1.1", 9))
"""


def sources_seen(client_pid: int, guest_pid: int, sources: list[str]) -> list[str]:
    """The addresses a client sees when a guest sends from `sources`, of which the last is its own."""
    in_guest, in_client = (["nsenter", "-t", str(p), "-n"] for p in (guest_pid, client_pid))
    packets = []
    for source in sources[:-1]:
        add = ["ip", "addr", "add", f"{source}/32", "dev", "guest0"]
        subprocess.run([*in_guest, *add], check=True)
        packets += [source, "forged"]
    server = subprocess.Popen(
        [*in_client, "python3", "-c", SOURCES_SEEN], stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    assert server.stdout.readline() == "ready\n"
    packets += [sources[-1], "honest"]
    subprocess.run([*in_guest, "python3", "-c", SEND_FROM, *packets], check=True)
    return server.communicate(timeout=10)[0].split()


async def test_the_guest_cannot_send_under_another_address() -> None:
    with pod(CLIENT_AND_GUEST) as process:
        await wired_with_neighbours(process, Masquerade())
        with (
            neighbour(process, "guest0", "10.0.2.2", "10.0.2.1") as guest,
            neighbour(process, "uplink", "10.244.1.1", "10.244.1.5") as client,
        ):
            sources = ["10.0.2.77", "203.0.113.7", "10.0.2.2"]
            seen = await asyncio.to_thread(sources_seen, client, guest, sources)
        assert seen == ["10.244.1.5"]
