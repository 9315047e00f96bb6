"""gRPC servers on unix sockets: health v1 per service, reflection, typed errors.

Invariants: a socket is visible under its published name only while it is served, and never with
wider permissions than asked. Must not know any service: what is served is handed in.
"""

import os
import stat
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from podvisor_common.rpc.interceptor import ErrorInterceptor

_PATH_LIMIT_BYTES = 107  # sun_path without its terminator
OPTIONS: Sequence[tuple[str, int]] = (
    # Clients ping every 10 s; refusing that would cut their idle streams.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.max_receive_message_length", 4 * 1024 * 1024),
)


@dataclass(frozen=True, slots=True)
class RpcService:
    """One service: its full name (`podvisor.launcher.v1.LauncherService`), the servicer, and the
    generated function that adds it.
    """

    name: str
    servicer: Any
    add_to_server: Callable[[Any, grpc.aio.Server], None]


class UnixServer:
    """A running server. Leaving serve_unix() stops it; stop() does so earlier and may be called
    again.
    """

    def __init__(
        self, server: grpc.aio.Server, servicer: health.aio.HealthServicer, path: Path
    ) -> None:
        self._server = server
        self._health = servicer
        self._inode = _inode(path)
        self.path = path

    async def set_serving(self, service: str, *, serving: bool) -> None:
        """Tell watchers of health v1 whether `service` can do its work."""
        state = health_pb2.HealthCheckResponse.ServingStatus
        await self._health.set(service, state.SERVING if serving else state.NOT_SERVING)

    async def stop(self, grace_s: float) -> None:
        """Report NOT_SERVING, refuse new calls, let running ones end for `grace_s` seconds, then
        cancel them.
        """
        await self._health.enter_graceful_shutdown()
        # A successor may have published its own socket under our name already: that one stays.
        if self._inode is not None and _inode(self.path) == self._inode:
            self.path.unlink(missing_ok=True)
        await self._server.stop(grace_s)


@asynccontextmanager
async def serve_unix(
    path: str | Path,
    services: Sequence[RpcService],
    *,
    mode: int = 0o600,
    publish_as: str | Path | None = None,
    grace_s: float = 2.0,
    max_concurrent_calls: int = 256,
) -> AsyncIterator[UnixServer]:
    """Serve `services` on the unix socket `path` until the block is left.

    With `publish_as` the server binds `path` and renames it once it answers, so that whoever waits
    for the published name never dials too early. A stale socket of a dead predecessor is replaced;
    any other file there raises FileExistsError. Raises OSError where no socket can be made, and
    ValueError for a path that no socket address can hold.
    """
    bound = Path(path)
    published = Path(publish_as) if publish_as is not None else bound
    if len(os.fsencode(bound)) > _PATH_LIMIT_BYTES:
        raise ValueError(f"socket path is longer than {_PATH_LIMIT_BYTES} bytes: {bound}")
    server = grpc.aio.server(
        interceptors=[ErrorInterceptor()],
        options=OPTIONS,
        maximum_concurrent_rpcs=max_concurrent_calls,
    )
    servicer = await add_services(server, services)
    _remove_stale_socket(bound)
    _bind(server, bound, mode)
    await server.start()
    try:
        _publish(bound, published)
        running = UnixServer(server, servicer, published)
    except BaseException:
        await server.stop(None)
        raise
    try:
        yield running
    finally:
        await running.stop(grace_s)


async def add_services(
    server: grpc.aio.Server, services: Sequence[RpcService]
) -> health.aio.HealthServicer:
    """Add `services`, reflection and health v1, which tells that all of them serve, to a server that is not started yet."""
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    names = [service.name for service in services]
    for service in services:
        service.add_to_server(service.servicer, server)
    for name in ("", health.SERVICE_NAME, *names):
        await servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    reflection.enable_server_reflection(
        (health.SERVICE_NAME, reflection.SERVICE_NAME, *names), server
    )
    return servicer


def _bind(server: grpc.aio.Server, path: Path, mode: int) -> None:
    # The process's umask is the only way to have no moment with a wider mode; nothing is awaited
    # while it is changed.
    previous = os.umask(0o777 & ~mode)
    try:
        server.add_insecure_port(f"unix:{path}")
    except RuntimeError as error:
        # All that gRPC has to say of a full disk as of a missing directory.
        raise OSError(f"no socket can be bound at {path}") from error
    finally:
        os.umask(previous)
    path.chmod(mode)


def _publish(bound: Path, published: Path) -> None:
    if published != bound:
        _remove_stale_socket(published)
        bound.rename(published)


def _remove_stale_socket(path: Path) -> None:
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise FileExistsError(f"not a socket: {path}")
        path.unlink()


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
