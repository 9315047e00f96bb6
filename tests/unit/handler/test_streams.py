"""Consoles, screens and ports of guests through a whole handler: real unix sockets in a real pods directory, real TCP and UDP."""

import asyncio
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import TypeAlias

import pytest
from podvisor.domain.v1 import domain_pb2
from podvisor.handler.v1 import handler_pb2 as pb
from podvisor.handler.v1 import handler_pb2_grpc
from podvisor_common.kube.resources import PODS
from podvisor_common.rpc.client import call, stream, unix_channel
from podvisor_common.rpc.duplex import Duplex, duplex
from podvisor_common.rpc.errors import (
    Aborted,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    RpcError,
    Unavailable,
)
from podvisor_handler.rpc import streams
from podvisor_handler.streams import relay as relaying
from podvisor_handler.streams import sessions

from tests.unit.handler.builders import pod_manifest
from tests.unit.handler.fake_launcher import (
    OTHER_POD_UID,
    POD_UID,
    FakeLauncher,
    needs_root,
    serving,
    sockets_directory,
)
from tests.unit.handler.world import RUNNING, World, handler, start, world_in

pytestmark = needs_root

REFERENCE = pb.MachineReference(namespace="default", name="myvm", pod_uid=POD_UID)
MIB = 1 << 20
Console = Duplex[pb.OpenConsoleRequest, pb.OpenConsoleResponse]
Vnc = Duplex[pb.OpenVncRequest, pb.OpenVncResponse]
Port = Duplex[pb.ForwardPortRequest, pb.ForwardPortResponse]
Stub: TypeAlias = "handler_pb2_grpc.HandlerServiceAsyncStub"
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with world_in(tmp_path) as it:
        manifest = pod_manifest()
        manifest["status"]["podIPs"] = [{"ip": "127.0.0.1"}]
        start(it)
        it.server.put(PODS, manifest)
        yield it


@pytest.fixture
async def launcher(world: World) -> AsyncIterator[FakeLauncher]:
    """Of a guest that runs."""
    made = FakeLauncher()
    await made.report(**RUNNING)
    async with serving(made, world.pods):
        yield made


@pytest.fixture
async def stub(world: World, launcher: FakeLauncher) -> AsyncIterator[Stub]:
    async with handler(world), unix_channel(str(world.run / "handler.sock")) as channel:
        await world.until(lambda: world.status("phase") == "Running")
        made: Stub = handler_pb2_grpc.HandlerServiceStub(channel)
        await call(made.GetNodeInfo, pb.GetNodeInfoRequest(), timeout_s=5, wait_for_ready=True)
        yield made


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(4096):
        writer.write(data.upper())
        await writer.drain()
    writer.close()


@asynccontextmanager
async def _device(world: World, name: str, serve: Serve = _echo) -> AsyncIterator[None]:
    """QEMU's end: bound elsewhere, since a socket address is short, then renamed."""
    with tempfile.TemporaryDirectory(prefix="pv") as short:
        server = await asyncio.start_unix_server(serve, f"{short}/s")
        os.rename(f"{short}/s", sockets_directory(world.pods) / name)
        async with server:
            yield


def _console(
    stub: Stub, reference: pb.MachineReference = REFERENCE
) -> AbstractAsyncContextManager[Console]:
    opening = pb.OpenConsoleRequest(opening=pb.ConsoleOpening(reference=reference))
    return duplex(stub.OpenConsole, opening, first_reply_timeout_s=5)


def _vnc(stub: Stub, *, preserve: bool) -> AbstractAsyncContextManager[Vnc]:
    opening = pb.VncOpening(reference=REFERENCE, preserve_session=preserve)
    return duplex(stub.OpenVnc, pb.OpenVncRequest(opening=opening), first_reply_timeout_s=5)


def _port(
    stub: Stub, number: int, protocol: pb.PortProtocol.ValueType = pb.PORT_PROTOCOL_TCP
) -> AbstractAsyncContextManager[Port]:
    opening = pb.PortOpening(reference=REFERENCE, port=number, protocol=protocol)
    return duplex(stub.ForwardPort, pb.ForwardPortRequest(opening=opening), first_reply_timeout_s=5)


async def _said(console: Console, text: bytes) -> None:
    await console.write(pb.OpenConsoleRequest(data=text))
    answer = await console.read()
    assert answer is not None
    assert answer.data == text.upper()


async def test_a_console(world: World, stub: Stub) -> None:
    async with _device(world, "serial0.sock"), _console(stub) as console:
        await _said(console, b"hello")
        await _said(console, b"world")


async def test_the_next_one_has_the_console(world: World, stub: Stub) -> None:
    async with _device(world, "serial0.sock"), _console(stub) as first:
        await _said(first, b"one")
        async with _console(stub) as second:
            await _said(second, b"two")
            with pytest.raises(Aborted) as caught:
                await first.read()
            assert caught.value.reason == "SessionDisplaced"
            await _said(second, b"three")


async def test_one_that_does_not_read_is_displaced_too(
    world: World, stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection to the guest is cut, and its call is ended."""
    monkeypatch.setattr(sessions, "ENDED_AFTER_S", 0.05)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while not writer.is_closing():
                writer.write(bytes(65536))
                await writer.drain()

    async with _device(world, "serial0.sock", talk), _console(stub) as first:
        for _ in range(2):  # the third one meets no leavings of the second
            async with _console(stub) as second:
                assert await second.read() is not None
        with pytest.raises(RpcError):
            await _read_to_its_end(first)


async def _read_to_its_end(console: Console) -> None:
    while await console.read() is not None:
        pass


async def test_whoever_leaves_makes_room(world: World, stub: Stub) -> None:
    async with _device(world, "vnc.sock"):
        async with _vnc(stub, preserve=True) as first:
            with pytest.raises(FailedPrecondition) as caught:
                async with _vnc(stub, preserve=True):
                    pass
            assert caught.value.reason == "SessionInUse"
            await first.write(pb.OpenVncRequest(data=b"rfb"))
            assert (await first.read() or pb.OpenVncResponse()).data == b"RFB"
            await first.done_writing()
            assert await first.read() is None
        async with _vnc(stub, preserve=True):
            pass


async def test_a_guest_that_ends_ends_its_console(world: World, stub: Stub) -> None:
    async def last_words(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"bye")
        writer.close()

    async with _device(world, "serial0.sock", last_words), _console(stub) as console:
        assert (await console.read() or pb.OpenConsoleResponse()).data == b"bye"
        assert await console.read() is None


async def test_there_is_no_console(world: World, stub: Stub) -> None:
    with pytest.raises(FailedPrecondition) as caught:
        async with _console(stub):
            pass
    assert caught.value.reason == "NoSuchDevice"
    sockets_directory(world.pods)
    async with _device(world, "serial0.sock"):
        pass
    with pytest.raises(Unavailable):
        async with _console(stub):
            pass


async def test_a_pod_cannot_lead_a_console_elsewhere(world: World, stub: Stub) -> None:
    """Neither by a link to a socket of another pod, nor by a directory that is one."""
    elsewhere = sockets_directory(world.pods, OTHER_POD_UID) / "serial0.sock"
    with tempfile.TemporaryDirectory(prefix="pv") as short:
        server = await asyncio.start_unix_server(_echo, f"{short}/s")
        os.rename(f"{short}/s", elsewhere)
        async with server:
            (sockets_directory(world.pods) / "serial0.sock").symlink_to(elsewhere)
            with pytest.raises(FailedPrecondition) as caught:
                async with _console(stub):
                    pass
    assert caught.value.reason == "NoSuchDevice"


@pytest.mark.parametrize(
    ("reference", "error"),
    [
        (pb.MachineReference(namespace="default", name="other"), NotFound),
        (pb.MachineReference(namespace="default", name="myvm", uid="another"), NotFound),
        (pb.MachineReference(namespace="default", name="myvm", pod_uid=OTHER_POD_UID), NotFound),
        (pb.MachineReference(name="myvm"), InvalidArgument),
    ],
)
async def test_no_such_machine(
    stub: Stub, reference: pb.MachineReference, error: type[RpcError]
) -> None:
    with pytest.raises(error):
        async with _console(stub, reference):
            pass


async def test_a_stream_begins_with_its_opening(stub: Stub) -> None:
    with pytest.raises(InvalidArgument):
        async with duplex(
            stub.OpenConsole, pb.OpenConsoleRequest(data=b"x"), first_reply_timeout_s=10
        ):
            pass


async def test_a_port_takes_and_gives_all_there_is(stub: Stub) -> None:
    """Its end is only the end of what the guest gets; what the guest says to that still comes."""
    received = bytearray()

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            received.extend(data)
        writer.write(bytes(received))
        await writer.drain()
        writer.close()

    sent = bytes(range(256)) * (8 * MIB // 256)
    async with _tcp(count) as number, _port(stub, number) as port:
        for start_ in range(0, len(sent), 32768):
            await port.write(pb.ForwardPortRequest(data=sent[start_ : start_ + 32768]))
        await port.done_writing()
        back = bytearray()
        while (piece := await port.read()) is not None:
            back.extend(piece.data)
    assert back == sent


async def test_a_slow_reader_stops_the_guest(stub: Stub) -> None:
    """What waits for a reader that does not read is bounded by buffers, not by what there is to say."""
    said = 0
    stuck = asyncio.Event()

    async def talk(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal said
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        writer.transport.set_write_buffer_limits(65536)
        while True:
            writer.write(bytes(65536))
            said += 65536
            try:
                async with asyncio.timeout(1):
                    await writer.drain()
            except TimeoutError:
                stuck.set()
                return

    async with _tcp(talk) as number, _port(stub, number):
        async with asyncio.timeout(30):
            await stuck.wait()
        assert said < 16 * MIB


async def test_a_guest_that_takes_nothing_keeps_no_connection(stub: Stub) -> None:
    async def deaf(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await gone.wait()
        writer.close()

    gone = asyncio.Event()
    async with _tcp(deaf) as number:
        before = _descriptors()
        for _ in range(3):
            async with _port(stub, number) as port:
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.5):
                        while True:
                            await port.write(pb.ForwardPortRequest(data=bytes(65536)))
        await _descriptors_become(before + 3)  # those of the guest's end
        gone.set()


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def _descriptors_become(number: int) -> None:
    for _ in range(500):
        if _descriptors() <= number:
            return
        await asyncio.sleep(0.01)  # the kernel tells nobody of it
    raise AssertionError(f"{_descriptors()} descriptors are open, not {number}")


async def test_a_machine_has_so_many_streams_and_no_more(
    stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "STREAMS_OF_A_MACHINE", 1)
    async with _tcp(_echo) as number:
        async with _port(stub, number):
            with pytest.raises(ResourceExhausted) as caught:
                async with _port(stub, number):
                    pass
            assert caught.value.reason == "TooManyStreams"
        async with asyncio.timeout(5):
            while True:  # the end of the first one is on its way
                with suppress(ResourceExhausted):
                    async with _port(stub, number):
                        break


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (domain_pb2.DOMAIN_STATE_PAUSED, "AlreadyPaused"),
        (domain_pb2.DOMAIN_STATE_ENDED, "NotRunning"),
    ],
)
async def test_a_guest_that_does_not_run_has_no_ports(
    world: World,
    stub: Stub,
    launcher: FakeLauncher,
    state: domain_pb2.DomainState.ValueType,
    reason: str,
) -> None:
    await launcher.report(state=state)
    replies = stream(stub.WatchDomains, pb.WatchDomainsRequest(), first_reply_timeout_s=5)
    async with aclosing(replies):
        async for reply in replies:
            if reply.machine.report.state == state:
                break
    with pytest.raises(FailedPrecondition) as caught:
        async with _port(stub, 22):
            pass
    assert caught.value.reason == reason


async def test_a_guest_that_says_nothing_more_is_left(
    stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relaying, "LINGER_S", 0.05)

    async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()
        await asyncio.Event().wait()

    async with _tcp(silent) as number, _port(stub, number) as port:
        await port.done_writing()
        async with asyncio.timeout(5):
            assert await port.read() is None


async def test_nobody_takes_the_connection(stub: Stub) -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        with pytest.raises(FailedPrecondition) as caught:
            async with _port(stub, unheard.getsockname()[1]):
                pass
    assert caught.value.reason == "PortUnreachable"
    for number in (0, 65536):
        with pytest.raises(InvalidArgument):
            async with _port(stub, number):
                pass


async def test_datagrams_stay_whole(stub: Stub) -> None:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as guest:
        guest.bind(("127.0.0.1", 0))
        guest.setblocking(False)
        async with _port(stub, guest.getsockname()[1], pb.PORT_PROTOCOL_UDP) as port:
            for text in (b"one", b"two", bytes(1400)):
                await port.write(pb.ForwardPortRequest(data=text))
                async with asyncio.timeout(5):
                    got, sender = await loop.sock_recvfrom(guest, 2048)
                    assert got == text
                    await loop.sock_sendto(guest, b"re:" + text, sender)
                    answer = await port.read()
                assert answer is not None
                assert answer.data == b"re:" + text
            await port.done_writing()
            async with asyncio.timeout(5):
                assert await port.read() is None


@asynccontextmanager
async def _tcp(serve: Serve) -> AsyncIterator[int]:
    """A server in a guest: the number of its port."""
    connections: list[asyncio.StreamWriter] = []

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        await serve(reader, writer)

    server = await asyncio.start_server(served, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in connections:
            writer.transport.abort()
