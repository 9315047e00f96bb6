"""gRPC servers and clients of ours against each other, on real sockets."""

import asyncio
import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from podvisor.launcher.v1 import launcher_pb2, launcher_pb2_grpc
from podvisor_common.errors import Retryable, Terminal
from podvisor_common.rpc import errors
from podvisor_common.rpc.client import call, stream, unix_channel
from podvisor_common.rpc.server import RpcService, serve_unix

NAME = "podvisor.launcher.v1.LauncherService"


class LibvirtAway(Retryable):
    reason = "LibvirtAway"


class Launcher(launcher_pb2_grpc.LauncherServiceServicer):
    """Answers GetInfo with an error if it was given one, WatchDomain with two reports and then the
    error.
    """

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.watching = asyncio.Event()
        self.watch_ended = asyncio.Event()

    async def GetInfo(
        self, request: launcher_pb2.GetInfoRequest, context: object
    ) -> launcher_pb2.GetInfoResponse:
        if self.error:
            raise self.error
        return launcher_pb2.GetInfoResponse()

    async def WatchDomain(
        self, request: launcher_pb2.WatchDomainRequest, context: object
    ) -> AsyncIterator[launcher_pb2.WatchDomainResponse]:
        try:
            yield launcher_pb2.WatchDomainResponse()
            if self.error:
                raise self.error
            self.watching.set()
            await asyncio.Event().wait()
        finally:
            self.watch_ended.set()


def new_launcher(error: Exception | None = None) -> Launcher:
    return Launcher(error)  # type: ignore[abstract]  # the other methods are not called


def service(launcher: Launcher) -> RpcService:
    return RpcService(NAME, launcher, launcher_pb2_grpc.add_LauncherServiceServicer_to_server)


async def get_info(path: Path | str, timeout_s: float = 5) -> launcher_pb2.GetInfoResponse:
    async with unix_channel(str(path)) as channel:
        stub = launcher_pb2_grpc.LauncherServiceStub(channel)
        return await call(stub.GetInfo, launcher_pb2.GetInfoRequest(), timeout_s=timeout_s)


@pytest.mark.parametrize(
    ("raised", "received", "reason"),
    [
        (errors.InvalidArgument("no", reason="BadDisk"), errors.InvalidArgument, "BadDisk"),
        (errors.NotFound("no"), errors.NotFound, "NotFound"),
        (errors.Unavailable("no"), errors.Unavailable, "Unavailable"),
        (LibvirtAway("no"), errors.Unavailable, "LibvirtAway"),
    ],
    ids=["reason", "default reason", "retryable", "foreign type"],
)
async def test_typed_error_arrives_as_the_same_type(
    tmp_path: Path, raised: Exception, received: type[errors.RpcError], reason: str
) -> None:
    async with serve_unix(tmp_path / "s", [service(new_launcher(raised))]):
        with pytest.raises(received, match="no") as caught:
            await get_info(tmp_path / "s")
    assert caught.value.reason == reason
    assert isinstance(caught.value, Retryable) == isinstance(raised, Retryable)


async def test_metadata_travels(tmp_path: Path) -> None:
    error = errors.FailedPrecondition("x", reason="R", metadata={"generation": "7"})
    async with serve_unix(tmp_path / "s", [service(new_launcher(error))]):
        with pytest.raises(errors.FailedPrecondition) as caught:
            await get_info(tmp_path / "s")
    assert caught.value.metadata == {"generation": "7"}
    assert isinstance(caught.value, Terminal)


async def test_unknown_exception_does_not_leak(tmp_path: Path) -> None:
    async with serve_unix(tmp_path / "s", [service(new_launcher(KeyError("secret")))]):
        with pytest.raises(errors.Internal) as caught:
            await get_info(tmp_path / "s")
    assert "secret" not in str(caught.value)
    assert "KeyError" not in str(caught.value)


async def test_stream_error_arrives_after_the_replies(tmp_path: Path) -> None:
    launcher = new_launcher(errors.Unavailable("gone", reason="Gone"))
    async with (
        serve_unix(tmp_path / "s", [service(launcher)]),
        unix_channel(str(tmp_path / "s")) as channel,
    ):
        stub = launcher_pb2_grpc.LauncherServiceStub(channel)
        replies = stream(
            stub.WatchDomain, launcher_pb2.WatchDomainRequest(), first_reply_timeout_s=5
        )
        await anext(replies)
        with pytest.raises(errors.Unavailable) as caught:
            await anext(replies)
    assert caught.value.reason == "Gone"


async def test_leaving_a_stream_ends_its_handler(tmp_path: Path) -> None:
    launcher = new_launcher()
    async with (
        serve_unix(tmp_path / "s", [service(launcher)]),
        unix_channel(str(tmp_path / "s")) as channel,
    ):
        stub = launcher_pb2_grpc.LauncherServiceStub(channel)
        replies = stream(
            stub.WatchDomain, launcher_pb2.WatchDomainRequest(), first_reply_timeout_s=5
        )
        async with aclosing(replies):
            await anext(replies)
            await asyncio.wait_for(launcher.watching.wait(), 5)
        await asyncio.wait_for(launcher.watch_ended.wait(), 5)


async def test_absent_socket_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(errors.Unavailable):
        await get_info(tmp_path / "absent")


async def test_socket_is_private_and_gone_after_stop(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with serve_unix(path, [service(new_launcher())]):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not path.exists()


async def test_published_only_when_serving(tmp_path: Path) -> None:
    path, hidden = tmp_path / "launcher.sock", tmp_path / ".launcher.sock"
    async with serve_unix(hidden, [service(new_launcher())], publish_as=path):
        assert not hidden.exists()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        await get_info(path)
    assert not path.exists()


async def test_stop_leaves_the_socket_of_a_successor(tmp_path: Path) -> None:
    path = tmp_path / "launcher.sock"
    async with serve_unix(tmp_path / ".new", [service(new_launcher())], publish_as=path):
        async with serve_unix(tmp_path / ".old", [service(new_launcher())], publish_as=path):
            await get_info(path)
            os.rename(path, tmp_path / "kept")
            with socket.socket(socket.AF_UNIX) as successor:
                successor.bind(str(path))
        assert path.exists()


async def test_a_socket_that_cannot_be_made_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no socket can be bound"):
        async with serve_unix(tmp_path / "missing/s", [service(new_launcher())]):
            pass


async def test_stale_socket_is_replaced_but_not_a_file(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "s"))
    async with serve_unix(tmp_path / "s", [service(new_launcher())]):
        await get_info(tmp_path / "s")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError):
        async with serve_unix(tmp_path / "file", [service(new_launcher())]):
            pass
    assert (tmp_path / "file").read_text() == "mine"


async def test_dial_by_descriptor_survives_a_rename(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with serve_unix(tmp_path / ".s", [service(new_launcher())], publish_as=path):
        fd = os.open(path, os.O_PATH | os.O_NOFOLLOW)
        try:
            await get_info(f"/proc/self/fd/{fd}")
        finally:
            os.close(fd)


async def test_channel_finds_a_restarted_server(tmp_path: Path) -> None:
    async with unix_channel(str(tmp_path / "s")) as channel:
        stub = launcher_pb2_grpc.LauncherServiceStub(channel)
        for _ in range(2):
            async with serve_unix(tmp_path / "s", [service(new_launcher())]):
                await call(
                    stub.GetInfo,
                    launcher_pb2.GetInfoRequest(),
                    timeout_s=3,
                    wait_for_ready=True,
                )


async def test_health_and_reflection(tmp_path: Path) -> None:
    serving = health_pb2.HealthCheckResponse.SERVING
    not_serving = health_pb2.HealthCheckResponse.NOT_SERVING
    async with (
        serve_unix(tmp_path / "s", [service(new_launcher())]) as server,
        unix_channel(str(tmp_path / "s")) as channel,
    ):
        health = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service=NAME)
        assert (await health.Check(request, timeout=5)).status == serving
        await server.set_serving(NAME, serving=False)
        assert (await health.Check(request, timeout=5)).status == not_serving
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health.Check(health_pb2.HealthCheckRequest(service="x"), timeout=5)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        question = reflection_pb2.ServerReflectionRequest(list_services="")
        async for answer in reflection.ServerReflectionInfo(iter([question]), timeout=5):
            listed = {found.name for found in answer.list_services_response.service}
            assert {NAME, "grpc.health.v1.Health"} <= listed


async def test_stop_reports_not_serving_and_cancels_streams(tmp_path: Path) -> None:
    launcher = new_launcher()
    async with (
        unix_channel(str(tmp_path / "s")) as channel,
        serve_unix(tmp_path / "s", [service(launcher)]) as server,
    ):
        health = health_pb2_grpc.HealthStub(channel)
        stub = launcher_pb2_grpc.LauncherServiceStub(channel)
        states = aiter(health.Watch(health_pb2.HealthCheckRequest(service=NAME), timeout=5))
        await anext(states)
        watching = stub.WatchDomain(launcher_pb2.WatchDomainRequest(), timeout=5)
        await anext(aiter(watching))
        await asyncio.wait_for(launcher.watching.wait(), 5)
        last, _ = await asyncio.gather(anext(states), server.stop(0.3))
        assert last.status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert launcher.watch_ended.is_set()


async def test_path_too_long_for_a_socket(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="107"):
        async with serve_unix(tmp_path / ("x" * 100), []):
            pass


async def test_a_server_that_is_slow_to_answer_is_not_given_up(tmp_path: Path) -> None:
    """A launcher without a processor: the kernel takes the connection, the process greets later."""
    dialled = 0

    async def greet_late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal dialled
        dialled += 1
        # The delay is the subject.
        await asyncio.sleep(0.3)
        back_reader, back_writer = await asyncio.open_unix_connection(tmp_path / "real")
        async with asyncio.TaskGroup() as group:
            group.create_task(_copy(reader, back_writer), name="there")
            group.create_task(_copy(back_reader, writer), name="back")

    slow = await asyncio.start_unix_server(greet_late, tmp_path / "slow")
    async with slow, serve_unix(tmp_path / "real", [service(new_launcher())]):
        assert await get_info(tmp_path / "slow") == launcher_pb2.GetInfoResponse()
    assert dialled == 1


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()
