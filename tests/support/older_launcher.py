"""What a launcher of an older release answers to all that it does not know; a base for those that tests make up."""

from collections.abc import AsyncIterator
from typing import TypeAlias

import grpc
from podvisor.launcher.v1 import launcher_pb2 as pb
from podvisor.launcher.v1 import launcher_pb2_grpc
from podvisor_common.rpc.errors import Unimplemented

Context: TypeAlias = "grpc.aio.ServicerContext[object, object]"


class OlderLauncher(launcher_pb2_grpc.LauncherServiceServicer):
    """Knows none of the verbs that came after the first release."""

    async def PauseDomain(
        self, request: pb.PauseDomainRequest, context: Context
    ) -> pb.PauseDomainResponse:
        raise _unknown()

    async def ResumeDomain(
        self, request: pb.ResumeDomainRequest, context: Context
    ) -> pb.ResumeDomainResponse:
        raise _unknown()

    async def ResetDomain(
        self, request: pb.ResetDomainRequest, context: Context
    ) -> pb.ResetDomainResponse:
        raise _unknown()

    async def RebootDomain(
        self, request: pb.RebootDomainRequest, context: Context
    ) -> pb.RebootDomainResponse:
        raise _unknown()

    async def TakeScreenshot(
        self, request: pb.TakeScreenshotRequest, context: Context
    ) -> AsyncIterator[pb.TakeScreenshotResponse]:
        raise _unknown()
        yield  # what makes it a stream


def _unknown() -> Unimplemented:
    return Unimplemented("Method not found!")
