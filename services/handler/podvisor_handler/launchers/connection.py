"""The handler's connection to the launcher of one pod.

Invariant: a report is believed only if it comes on the present stream, from a process in the pod,
about the VirtualMachineInstance that the pod belongs to. Losing the connection changes what is
known of the launcher, never what is known of the guest: that is over when the container of the
launcher, which nobody starts again, has no process left.
"""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import structlog
from podvisor.domain.v1 import domain_pb2
from podvisor.launcher.v1 import launcher_pb2, launcher_pb2_grpc
from podvisor_common.aio.backoff import Backoff
from podvisor_common.aio.threads import in_own_thread
from podvisor_common.errors import Retryable, Terminal
from podvisor_common.rpc.client import call, stream, unix_channel
from podvisor_common.rpc.errors import Internal, RpcError, Unimplemented, UnknownFailure

from podvisor_handler import __version__
from podvisor_handler.launchers.endpoint import (
    Endpoint,
    LauncherUnreachable,
    untrusted_inode,
    untrusted_open_endpoint,
)
from podvisor_handler.launchers.pace import Pace
from podvisor_handler.launchers.remains import has_process_within
from podvisor_handler.launchers.state import (
    CONTRACT_VERSION,
    DHCPV6_SINCE,
    HARDWARE_SINCE,
    Connection,
    LauncherPod,
)
from podvisor_handler.launchers.watch import SocketWatch
from podvisor_handler.linux.process import PinnedProcess
from podvisor_handler.linux.untrusted import UntrustedPathMissing

_HANDSHAKE_TIMEOUT_S = 5.0
CALL_TIMEOUT_S = 10.0
_FIRST_REPORT_TIMEOUT_S = 10.0
# A report has about 1 KiB. Each is whole, so one that is not fetched in time is no loss.
_REPORT_LIMIT_BYTES = 64 * 1024
_BURST = 20
_REPORTS_PER_S = 10.0
_LOOKS_PER_S = 5.0
_LINES_PER_S = 1 / 60
# A launcher that ends because all of its container does is lost no longer than this before the last process there is gone.
_ENDS_WITH_ITS_CONTAINER_S = 2.0
_VERSION = re.compile(r"[A-Za-z0-9.+~-]{1,64}")
_NAME = re.compile(r"[a-z0-9-]{1,64}")
_FEATURES_LIMIT = 64

_T = TypeVar("_T")
_log = structlog.get_logger(__name__)


class LauncherIncompatible(Terminal):
    """The launcher speaks no version of the contract that this handler knows."""

    reason = "LauncherIncompatible"


class LauncherFailed(Retryable):
    """The launcher broke down over what it was asked, which is no refusal: asked again, it may not."""

    reason = "LauncherFailed"


class ReportRefused(Terminal):
    """The launcher reports what no launcher of this pod has to report."""

    reason = "ReportRefused"


@dataclass(frozen=True, slots=True)
class _Session:
    stub: "launcher_pb2_grpc.LauncherServiceAsyncStub"
    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class LauncherBuild:
    """Which build of the launcher a pod has, by the handshake."""

    version: str = ""
    contract_version: int = 0  # the older of the launcher's and the handler's
    features: frozenset[str] = frozenset()  # what it can beyond the contract's version

    @property
    def has_dhcpv6(self) -> bool:
        """It gives its guest addresses of IPv6 as well."""
        return self.contract_version >= DHCPV6_SINCE

    @property
    def has_hardware(self) -> bool:
        """It builds all of the hardware that a specification may ask for."""
        return self.contract_version >= HARDWARE_SINCE


class LauncherConnection:
    """Keeps a stream of reports open for as long as run() runs."""

    def __init__(
        self,
        pod: LauncherPod,
        pods_directory: str,
        watch: SocketWatch,
        changed: Callable[["LauncherConnection"], None],
    ) -> None:
        self.pod = pod
        self.state = Connection.WAITING
        self.report: domain_pb2.DomainReport | None = None
        # When the handler began to wait for it, monotonic; None while it answers.
        self.silent_since_s: float | None = time.monotonic()
        # Why it is not spoken to, when it is there and trying again cannot help.
        self.refusal: Terminal | None = None
        self.ready_at_s: float | None = None  # wall clock of the first handshake
        self.build = LauncherBuild()  # as of the last handshake
        self.is_over = False  # the container in which the launcher was has no process any more
        self._container: str | None = None
        self._pods_directory = pods_directory
        self._watch = watch
        self._changed = changed
        self._session: _Session | None = None
        self._complaint = ""
        # What a pod's processes do in its tree and on its stream costs the handler a bounded effort.
        self._looks = Pace(_BURST, _LOOKS_PER_S)
        self._reports = Pace(_BURST, _REPORTS_PER_S)
        self._lines = Pace(_BURST, _LINES_PER_S)

    @property
    def process(self) -> PinnedProcess:
        """The launcher's process. Raises LauncherUnreachable while there is no connection."""
        return self._connected().endpoint.process

    @property
    def stub(self) -> "launcher_pb2_grpc.LauncherServiceAsyncStub":
        """The launcher's service. Raises LauncherUnreachable while there is no connection."""
        return self._connected().stub

    async def apply(self, spec: domain_pb2.DomainSpec) -> None:
        """Pushes the desired machine. Raises RpcError, LauncherFailed or LauncherUnreachable."""
        request = launcher_pb2.ApplyDomainRequest(spec=spec)
        await self.ask(lambda stub: call(stub.ApplyDomain, request, timeout_s=CALL_TIMEOUT_S))

    async def shutdown(self, grace_period_s: int) -> None:
        """Asks for the guest's end. Raises RpcError, LauncherFailed or LauncherUnreachable."""
        request = launcher_pb2.ShutdownDomainRequest(grace_period_s=grace_period_s)
        await self.ask(lambda stub: call(stub.ShutdownDomain, request, timeout_s=CALL_TIMEOUT_S))

    async def ask(
        self, question: Callable[["launcher_pb2_grpc.LauncherServiceAsyncStub"], Awaitable[_T]]
    ) -> _T:
        """What the launcher answers. Raises what the question does, LauncherFailed or LauncherUnreachable."""
        with _breakdowns():
            return await question(self.stub)

    def poke(self) -> None:
        """The pod has changed: worth looking for its socket again."""
        self._watch.poke()

    async def run(self) -> None:
        """Connects, follows the reports, connects again; until it is cancelled or nobody is left to connect to."""
        backoff = Backoff(initial_s=0.05, max_s=5.0)
        try:
            while not self.is_over:
                await self._attempt(backoff)
                await self._look_for_end()
        finally:
            self._watch.close()

    async def _look_for_end(self) -> None:
        """A launcher that is lost comes back, unless its container has ended: no other one takes that one's place.

        Looked for while the loss is fresh: of an end that comes long after it, the kubelet will tell with its exit code. One
        that was reported is known.
        """
        if self.state is not Connection.UNRESPONSIVE or self._container is None:
            return
        if self._has_reported_its_end or self._silent_for_s() > _ENDS_WITH_ITS_CONTAINER_S:
            return
        look = partial(has_process_within, self._container)
        try:
            self.is_over = not await in_own_thread(look, name=f"end-{self.pod.uid}")
        except (OSError, RuntimeError) as error:
            # No descriptor or no thread to be had says nothing about the guest, and must not end the connections to the others.
            self._complain(error)
        if self.is_over:
            _log.info("the launcher's container has ended", **self._context())
            self._changed(self)

    async def _attempt(self, backoff: Backoff) -> None:
        try:
            await self._looks.turn()
            self._watch.arm()
            async with self._open_session() as session:
                backoff.reset()
                await self._follow(session)
        except UntrustedPathMissing:
            await self._watch.wait()
        except (Retryable, RpcError) as error:
            # Whatever a launcher answers with, the next attempt may meet another launcher.
            self._complain(error)
            await self._pause(backoff)
        except Terminal as error:
            self._complain(error)
            self.refusal = error
            self._changed(self)
            await self._watch.wait()
        except Exception:
            # One launcher, which nobody vouches for, must not end the connections to the others.
            _log.exception("launcher connection failed", **self._context())
            await self._pause(backoff)

    @asynccontextmanager
    async def _open_session(self) -> AsyncIterator[_Session]:
        with untrusted_open_endpoint(self._pods_directory, self.pod.uid) as endpoint:
            async with unix_channel(endpoint.path) as channel:
                stub: launcher_pb2_grpc.LauncherServiceAsyncStub
                stub = launcher_pb2_grpc.LauncherServiceStub(channel)
                self.build = await _shake_hands(stub)
                self.ready_at_s = self.ready_at_s or time.time()
                self._session = _Session(stub, endpoint)
                self._container = endpoint.container
                try:
                    yield self._session
                finally:
                    self._session = None
                    self._lose()

    async def _follow(self, session: _Session) -> None:
        reader = asyncio.create_task(self._read(session), name=f"reports-{self.pod.uid}")
        replaced = asyncio.create_task(self._replaced(session), name=f"socket-{self.pod.uid}")
        try:
            await asyncio.wait({reader, replaced}, return_when=asyncio.FIRST_COMPLETED)
            for task in (reader, replaced):
                if task.done():
                    task.result()
        finally:
            reader.cancel()
            replaced.cancel()
            await asyncio.gather(reader, replaced, return_exceptions=True)

    async def _read(self, session: _Session) -> None:
        replies = stream(
            session.stub.WatchDomain,
            launcher_pb2.WatchDomainRequest(),
            first_reply_timeout_s=_FIRST_REPORT_TIMEOUT_S,
        )
        last = (0, -1)
        async with aclosing(replies):
            async for reply in replies:
                report = reply.report
                if reply.ByteSize() > _REPORT_LIMIT_BYTES:
                    raise ReportRefused(f"a report has more than {_REPORT_LIMIT_BYTES} bytes")
                if report.uid not in ("", self.pod.vmi_uid):
                    raise ReportRefused(f"the launcher reports the machine {report.uid!r}")
                if report.epoch == last[0] and report.sequence <= last[1]:
                    continue
                last = (report.epoch, report.sequence)
                self._take(report)
                await self._reports.turn()
        raise LauncherUnreachable("the launcher ended the stream of reports")

    async def _replaced(self, session: _Session) -> None:
        """Returns when the pod shows another socket than the session's."""
        while True:
            await self._watch.wait()
            await self._looks.turn()
            self._watch.arm()
            with contextlib.suppress(UntrustedPathMissing):
                if untrusted_inode(self._pods_directory, self.pod.uid) != session.endpoint.inode:
                    return

    def _take(self, report: domain_pb2.DomainReport) -> None:
        first = self.state is not Connection.CONNECTED
        self.state = Connection.CONNECTED
        self.silent_since_s = None
        self.refusal = None
        self.report = report
        self._complaint = ""
        if first and self._lines.take_turn():
            build = {
                "launcher_version": self.build.version,
                "contract": self.build.contract_version,
            }
            _log.info("launcher connected", **build, **self._context())
        self._changed(self)

    @property
    def _has_reported_its_end(self) -> bool:
        return self.report is not None and self.report.state == domain_pb2.DOMAIN_STATE_ENDED

    def _silent_for_s(self) -> float:
        return time.monotonic() - self.silent_since_s if self.silent_since_s is not None else 0.0

    def _lose(self) -> None:
        if self.state is Connection.CONNECTED:
            self.state = Connection.UNRESPONSIVE
            self.silent_since_s = time.monotonic()
            self._changed(self)

    def _connected(self) -> _Session:
        if self._session is None:
            raise LauncherUnreachable("the launcher does not answer")
        return self._session

    async def _pause(self, backoff: Backoff) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(backoff.next_s()):
                await self._watch.wait()

    def _complain(self, error: Exception) -> None:
        """Logs a failure once, not with every attempt."""
        complaint = f"{type(error).__name__}: {error}"
        if complaint == self._complaint or not self._lines.take_turn():
            return
        self._complaint = complaint
        log = _log.debug if self._has_reported_its_end else _log.warning
        log("launcher not connected", error=complaint, **self._context())

    def _context(self) -> dict[str, str]:
        return {
            "namespace": self.pod.namespace,
            "vmi": self.pod.vmi_name,
            "pod": self.pod.name,
        }


async def _shake_hands(stub: "launcher_pb2_grpc.LauncherServiceAsyncStub") -> LauncherBuild:
    """Agrees with the launcher on the older of two versions. Raises LauncherIncompatible or RpcError."""
    request = launcher_pb2.GetInfoRequest(client_version=__version__)
    try:
        info = await call(stub.GetInfo, request, timeout_s=_HANDSHAKE_TIMEOUT_S)
    except Unimplemented as error:
        raise LauncherIncompatible(
            "the launcher does not speak podvisor.launcher.v1, which this virt-handler needs"
        ) from error
    if info.contract_version < 1:
        raise LauncherIncompatible("the launcher does not say which contract it speaks")
    version = info.version if _VERSION.fullmatch(info.version) else ""
    features = frozenset(each for each in info.features[:_FEATURES_LIMIT] if _NAME.fullmatch(each))
    return LauncherBuild(version, min(info.contract_version, CONTRACT_VERSION), features)


@contextlib.contextmanager
def _breakdowns() -> Iterator[None]:
    try:
        yield
    except (Internal, UnknownFailure) as error:
        raise LauncherFailed(f"the launcher failed: {error.message}") from error
