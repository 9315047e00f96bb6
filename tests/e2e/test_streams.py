"""Console, screen and ports of a guest through the API server, as a client written from the protocol's description meets them."""

import asyncio
import struct
import time
import zlib

import pytest

from tests.support.cluster import Cluster, Json
from tests.support.machine import Machine, vmi
from tests.support.networks import ECHOES, networked_vmi, serve
from tests.support.streams import PROTOCOL, Stream, picture, refusal, stream
from tests.support.verbs import call, served

MIB = 1 << 20
BULK_BYTES = 100 * MIB
IDLE_S = 180


@pytest.fixture(autouse=True)
async def api(cluster: Cluster) -> None:
    await served(cluster)


async def _prompt(console: Stream) -> None:
    await console.send(b"\r")
    await console.until(rb"login: ")


async def test_a_console_is_its_last_clients(cluster: Cluster) -> None:
    """Logs in by it; with each way to offer the subprotocol; the next client has it, and the first one is told."""
    await cluster.apply(vmi("seen"))
    machine = Machine(cluster, "seen")
    await machine.running()
    target = "virtualmachineinstances/seen/console"
    async with stream(cluster, target) as first:
        assert first.socket.protocol == PROTOCOL
        await _prompt(first)
        async with stream(cluster, target, protocols=(), version="v1alpha3") as second:
            assert second.socket.protocol is None
            assert await first.close_code() == 1001
            await _prompt(second)
    both = ("base64url.bearer.authorization.k8s.io.eHl6", PROTOCOL)
    async with stream(cluster, target, protocols=both) as third:
        assert third.socket.protocol == PROTOCOL
        await _prompt(third)
        await machine.ssh("poweroff", check=False)
        assert await third.close_code(within_s=30) == 1000
    await cluster.until(
        "vmi", "seen", lambda state: (state or {})["status"]["phase"] == "Succeeded",
        within_s=30, what="phase Succeeded",
    )  # fmt: skip
    code, text = await refusal(cluster, target)
    assert (code, "VMI is not running" in text) == (400, True)


async def test_a_screen(cluster: Cluster) -> None:
    """Speaks RFB 3.8, is displaced or preserved, and a picture of it shows the login prompt."""
    await cluster.apply(vmi("screen"))
    async with Machine(cluster, "screen").console() as printed:
        async for text in printed:
            if "login:" in text:
                break
    target = "virtualmachineinstances/screen/vnc"
    async with stream(cluster, target) as first:
        assert await _handshake(first) == (720, 400)
        code, text = await refusal(cluster, f"{target}?preserveSession=true")
        assert (code, "Somebody is connected" in text) == (503, True)
        async with stream(cluster, f"{target}?preserveSession=false") as second:
            assert await first.close_code() == 1001
            assert await _handshake(second) == (720, 400)
    lit = _lit(await picture(cluster, "screen"))
    # Of the text screen's cells a line of kernel and boot loader and the prompt are lit, and most are dark.
    assert 0.001 < lit < 0.2


async def _handshake(screen: Stream) -> tuple[int, int]:
    """RFC 6143, 7.1 to 7.3: width and height."""
    assert await screen.until(rb"\n") == b"RFB 003.008\n"
    await screen.send(b"RFB 003.008\n")
    kinds = await screen.until(rb"(?s)^(.).+")
    assert b"\x01" in kinds[1:]  # none is needed: whoever comes so far may
    await screen.send(b"\x01")
    assert await screen.until(rb"(?s)^.{4}") == bytes(4)
    await screen.send(b"\x01")
    width, height = struct.unpack(">HH", (await screen.until(rb"(?s)^.{24}"))[:4])
    return width, height


def _lit(png: bytes) -> float:
    """The share of the picture's bytes that are not dark, by its filtered lines."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    at, data = 8, b""
    while at < len(png):
        size, kind = struct.unpack(">I4s", png[at : at + 8])
        data += png[at + 8 : at + 8 + size] if kind == b"IDAT" else b""
        at += 12 + size
    pixels = zlib.decompress(data)
    return sum(value != 0 for value in pixels) / len(pixels)


@pytest.mark.timeout(360)
async def test_ports_carry_all_there_is_both_ways(cluster: Cluster) -> None:
    """100 MiB there and back, while a console idles for three minutes and lives."""
    networks: Json = {"default": {"pod": {}}}
    interfaces: Json = {"default": {"masquerade": {}}}
    await cluster.apply(networked_vmi("port", networks, interfaces))
    machine = Machine(cluster, "port")
    await machine.running()
    tcp = f"virtualmachineinstances/port/portforward/{ECHOES}"
    async with stream(cluster, "virtualmachineinstances/port/console") as idle:
        await _prompt(idle)
        since_s = time.monotonic()
        await serve(machine)
        sent = b"".join(number.to_bytes(4, "big") for number in range(BULK_BYTES // 4))
        async with stream(cluster, tcp) as port:
            sending = asyncio.create_task(_pour(port, sent), name="sending")
            back = bytearray()
            while len(back) < len(sent):
                back += await port.next()
            await sending
        assert back == sent
        async with stream(cluster, f"{tcp}/udp") as port:
            for datagram in (b"one", b"another", bytes(1400)):
                await port.send(datagram)
                assert await port.next() == datagram
        code, text = await refusal(cluster, "virtualmachineinstances/port/portforward/4711/tcp")
        assert (code, "dialing VM: port 4711" in text) == (500, True)
        await call(cluster, "virtualmachineinstances/port", "pause", {})
        code, text = await refusal(cluster, tcp)
        assert (code, "VMI is paused" in text) == (409, True)
        await call(cluster, "virtualmachineinstances/port", "unpause", {})
        await asyncio.sleep(max(0, since_s + IDLE_S - time.monotonic()))
        await _prompt(idle)


async def _pour(port: Stream, data: bytes) -> None:
    for start in range(0, len(data), 32768):
        await port.send(data[start : start + 32768])


async def test_what_a_guest_does_not_have_is_refused(cluster: Cluster) -> None:
    bare = vmi("bare")
    bare["spec"]["domain"]["devices"] |= {
        "autoattachSerialConsole": False,
        "autoattachGraphicsDevice": False,
        "autoattachPodInterface": False,
    }
    await cluster.apply(bare)
    await Machine(cluster, "bare").running()
    for verb, text in (
        ("console", "No serial consoles are present."),
        ("vnc", "No graphics devices are present."),
        ("portforward/22", "no network interfaces are present"),
    ):
        code, said = await refusal(cluster, f"virtualmachineinstances/bare/{verb}")
        assert (code, text in said) == (400, True), said
        code, said = await refusal(cluster, f"virtualmachineinstances/nobody/{verb}")
        assert (code, "not found" in said) == (404, True), said
