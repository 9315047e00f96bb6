"""The verbs of HandlerService: they go to the machine's launcher, and what that answers is answered."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TypeAlias

import grpc
from podvisor.domain.v1 import domain_pb2
from podvisor.handler.v1 import handler_pb2 as pb
from podvisor.handler.v1 import handler_pb2_grpc
from podvisor.launcher.v1 import launcher_pb2 as launcher
from podvisor_common.rpc.client import call, stream
from podvisor_common.rpc.errors import ResourceExhausted, Unimplemented

from podvisor_handler.launchers.connection import CALL_TIMEOUT_S
from podvisor_handler.rpc.machines import Machines, passed_on, too_old

# Of a screen as large as a card with 16 MiB can show, that no compression makes smaller.
_PICTURE_LIMIT_BYTES = 32 * 1024 * 1024
_PICTURE_TIMEOUT_S = 20.0

_Context: TypeAlias = "grpc.aio.ServicerContext[object, object]"


class PowerServicer(handler_pb2_grpc.HandlerServiceServicer):
    """The methods are documented in handler.proto."""

    def __init__(self, machines: Machines) -> None:
        self._machines = machines

    async def PauseDomain(
        self, request: pb.PauseDomainRequest, context: _Context
    ) -> pb.PauseDomainResponse:
        asked = launcher.PauseDomainRequest()
        await self._machines.ask(
            request.reference,
            lambda stub: call(stub.PauseDomain, asked, timeout_s=CALL_TIMEOUT_S),
        )
        machine = self._machines.find(request.reference)
        await self._machines.until(machine, domain_pb2.DOMAIN_STATE_PAUSED)
        return pb.PauseDomainResponse()

    async def ResumeDomain(
        self, request: pb.ResumeDomainRequest, context: _Context
    ) -> pb.ResumeDomainResponse:
        asked = launcher.ResumeDomainRequest()
        await self._machines.ask(
            request.reference,
            lambda stub: call(stub.ResumeDomain, asked, timeout_s=CALL_TIMEOUT_S),
        )
        machine = self._machines.find(request.reference)
        await self._machines.until(machine, domain_pb2.DOMAIN_STATE_RUNNING)
        return pb.ResumeDomainResponse()

    async def ResetDomain(
        self, request: pb.ResetDomainRequest, context: _Context
    ) -> pb.ResetDomainResponse:
        asked = launcher.ResetDomainRequest()
        await self._machines.ask(
            request.reference,
            lambda stub: call(stub.ResetDomain, asked, timeout_s=CALL_TIMEOUT_S),
        )
        return pb.ResetDomainResponse()

    async def RebootDomain(
        self, request: pb.RebootDomainRequest, context: _Context
    ) -> pb.RebootDomainResponse:
        asked = launcher.RebootDomainRequest()
        await self._machines.ask(
            request.reference,
            lambda stub: call(stub.RebootDomain, asked, timeout_s=CALL_TIMEOUT_S),
        )
        return pb.RebootDomainResponse()

    async def TakeScreenshot(
        self, request: pb.TakeScreenshotRequest, context: _Context
    ) -> AsyncIterator[pb.TakeScreenshotResponse]:
        pieces = stream(
            self._machines.find(request.reference).stub.TakeScreenshot,
            launcher.TakeScreenshotRequest(),
            first_reply_timeout_s=CALL_TIMEOUT_S,
            timeout_s=_PICTURE_TIMEOUT_S,
        )
        size_bytes = 0
        try:
            with passed_on():
                async with aclosing(pieces):
                    async for piece in pieces:
                        size_bytes += len(piece.png)
                        if size_bytes > _PICTURE_LIMIT_BYTES:
                            raise ResourceExhausted("the picture is too large")
                        yield pb.TakeScreenshotResponse(png=piece.png)
        except Unimplemented as error:
            raise too_old() from error
