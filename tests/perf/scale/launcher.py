"""A launcher without a guest: answers over gRPC as a real one does and reports what the handler asks for at once."""

import asyncio
import random
import time
from collections.abc import AsyncIterator

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from podvisor.domain.v1 import domain_pb2
from podvisor.launcher.v1 import launcher_pb2, launcher_pb2_grpc
from podvisor_common.rpc.server import RpcService

from tests.support.older_launcher import OlderLauncher

Context = grpc.aio.ServicerContext[object, object]


class FakeLauncher(OlderLauncher):
    """One machine that starts and ends without taking time."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self._report = domain_pb2.DomainReport(
            epoch=random.getrandbits(63), sequence=1, state=domain_pb2.DOMAIN_STATE_NONE
        )
        self._changed = asyncio.Condition()

    @property
    def service(self) -> RpcService:
        """What serve_unix() serves."""
        return RpcService(
            "podvisor.launcher.v1.LauncherService",
            self,
            launcher_pb2_grpc.add_LauncherServiceServicer_to_server,
        )

    async def end(self) -> None:
        """The guest has shut itself down."""
        await self._change(
            state=domain_pb2.DOMAIN_STATE_ENDED, reason=domain_pb2.DOMAIN_REASON_SHUTDOWN
        )
        self.ended.set()

    async def GetInfo(
        self, request: launcher_pb2.GetInfoRequest, context: Context
    ) -> launcher_pb2.GetInfoResponse:
        return launcher_pb2.GetInfoResponse(contract_version=1, epoch=self._report.epoch)

    async def ApplyDomain(
        self, request: launcher_pb2.ApplyDomainRequest, context: Context
    ) -> launcher_pb2.ApplyDomainResponse:
        at = Timestamp()
        at.FromNanoseconds(time.time_ns())
        steps = [
            domain_pb2.TimelineStep(name=name, at=at) for name in ("DisksReady", "DomainStarted")
        ]
        await self._change(
            state=domain_pb2.DOMAIN_STATE_RUNNING,
            uid=request.spec.uid,
            applied_generation=request.spec.generation,
            machine_type="pc-q35-10.0",
            timeline=steps,
        )
        return launcher_pb2.ApplyDomainResponse(accepted_generation=request.spec.generation)

    async def ShutdownDomain(
        self, request: launcher_pb2.ShutdownDomainRequest, context: Context
    ) -> launcher_pb2.ShutdownDomainResponse:
        await self.end()
        return launcher_pb2.ShutdownDomainResponse()

    async def DestroyDomain(
        self, request: launcher_pb2.DestroyDomainRequest, context: Context
    ) -> launcher_pb2.DestroyDomainResponse:
        await self.end()
        return launcher_pb2.DestroyDomainResponse()

    async def GetDomainXml(
        self, request: launcher_pb2.GetDomainXmlRequest, context: Context
    ) -> launcher_pb2.GetDomainXmlResponse:
        return launcher_pb2.GetDomainXmlResponse(xml="<domain/>")

    async def GetGuestInfo(
        self, request: launcher_pb2.GetGuestInfoRequest, context: Context
    ) -> launcher_pb2.GetGuestInfoResponse:
        return launcher_pb2.GetGuestInfoResponse()

    async def ListGuestUsers(
        self, request: launcher_pb2.ListGuestUsersRequest, context: Context
    ) -> launcher_pb2.ListGuestUsersResponse:
        return launcher_pb2.ListGuestUsersResponse()

    async def ListGuestFilesystems(
        self, request: launcher_pb2.ListGuestFilesystemsRequest, context: Context
    ) -> launcher_pb2.ListGuestFilesystemsResponse:
        return launcher_pb2.ListGuestFilesystemsResponse()

    async def FreezeGuest(
        self, request: launcher_pb2.FreezeGuestRequest, context: Context
    ) -> launcher_pb2.FreezeGuestResponse:
        return launcher_pb2.FreezeGuestResponse()

    async def ThawGuest(
        self, request: launcher_pb2.ThawGuestRequest, context: Context
    ) -> launcher_pb2.ThawGuestResponse:
        return launcher_pb2.ThawGuestResponse()

    async def WatchDomain(
        self, request: launcher_pb2.WatchDomainRequest, context: Context
    ) -> AsyncIterator[launcher_pb2.WatchDomainResponse]:
        sent = -1
        while True:
            async with self._changed:
                while self._report.sequence == sent:
                    await self._changed.wait()
                report = domain_pb2.DomainReport()
                report.CopyFrom(self._report)
            sent = report.sequence
            yield launcher_pb2.WatchDomainResponse(report=report)

    async def _change(self, **fields: object) -> None:
        async with self._changed:
            self._report.sequence += 1
            self._report.MergeFrom(domain_pb2.DomainReport(**fields))  # type: ignore[arg-type]
            self._changed.notify_all()
