"""podvisor.launcher.v1.LauncherService over the machine. Translates and nothing else: no state, no decision."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TypeAlias

import grpc
import structlog
from podvisor.launcher.v1 import launcher_pb2 as pb
from podvisor.launcher.v1 import launcher_pb2_grpc
from podvisor_common.rpc.errors import Aborted, InvalidArgument
from podvisor_common.rpc.server import RpcService

from podvisor_launcher import __version__
from podvisor_launcher.domain.build import UnbuildableSpec
from podvisor_launcher.lifecycle.machine import Machine
from podvisor_launcher.lifecycle.reports import Reports, StreamReplaced
from podvisor_launcher.rpc import guest_agent
from podvisor_launcher.rpc.guest_agent import GuestAgentCalls

_log = structlog.stdlib.get_logger(__name__)

CONTRACT_VERSION = 3  # 2: DHCPv6; 3: fields 19 and up of DomainSpec
SERVICE_NAME = "podvisor.launcher.v1.LauncherService"
# What a handler may ask for beyond the contract's version.
FEATURES = (guest_agent.FEATURE,)

_Context: TypeAlias = "grpc.aio.ServicerContext[object, object]"


class LauncherServicer(launcher_pb2_grpc.LauncherServiceServicer):
    """The methods are documented in launcher.proto."""

    def __init__(self, machine: Machine, reports: Reports, guest: GuestAgentCalls) -> None:
        self._machine = machine
        self._reports = reports
        self._guest = guest

    async def GetInfo(self, request: pb.GetInfoRequest, context: _Context) -> pb.GetInfoResponse:
        _log.debug("handshake", client_version=request.client_version)
        return pb.GetInfoResponse(
            version=__version__,
            contract_version=CONTRACT_VERSION,
            libvirt_version=self._machine.libvirt.version,
            epoch=self._reports.epoch,
            features=FEATURES,
        )

    async def ApplyDomain(
        self, request: pb.ApplyDomainRequest, context: _Context
    ) -> pb.ApplyDomainResponse:
        try:
            applied = await self._machine.apply(request.spec)
        except UnbuildableSpec as error:
            raise InvalidArgument(str(error), reason=error.reason) from error
        return pb.ApplyDomainResponse(
            accepted_generation=applied.generation, restart_required=applied.restart_required
        )

    async def WatchDomain(
        self, request: pb.WatchDomainRequest, context: _Context
    ) -> AsyncIterator[pb.WatchDomainResponse]:
        try:
            async for report in self._reports.watch():
                yield pb.WatchDomainResponse(report=report)
        except StreamReplaced as error:
            raise Aborted(
                "a newer stream has replaced this one", reason="StreamReplaced"
            ) from error

    async def ShutdownDomain(
        self, request: pb.ShutdownDomainRequest, context: _Context
    ) -> pb.ShutdownDomainResponse:
        await self._machine.shutdown(request.grace_period_s)
        return pb.ShutdownDomainResponse()

    async def DestroyDomain(
        self, request: pb.DestroyDomainRequest, context: _Context
    ) -> pb.DestroyDomainResponse:
        await self._machine.destroy()
        return pb.DestroyDomainResponse()

    async def PauseDomain(
        self, request: pb.PauseDomainRequest, context: _Context
    ) -> pb.PauseDomainResponse:
        await self._machine.power.pause()
        return pb.PauseDomainResponse()

    async def ResumeDomain(
        self, request: pb.ResumeDomainRequest, context: _Context
    ) -> pb.ResumeDomainResponse:
        await self._machine.power.resume()
        return pb.ResumeDomainResponse()

    async def ResetDomain(
        self, request: pb.ResetDomainRequest, context: _Context
    ) -> pb.ResetDomainResponse:
        await self._machine.power.reset()
        return pb.ResetDomainResponse()

    async def RebootDomain(
        self, request: pb.RebootDomainRequest, context: _Context
    ) -> pb.RebootDomainResponse:
        await self._machine.power.reboot()
        return pb.RebootDomainResponse()

    async def TakeScreenshot(
        self, request: pb.TakeScreenshotRequest, context: _Context
    ) -> AsyncIterator[pb.TakeScreenshotResponse]:
        async with aclosing(self._machine.power.screenshot()) as pieces:
            async for piece in pieces:
                yield pb.TakeScreenshotResponse(png=piece)

    async def GetDomainXml(
        self, request: pb.GetDomainXmlRequest, context: _Context
    ) -> pb.GetDomainXmlResponse:
        return pb.GetDomainXmlResponse(xml=await self._machine.domain_xml())

    async def GetGuestInfo(
        self, request: pb.GetGuestInfoRequest, context: _Context
    ) -> pb.GetGuestInfoResponse:
        return await self._guest.info()

    async def ListGuestUsers(
        self, request: pb.ListGuestUsersRequest, context: _Context
    ) -> pb.ListGuestUsersResponse:
        return await self._guest.users()

    async def ListGuestFilesystems(
        self, request: pb.ListGuestFilesystemsRequest, context: _Context
    ) -> pb.ListGuestFilesystemsResponse:
        return await self._guest.filesystems()

    async def FreezeGuest(
        self, request: pb.FreezeGuestRequest, context: _Context
    ) -> pb.FreezeGuestResponse:
        return await self._guest.freeze(request)

    async def ThawGuest(
        self, request: pb.ThawGuestRequest, context: _Context
    ) -> pb.ThawGuestResponse:
        return await self._guest.thaw()


def launcher_service(machine: Machine, reports: Reports, guest: GuestAgentCalls) -> RpcService:
    """The service, ready to be served."""
    return RpcService(
        name=SERVICE_NAME,
        servicer=LauncherServicer(machine, reports, guest),
        add_to_server=launcher_pb2_grpc.add_LauncherServiceServicer_to_server,
    )
