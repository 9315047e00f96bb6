"""A launcher as the handler meets it: LauncherService on a real unix socket in a real pods directory.

The process that serves it (the test itself) lives in a control group that is named like a pod's, so
that the handler's checks see what they see on a node.
"""

import asyncio
import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path

import grpc
import pytest
from podvisor.domain.v1 import domain_pb2, guest_pb2
from podvisor.launcher.v1 import launcher_pb2, launcher_pb2_grpc
from podvisor_common.rpc.errors import FailedPrecondition
from podvisor_common.rpc.server import RpcService, serve_unix
from podvisor_handler.launchers.connection import LauncherConnection
from podvisor_handler.launchers.endpoint import SOCKETS_DIRECTORY
from podvisor_handler.launchers.registry import LauncherRegistry
from podvisor_handler.launchers.state import CONTRACT_VERSION

from tests.support.older_launcher import OlderLauncher

POD_UID = "7c5b2c3e-0d3b-4a3e-9a39-4f1c6b0f3f01"
OTHER_POD_UID = "7c5b2c3e-0d3b-4a3e-9a39-4f1c6b0f3f02"
VMI_UID = "11111111-2222-4333-8444-555555555555"
WITHIN_S = 10

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="makes control groups")
needs_user_namespaces = pytest.mark.skipif(
    subprocess.run(["unshare", "-Ur", "true"], check=False, capture_output=True).returncode != 0,
    reason="no user namespaces here",
)

State = domain_pb2.DomainState
Reason = domain_pb2.DomainReason


class FakeLauncher(OlderLauncher):
    """Answers like a launcher; its reports are the test's to give."""

    def __init__(
        self,
        epoch: int = 1,
        *,
        contract_version: int = CONTRACT_VERSION,
        uid: str = "",
        message: str = "",
        floods: bool = False,
        hangs: bool = False,
        ends: bool = False,
        failures: int = 0,
        apply_failures: int = 0,
        refuses: bool = False,
    ) -> None:
        self.contract_version = contract_version
        self.floods = floods  # reports without an end, as fast as they are taken
        self.failures = failures  # of so many streams to come
        self.apply_failures = apply_failures
        self.refuses = refuses  # every specification
        self.ends = ends  # every stream after its first report
        self.hangs = hangs  # takes orders and never answers
        self.applied: list[domain_pb2.DomainSpec] = []
        self.shutdowns: list[int] = []
        self.picture: Iterable[bytes] = (b"picture",)
        self.pause_refusal: Exception | None = None
        self.features: list[str] = []
        self.agent = guest_pb2.GuestInfo()
        self.agent_failure: Exception | None = None
        self.asked: list[object] = []  # of the agent
        self.current = domain_pb2.DomainReport(
            epoch=epoch,
            sequence=1,
            uid=uid,
            state=domain_pb2.DOMAIN_STATE_NONE,
            message=message,
        )
        self._changed = asyncio.Condition()

    async def report(self, **fields: object) -> None:
        """The machine's state has changed."""
        async with self._changed:
            self.current.sequence += 1
            self.current.MergeFrom(domain_pb2.DomainReport(**fields))  # type: ignore[arg-type]
            self._changed.notify_all()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits for a call that makes the condition true."""
        async with asyncio.timeout(WITHIN_S), self._changed:
            await self._changed.wait_for(condition)

    async def GetInfo(
        self,
        request: launcher_pb2.GetInfoRequest,
        context: grpc.aio.ServicerContext[object, object],
    ) -> launcher_pb2.GetInfoResponse:
        return launcher_pb2.GetInfoResponse(
            contract_version=self.contract_version,
            epoch=self.current.epoch,
            features=self.features,
        )

    async def ApplyDomain(
        self,
        request: launcher_pb2.ApplyDomainRequest,
        context: grpc.aio.ServicerContext[object, object],
    ) -> launcher_pb2.ApplyDomainResponse:
        if self.apply_failures > 0:
            self.apply_failures -= 1
            await context.abort(grpc.StatusCode.INTERNAL, "no space left on device")
        async with self._changed:
            self.applied.append(request.spec)
            self._changed.notify_all()
        if self.refuses:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "it can never work")
        return launcher_pb2.ApplyDomainResponse(accepted_generation=request.spec.generation)

    async def ShutdownDomain(
        self,
        request: launcher_pb2.ShutdownDomainRequest,
        context: grpc.aio.ServicerContext[object, object],
    ) -> launcher_pb2.ShutdownDomainResponse:
        async with self._changed:
            self.shutdowns.append(request.grace_period_s)
            self._changed.notify_all()
        if self.hangs:
            await asyncio.Event().wait()
        return launcher_pb2.ShutdownDomainResponse()

    async def DestroyDomain(
        self,
        request: launcher_pb2.DestroyDomainRequest,
        context: grpc.aio.ServicerContext[object, object],
    ) -> launcher_pb2.DestroyDomainResponse:
        raise AssertionError("the handler has no reason to call this")

    async def PauseDomain(
        self,
        request: launcher_pb2.PauseDomainRequest,
        context: grpc.aio.ServicerContext[object, object],
    ) -> launcher_pb2.PauseDomainResponse:
        if self.pause_refusal is not None:
            raise self.pause_refusal
        if self.current.state == domain_pb2.DOMAIN_STATE_PAUSED:
            raise FailedPrecondition("The guest is paused.", reason="AlreadyPaused")
        await self.report(state=domain_pb2.DOMAIN_STATE_PAUSED)
        return launcher_pb2.PauseDomainResponse()

    async def ResumeDomain(
        self,
        request: launcher_pb2.ResumeDomainRequest,
        context: grpc.aio.ServicerContext[object, object],
    ) -> launcher_pb2.ResumeDomainResponse:
        await self.report(state=domain_pb2.DOMAIN_STATE_RUNNING)
        return launcher_pb2.ResumeDomainResponse()

    async def TakeScreenshot(
        self,
        request: launcher_pb2.TakeScreenshotRequest,
        context: grpc.aio.ServicerContext[object, object],
    ) -> AsyncIterator[launcher_pb2.TakeScreenshotResponse]:
        for piece in self.picture:
            yield launcher_pb2.TakeScreenshotResponse(png=piece)

    async def GetDomainXml(
        self,
        request: launcher_pb2.GetDomainXmlRequest,
        context: grpc.aio.ServicerContext[object, object],
    ) -> launcher_pb2.GetDomainXmlResponse:
        raise AssertionError("the handler has no reason to call this")

    async def GetGuestInfo(
        self,
        request: launcher_pb2.GetGuestInfoRequest,
        context: grpc.aio.ServicerContext[object, object],
    ) -> launcher_pb2.GetGuestInfoResponse:
        return launcher_pb2.GetGuestInfoResponse(info=self.told(request))

    async def ListGuestUsers(
        self,
        request: launcher_pb2.ListGuestUsersRequest,
        context: grpc.aio.ServicerContext[object, object],
    ) -> launcher_pb2.ListGuestUsersResponse:
        return launcher_pb2.ListGuestUsersResponse(users=self.told(request).users)

    async def ListGuestFilesystems(
        self,
        request: launcher_pb2.ListGuestFilesystemsRequest,
        context: grpc.aio.ServicerContext[object, object],
    ) -> launcher_pb2.ListGuestFilesystemsResponse:
        found = self.told(request).filesystems
        return launcher_pb2.ListGuestFilesystemsResponse(filesystems=found)

    async def FreezeGuest(
        self,
        request: launcher_pb2.FreezeGuestRequest,
        context: grpc.aio.ServicerContext[object, object],
    ) -> launcher_pb2.FreezeGuestResponse:
        self.told(request)
        return launcher_pb2.FreezeGuestResponse()

    async def ThawGuest(
        self,
        request: launcher_pb2.ThawGuestRequest,
        context: grpc.aio.ServicerContext[object, object],
    ) -> launcher_pb2.ThawGuestResponse:
        self.told(request)
        return launcher_pb2.ThawGuestResponse()

    def told(self, request: object) -> guest_pb2.GuestInfo:
        """What the agent tells, or that it does not."""
        self.asked.append(request)
        if self.agent_failure is not None:
            raise self.agent_failure
        return self.agent

    async def WatchDomain(
        self,
        request: launcher_pb2.WatchDomainRequest,
        context: grpc.aio.ServicerContext[object, object],
    ) -> AsyncIterator[launcher_pb2.WatchDomainResponse]:
        if self.failures > 0:
            self.failures -= 1
            await context.abort(grpc.StatusCode.INTERNAL, "failed once")
        sent = -1
        while True:
            async with self._changed:
                while self.current.sequence == sent and not self.floods:
                    await self._changed.wait()
                self.current.sequence += self.floods
                report = domain_pb2.DomainReport()
                report.CopyFrom(self.current)
            sent = report.sequence
            yield launcher_pb2.WatchDomainResponse(report=report)
            if self.ends:
                return


def sockets_directory(pods: Path, pod_uid: str = POD_UID) -> Path:
    """The directory of a pod's sockets, which exists afterwards."""
    directory = pods / pod_uid / SOCKETS_DIRECTORY
    directory.mkdir(parents=True, exist_ok=True)
    return directory


@contextlib.asynccontextmanager
async def serving(
    launcher: FakeLauncher, pods: Path, pod_uid: str = POD_UID
) -> AsyncIterator[None]:
    """Serves the launcher as the pod's: bound elsewhere (a socket address is short), then renamed."""
    service = RpcService(
        "podvisor.launcher.v1.LauncherService",
        launcher,
        launcher_pb2_grpc.add_LauncherServiceServicer_to_server,
    )
    with tempfile.TemporaryDirectory(prefix="pv") as short:
        path = sockets_directory(pods, pod_uid) / "launcher.sock"
        async with serve_unix(f"{short}/s", [service], publish_as=path, grace_s=0.0):
            yield


@contextlib.contextmanager
def control_group(*pod_uids: str) -> Iterator[None]:
    """Moves this process into the control group of a container of the innermost pod named."""
    root = next(
        path
        for path in (Path("/sys/fs/cgroup/freezer"), Path("/sys/fs/cgroup"))
        if (path / "cgroup.procs").exists()
    )
    before = _own_group(root)
    top = root / f"podvisor-test-{os.getpid()}"
    group = top.joinpath(*(f"pod{uid}" for uid in pod_uids))
    group.mkdir(parents=True, exist_ok=True)
    (group / "cgroup.procs").write_text(str(os.getpid()))
    try:
        yield
    finally:
        (before / "cgroup.procs").write_text(str(os.getpid()))
        while group != root:
            _remove_group(group)
            group = group.parent


def _remove_group(group: Path) -> None:
    """The kernel refuses for as long as a thread that has ended is not reaped."""
    for _ in range(100):
        try:
            group.rmdir()
        except OSError:
            time.sleep(0.01)
        else:
            return
    raise TimeoutError(f"{group} stays busy")


def _own_group(root: Path) -> Path:
    controller = root.name if root.name != "cgroup" else ""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == controller:
            return root / path.lstrip("/")
    return root


async def until(registry: LauncherRegistry, condition: Callable[[], bool]) -> None:
    """Waits for a change of the registry that makes the condition true."""
    changed = asyncio.Event()

    def note(connection: LauncherConnection, gone: bool) -> None:
        changed.set()

    unsubscribe = registry.subscribe(note)
    try:
        async with asyncio.timeout(WITHIN_S):
            while not condition():
                await changed.wait()
                changed.clear()
    finally:
        unsubscribe()
