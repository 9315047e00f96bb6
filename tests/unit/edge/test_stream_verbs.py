"""console, vnc, portforward and screenshots through the real server, with real websockets."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import WSMsgType
from podvisor_common.kube.resources import VIRTUAL_MACHINES
from podvisor_common.rpc.errors import FailedPrecondition
from podvisor_controller.subresources import websockets

from tests.unit.edge.guests import KEY, Guests, guests
from tests.unit.edge.subresource_session import USER, path_of

MIB = 1 << 20
STREAMS = ("console", "vnc", "portforward/22")


@pytest.fixture
async def it() -> AsyncIterator[Guests]:
    async with guests() as made:
        yield made


async def _next(socket: "aiohttp.ClientWebSocketResponse[bool]") -> bytes:
    message = await socket.receive(timeout=5)
    assert message.type is WSMsgType.BINARY, message
    return bytes(message.data)


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (("plain.kubevirt.io",), "plain.kubevirt.io"),
        ((), None),
        (("base64url.bearer.authorization.k8s.io.abc", "plain.kubevirt.io"), "plain.kubevirt.io"),
    ],
)
async def test_raw_bytes_in_binary_messages(
    it: Guests, offered: tuple[str, ...], chosen: str | None
) -> None:
    async with it.socket("console", protocols=offered) as socket:
        assert socket.protocol == chosen
        for data in (b"hello", bytes(range(256)), b"\xff\xfe"):
            await socket.send_bytes(data)
            assert await _next(socket) == data
        await socket.send_str("texts are bytes too")
        assert await _next(socket) == b"texts are bytes too"


async def test_the_end_of_the_guest_is_a_close_frame(it: Guests) -> None:
    async with it.socket("console") as socket:
        await socket.send_bytes(b"exit")
        message = await socket.receive(timeout=5)
        assert (message.type, message.data) == (WSMsgType.CLOSE, 1000)


async def test_somebody_else_has_connected(it: Guests) -> None:
    async with it.socket("console") as socket:
        await socket.send_bytes(b"displace")
        message = await socket.receive(timeout=5)
        assert (message.type, message.data) == (WSMsgType.CLOSE, 1001)
        assert message.extra == "Somebody else has connected."


async def test_a_client_that_leaves_ends_the_stream(it: Guests) -> None:
    async with it.socket("console") as socket:
        await socket.send_bytes(b"hello")
        assert await _next(socket) == b"hello"
    async with asyncio.timeout(5):
        await it.handler.ended.wait()


async def test_all_that_was_sent_before_the_end_arrives(it: Guests) -> None:
    piece = bytes(MIB)
    async with it.socket("portforward/22") as socket:
        for _ in range(8):
            await socket.send_bytes(piece)
        await socket.close()
    async with asyncio.timeout(10):
        await it.handler.ended.wait()
    assert it.handler.received == 8 * MIB


async def test_a_slow_reader_costs_no_memory(it: Guests) -> None:
    """What it does not read is not asked of the guest."""
    it.handler.flood = True
    async with it.socket("portforward/22") as socket:
        assert await _next(socket)
        before = -1
        while it.handler.given != before:  # until nothing more is taken for a while
            before = it.handler.given
            await asyncio.sleep(0.5)
        assert it.handler.given < 32 * MIB


async def test_a_silent_client_is_pinged_and_then_given_up(
    it: Guests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websockets, "PING_EVERY_S", 0.05)
    async with it.socket("console") as socket:
        for _ in range(3):
            message = await socket.receive(timeout=5)
            assert message.type is WSMsgType.PING
            await socket.pong(message.data)
        monkeypatch.setattr(websockets, "UNHEARD_S", 0.2)
        while (message := await socket.receive(timeout=5)).type is WSMsgType.PING:
            pass  # and no answer
        assert (message.type, message.data) == (WSMsgType.CLOSE, 1001)
    async with it.socket("console") as socket:
        await socket.ping(b"is anybody there")
        message = await socket.receive(timeout=5)
        while message.type is WSMsgType.PING:
            message = await socket.receive(timeout=5)
        assert (message.type, message.data) == (WSMsgType.PONG, b"is anybody there")


async def test_vnc(it: Guests) -> None:
    async with it.socket("vnc?preserveSession=false") as socket:
        assert await _next(socket) == b"RFB 003.008\n"
    assert (await it.get("vnc?preserveSession=perhaps"))[0] == 400
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        async with it.socket("vnc?preserveSession=true"):
            pass
    assert caught.value.status == 503


async def test_ports(it: Guests) -> None:
    for resource in ("virtualmachines", "virtualmachineinstances"):
        for path in ("portforward/22", "portforward/22/tcp", "portforward/53/udp"):
            async with it.socket(path, resource) as socket:
                await socket.send_bytes(b"hello")
                assert await _next(socket) == b"hello"
    assert it.handler.asked == 2 * [
        "ForwardPort 22 PORT_PROTOCOL_TCP",
        "ForwardPort 22 PORT_PROTOCOL_TCP",
        "ForwardPort 53 PORT_PROTOCOL_UDP",
    ]
    reviewed = {(spec["resourceAttributes"]["resource"], spec["resourceAttributes"]["subresource"])
                for spec in it.server.reviews}  # fmt: skip
    assert reviewed == {
        ("virtualmachines", "portforward"),
        ("virtualmachineinstances", "portforward"),
    }


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("portforward/0", "invalid port '0': it has to be between 1 and 65535"),
        ("portforward/65536", "invalid port '65536': it has to be between 1 and 65535"),
        ("portforward/ssh", "invalid port 'ssh': it has to be between 1 and 65535"),
        ("portforward/0655359", "invalid port '0655359': it has to be between 1 and 65535"),
        ("portforward/22/sctp", "invalid protocol 'sctp': it has to be tcp or udp"),
    ],
)
async def test_no_such_port(it: Guests, path: str, text: str) -> None:
    code, status = await it.get(path)
    assert (code, status["message"]) == (400, text)


@pytest.mark.parametrize("verb", STREAMS)
async def test_what_is_no_websocket_is_refused_before_anybody_is_disturbed(
    it: Guests, verb: str
) -> None:
    code, status = await it.get(verb)
    assert (code, status["kind"], it.handler.asked) == (400, "Status", [])


@pytest.mark.parametrize(
    ("verb", "devices", "text"),
    [
        ("console", {"autoattachSerialConsole": False}, "No serial consoles are present."),
        ("vnc", {"autoattachGraphicsDevice": False}, "No graphics devices are present."),
        ("vnc/screenshot", {"autoattachGraphicsDevice": False}, "No graphics devices are present."),
        ("portforward/22", {"interfaces": []}, "no network interfaces are present"),
    ],
)
async def test_what_the_guest_does_not_have(
    it: Guests, verb: str, devices: dict[str, object], text: str
) -> None:
    it.set(devices)
    code, status = await it.get(verb)
    assert (code, status["message"]) == (400, text)


@pytest.mark.parametrize(
    ("verb", "phase", "code"),
    [
        ("console", "Pending", 400),
        ("console", "Scheduling", 400),
        ("console", "Succeeded", 400),
        ("console", "Failed", 409),
        ("vnc", "Failed", 409),
        ("vnc/screenshot", "Pending", 400),
    ],
)
async def test_phases(it: Guests, verb: str, phase: str, code: int) -> None:
    it.set(phase=phase)
    assert (await it.get(verb))[0] == code


@pytest.mark.parametrize(
    ("verb", "reason", "code", "text"),
    [
        ("console", "NotRunning", 400, "VMI is not running"),
        ("console", "NoSuchDevice", 400, "no"),
        ("vnc", "NoSuchDevice", 400, "no"),
        ("portforward/22", "AlreadyPaused", 409, "VMI is paused"),
        ("portforward/22", "NotRunning", 409, "VM is not running"),
        ("portforward/22", "PortUnreachable", 500, "Internal error occurred: dialing VM: no"),
    ],
)
async def test_refusals_of_the_handler(
    it: Guests, verb: str, reason: str, code: int, text: str
) -> None:
    it.handler.refusal = FailedPrecondition("no", reason=reason)
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
               "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}  # fmt: skip
    path = path_of("virtualmachineinstances", KEY, verb)
    async with it.session.get(path, headers=[*USER, *upgrade.items()]) as answer:
        status = await answer.json()
    assert (answer.status, status["code"]) == (code, code)
    assert text in status["message"]


async def test_a_machine_without_an_instance(it: Guests) -> None:
    it.server.remove(VIRTUAL_MACHINES, KEY)
    code, status = await it.get("portforward/22", "virtualmachines")
    assert (code, status["message"]) == (404, 'virtualmachine.kubevirt.io "myvm" not found')


async def test_a_picture(it: Guests) -> None:
    path = path_of("virtualmachineinstances", KEY, "vnc/screenshot?moveCursor=true")
    async with it.session.get(path, headers=USER) as answer:
        assert (answer.status, answer.content_type) == (200, "image/png")
        assert await answer.read() == b"\x89PNGpicture"
    it.handler.picture = (FailedPrecondition("no", reason="NotRunning"),)
    assert (await it.get("vnc/screenshot"))[0] == 400
    it.handler.picture = (b"\x89PNG", FailedPrecondition("gone", reason="NotRunning"))
    with pytest.raises(aiohttp.ClientPayloadError):
        async with it.session.get(path, headers=USER) as answer:
            await answer.read()
