"""How a guest learns of its IPv6 router: packets, and the socket in the pod's namespace, for real (needs root)."""

import asyncio
import contextlib
import os
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from podvisor_common.kube.resources import VIRTUAL_MACHINE_INSTANCES
from podvisor_handler.linux.process import PinnedProcess
from podvisor_handler.network.attachments import Attachment, Masquerade
from podvisor_handler.network.netns import NetworkNotReady, open_router_sockets, wire
from podvisor_handler.network.router_packets import Router, advertisement, is_solicitation
from podvisor_handler.network.routers import Routers, routers_of

from tests.unit.handler.builders import vmi_manifest
from tests.unit.handler.fake_launcher import POD_UID, FakeLauncher
from tests.unit.handler.namespaces import needs_root, neighbour, plug_guest, pod, within
from tests.unit.handler.networks import GUEST_MAC, attached, wired
from tests.unit.handler.own_network import node_in, own_network

ROUTER = Router("02:00:00:00:00:00", "fd10:0:2::/120", 1450, ("fd00:96::a",), ("a.b", "x" * 64))
SOLICITATION = bytes([133, 0, 0, 0, 0, 0, 0, 0])


@pytest.mark.parametrize(
    ("message", "hop_limit", "expected"),
    [
        (SOLICITATION, 255, True),
        (SOLICITATION + bytes([1, 1, 2, 0, 0, 0, 0, 1]), 255, True),
        (SOLICITATION, 64, False),
        (SOLICITATION[:7], 255, False),
        (bytes([134]) + SOLICITATION[1:], 255, False),
        (bytes([133, 1]) + SOLICITATION[2:], 255, False),
        (SOLICITATION + bytes([1, 0, 2, 0, 0, 0, 0, 1]), 255, False),
        (SOLICITATION + bytes([1, 2, 2, 0, 0, 0, 0, 1]), 255, False),
        (SOLICITATION + b"\1", 255, False),
        (b"", 255, False),
    ],
)
def test_solicitations(message: bytes, hop_limit: int, expected: bool) -> None:
    assert is_solicitation(message, hop_limit) is expected


def test_an_advertisement() -> None:
    message = advertisement(ROUTER)
    kind, code, _, hops, flags, lifetime_s = struct.unpack_from("!BBHBBH", message)
    assert (kind, code, hops, flags, lifetime_s) == (134, 0, 64, 0xC0, 65535)
    options, offset = {}, 16
    while offset < len(message):
        size = message[offset + 1] * 8
        options[message[offset]] = message[offset + 2 : offset + size]
        offset += size
    assert offset == len(message)
    assert options[1] == bytes.fromhex("020000000000")
    assert options[3][:2] == bytes([120, 0x80])  # on the link, but for nobody's own making
    assert struct.unpack("!HI", options[5]) == (0, 1450)
    assert options[25][6:22] == bytes.fromhex("fd000096" + "0" * 22 + "0a")
    assert options[31][6:].rstrip(b"\0") == b"\1a\1b"


def test_an_advertisement_fits_into_a_packet_however_much_is_to_be_searched() -> None:
    names = tuple(f"{'n' * 60}.{number}.example" for number in range(32))
    message = advertisement(Router("02:00:00:00:00:00", "fd10:0:2::/120", 1280, (), names))
    assert len(message) < 1280 - 40
    assert b"\x3c" + b"n" * 60 + b"\1" + b"0" in message


def test_what_is_announced() -> None:
    both = attached("default", Masquerade(GUEST_MAC), "10.244.0.7/24", "fd00:244::7/64")
    (router,) = routers_of(wired(both)).values()
    assert (router.prefix, router.mtu_bytes) == ("fd10:0:2::/120", 1450)
    assert routers_of(wired(attached())) == {}


POD = """
ip link add eth0 mtu 1400 type veth peer name uplink
ip addr add 2001:db8::5/64 dev eth0 nodad
ip link set eth0 up
"""
MASQUERADED = (Attachment("default", Masquerade(GUEST_MAC)),)


@contextlib.asynccontextmanager
async def announced() -> AsyncIterator[int]:
    """A guest on a bridge whose router is announced, as a process."""
    routers = Routers()
    with pod(POD) as process:
        network = await wire(process, MASQUERADED)
        plug_guest(process, "k6t-eth0")
        with neighbour(process, "guest0", [], mac=GUEST_MAC) as guest:
            await routers.keep(process, network, has_dhcpv6=True)
            try:
                yield guest
            finally:
                routers.close()


@needs_root
async def test_a_guest_finds_its_router() -> None:
    """By the kernel's own means: it asks when its device comes up."""
    watch = ["timeout", "8", "ip", "-6", "monitor", "route"]
    async with announced() as guest:
        monitor = await asyncio.create_subprocess_exec(
            *["nsenter", "-t", str(guest), "-n", *watch], stdout=asyncio.subprocess.PIPE
        )
        assert monitor.stdout is not None
        within(guest, "ip", "link", "set", "guest0", "down")
        within(guest, "ip", "link", "set", "guest0", "up")
        async for line in monitor.stdout:
            if line.startswith(b"default via fe80::1 dev guest0 proto ra"):
                break
        else:
            pytest.fail("no router was announced")
        monitor.terminate()
        await monitor.communicate()
        addresses = within(guest, "ip", "-6", "addr", "show", "dev", "guest0")
        assert "fd10:" not in addresses
        await _has_mtu(guest, "1400")


async def _has_mtu(guest: int, wanted: str) -> None:
    """The kernel tells of the route before it has come to the announcement's MTU."""
    for _ in range(200):
        if within(guest, "cat", "/proc/sys/net/ipv6/conf/guest0/mtu").strip() == wanted:
            return
        await asyncio.sleep(0.01)
    pytest.fail(f"the MTU did not become {wanted}")


@needs_root
async def test_without_a_bridge_there_is_nowhere_to_announce() -> None:
    with pod(POD) as process, pytest.raises(NetworkNotReady, match="announce"):
        await open_router_sockets(process, ["k6t-eth0"])


@needs_root
async def test_no_router_without_a_launcher_that_has_dhcpv6() -> None:
    """A router tells the guest to ask for its address, and nobody would answer."""
    routers = Routers()
    with pod(POD) as process:
        network = await wire(process, MASQUERADED)
        before = len(os.listdir("/proc/self/fd"))
        await routers.keep(process, network, has_dhcpv6=False)
        assert len(os.listdir("/proc/self/fd")) == before


@needs_root
async def test_announcing_again_opens_nothing() -> None:
    routers = Routers()
    with pod(POD) as process:
        network = await wire(process, MASQUERADED)
        await routers.keep(process, network, has_dhcpv6=True)
        opened = len(os.listdir("/proc/self/fd"))
        await routers.keep(process, await wire(process, MASQUERADED), has_dhcpv6=True)
        assert len(os.listdir("/proc/self/fd")) == opened
        routers.close()
        routers.close()
        assert len(os.listdir("/proc/self/fd")) == opened - 1


@needs_root
async def test_a_pod_that_goes_while_it_is_wired_leaves_no_socket() -> None:
    routers = Routers()
    with pod(POD) as process:
        network = await wire(process, MASQUERADED)
        opened = len(os.listdir("/proc/self/fd"))
        keeping = asyncio.create_task(routers.keep(process, network, has_dhcpv6=True), name="keep")
        await asyncio.sleep(0)
        routers.close()
        await keeping
        assert len(os.listdir("/proc/self/fd")) == opened
        await routers.keep(process, network, has_dhcpv6=True)
        assert len(os.listdir("/proc/self/fd")) == opened


ASK = """
import socket, struct, sys
asking = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
asking.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"guest0")
asking.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
asking.setsockopt(socket.IPPROTO_ICMPV6, 1, struct.pack("=8I", *[0xFFFFFFFF] * 4, 0xFFFFFFBF, *[0xFFFFFFFF] * 3))
asking.settimeout(float(sys.argv[1]))
asking.sendto(bytes([133, 0, 0, 0, 0, 0, 0, 0]), ("ff02::2", 0, 0, socket.if_nametoindex("guest0")))
try:
    print(asking.recv(1500)[0])
except TimeoutError:
    print("silence")
"""
MASQUERADED_MACHINE: dict[str, Any] = {
    "domain": {
        "memory": {"guest": "64M"},
        "devices": {"interfaces": [{"name": "default", "masquerade": {}}]},
    },
    "networks": [{"name": "default", "pod": {}}],
}


@needs_root
@pytest.mark.parametrize(
    ("end", "answer"),
    [("", "134"), ("instance", "silence"), ("pod", "silence")],
    ids=["neither has ended", "the instance has", "the pod has"],
)
def test_a_machine_that_has_ended_has_no_router(tmp_path: Path, end: str, answer: str) -> None:
    async def test() -> None:
        async with node_in(tmp_path, FakeLauncher(), MASQUERADED_MACHINE) as node:
            await node.look()
            if end == "instance":
                ended = vmi_manifest(spec=MASQUERADED_MACHINE, phase="Succeeded")
                node.world.server.put(VIRTUAL_MACHINE_INSTANCES, ended)
                await node.look()
            elif end == "pod":
                node.reconciler.pod_ended(POD_UID)
            process = PinnedProcess.open(os.getpid())
            plug_guest(process, "k6t-eth0")
            with neighbour(process, "guest0", ["fe80::2/64"], mac=GUEST_MAC) as guest:
                within_s = "1" if answer == "silence" else "8"
                asked = await asyncio.to_thread(within, guest, "python3", "-c", ASK, within_s)
            process.close()
            assert asked.strip() == answer

    with own_network(POD) as network:
        network.elsewhere(test)
