"""Pods, guests and neighbours as namespaces that a test makes. Needs root."""

import asyncio
import contextlib
import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from podvisor_handler.linux.process import PinnedProcess

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces")

# Addresses stand from the first moment: an address that turns from tentative to valid would be a change that nobody made.
POD = """
set -e
mount -t tmpfs tmpfs /dev
echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad
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
# Of both families, and with the far end of its link named for neighbour().
WITH_BOTH_FAMILIES = """
ip link add eth0 type veth peer name uplink
ip addr add 10.244.1.5/24 dev eth0
ip addr add 2001:db8::5/64 dev eth0 nodad
ip link set eth0 up
"""


@contextlib.contextmanager
def contained(command: Sequence[str]) -> Iterator[PinnedProcess]:
    """What a command becomes that makes namespaces, says that it is ready, and lives until its input ends."""
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


@contextlib.contextmanager
def pod(links: str = WITH_ETH0, *, own_network: bool = True) -> Iterator[PinnedProcess]:
    """A process that lives in namespaces as a container does."""
    flags = ["-m", "-n"] if own_network else ["-m"]
    command = ["unshare", *flags, "sh", "-c", POD.format(links=links)]
    with contained(command) as process:
        yield process


def inside(process: PinnedProcess, *command: str) -> str:
    """The output of a command run in the pod's namespaces."""
    nsenter = ["nsenter", "-t", str(process.pid), "-n", "-m", *command]
    return subprocess.run(nsenter, check=True, capture_output=True, text=True).stdout


def links_of(process: PinnedProcess) -> dict[str, dict[str, Any]]:
    """The devices of the pod's namespace as `ip` tells of them, by name."""
    listed = json.loads(inside(process, "ip", "-d", "-j", "addr"))
    return {link["ifname"]: link for link in listed}


@contextlib.contextmanager
def neighbour(
    process: PinnedProcess,
    device: str,
    addresses: Sequence[str],
    gateways: Sequence[str] = (),
    *,
    mac: str = "",
) -> Iterator[int]:
    """A process in a namespace of its own, with `device` of the pod moved into it. Addresses are with prefix length."""
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
        commands = [["link", "set", "lo", "up"]]
        if mac:
            commands.append(["link", "set", device, "address", mac])
        commands += [["addr", "add", address, "dev", device, "nodad"] for address in addresses]
        commands.append(["link", "set", device, "up"])
        commands += [["route", "add", "default", "via", gateway] for gateway in gateways]
        for arguments in commands:
            within(other.pid, "ip", *arguments)
        yield other.pid
    finally:
        other.stdin.close()
        other.stdout.close()
        other.wait(timeout=5)


def within(pid: int, *command: str) -> str:
    """The output of a command run in the network namespace of a process."""
    nsenter = ["nsenter", "-t", str(pid), "-n", *command]
    return subprocess.run(nsenter, check=True, capture_output=True, text=True, timeout=10).stdout


def plug_guest(process: PinnedProcess, bridge: str, tap: str = "tap0") -> None:
    """Puts one end of a cable, `guest0`, where the guest would be: the other end takes the place of the tap device."""
    inside(process, "ip", "link", "del", tap)
    inside(process, "ip", "link", "add", tap, "type", "veth", "peer", "name", "guest0")
    inside(process, "ip", "link", "set", tap, "master", bridge, "up")


SERVER = """
import socket, sys
address, port, kind = sys.argv[1], int(sys.argv[2]), sys.argv[3]
family = socket.AF_INET6 if ":" in address else socket.AF_INET
if kind == "tcp":
    server = socket.create_server((address, port), family=family)
    print("ready", flush=True)
    connection, peer = server.accept()
    connection.sendall(peer[0].encode())
else:
    server = socket.socket(family, socket.SOCK_DGRAM)
    server.bind((address, port))
    print("ready", flush=True)
    _, peer = server.recvfrom(64)
    server.sendto(peer[0].encode(), peer)
"""
CLIENT = """
import socket, sys
address, port, kind = sys.argv[1], int(sys.argv[2]), sys.argv[3]
family = socket.AF_INET6 if ":" in address else socket.AF_INET
if kind == "tcp":
    print(socket.create_connection((address, port), timeout=3).recv(64).decode())
else:
    client = socket.socket(family, socket.SOCK_DGRAM)
    client.settimeout(3)
    client.connect((address, port))
    client.send(b"hello")
    print(client.recv(64).decode())
"""


async def peer_seen(
    server_pid: int, client_pid: int, address: str, port: int, kind: str = "tcp"
) -> str:
    """The address that a server in one namespace sees of a client in another, which asks for `address`. Raises
    CalledProcessError when they do not meet."""
    return await asyncio.to_thread(_peer_seen, server_pid, client_pid, address, port, kind)


def _peer_seen(server_pid: int, client_pid: int, address: str, port: int, kind: str) -> str:
    anywhere = "::" if ":" in address else "0.0.0.0"
    arguments = [str(port), kind]
    server = subprocess.Popen(
        ["nsenter", "-t", str(server_pid), "-n", "python3", "-c", SERVER, anywhere, *arguments],
        stdout=subprocess.PIPE,
    )
    assert server.stdout is not None
    try:
        assert server.stdout.readline() == b"ready\n"
        return within(client_pid, "python3", "-c", CLIENT, address, *arguments).strip()
    finally:
        server.kill()
        server.stdout.close()
        server.wait(timeout=5)
