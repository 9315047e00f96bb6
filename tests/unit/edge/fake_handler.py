"""A handler as the controller meets it: HandlerService on a real socket, whose guests are the test's to make up."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import TypeAlias

import grpc
from podvisor.domain.v1 import domain_pb2, guest_pb2
from podvisor.handler.v1 import handler_pb2 as pb
from podvisor.handler.v1 import handler_pb2_grpc
from podvisor_common.errors import Retryable, Terminal
from podvisor_common.rpc.client import unix_channel
from podvisor_common.rpc.errors import Aborted, FailedPrecondition, NotFound
from podvisor_common.rpc.server import RpcService, serve_unix

Context: TypeAlias = "grpc.aio.ServicerContext[object, object]"
Stub: TypeAlias = "handler_pb2_grpc.HandlerServiceAsyncStub"


class FakeHandler(handler_pb2_grpc.HandlerServiceServicer):
    """The handler of node n1, with one guest. What is typed on its console, drawn on its screen or sent to its ports comes back."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.references: list[pb.MachineReference] = []
        self.state = domain_pb2.DOMAIN_STATE_RUNNING
        self.refusal: Exception | None = None  # of everything that is asked
        self.unreachable: Retryable | Terminal | None = None
        self.picture: Iterable[bytes | Exception] = (b"\x89PNG", b"picture")
        self.agent = guest_pb2.GuestInfo()
        self.received = 0  # bytes, of all streams
        self.ended = asyncio.Event()  # the client of a stream has said its last
        self.flood = False  # streams give without an end
        self.given = 0  # bytes, of the floods
        self.displaced = asyncio.Event()  # streams end for somebody else's

    def _note(self, verb: str, reference: pb.MachineReference) -> None:
        self.asked.append(verb)
        self.references.append(reference)
        if self.refusal is not None:
            raise self.refusal
        if reference.uid == "":
            raise NotFound("the reference names no instance", reason="DomainNotFound")

    async def GetNodeInfo(
        self, request: pb.GetNodeInfoRequest, context: Context
    ) -> pb.GetNodeInfoResponse:
        return pb.GetNodeInfoResponse(node_name="n1")

    async def ListDomains(
        self, request: pb.ListDomainsRequest, context: Context
    ) -> pb.ListDomainsResponse:
        return pb.ListDomainsResponse()

    async def GetDomain(
        self, request: pb.GetDomainRequest, context: Context
    ) -> pb.GetDomainResponse:
        self._note("GetDomain", request.reference)
        report = domain_pb2.DomainReport(state=self.state)
        return pb.GetDomainResponse(machine=pb.Machine(report=report))

    async def WatchDomains(
        self, request: pb.WatchDomainsRequest, context: Context
    ) -> AsyncIterator[pb.WatchDomainsResponse]:
        raise AssertionError("the controller has no reason to call this")
        yield  # what makes it a stream

    async def PauseDomain(
        self, request: pb.PauseDomainRequest, context: Context
    ) -> pb.PauseDomainResponse:
        self._note("PauseDomain", request.reference)
        return pb.PauseDomainResponse()

    async def ResumeDomain(
        self, request: pb.ResumeDomainRequest, context: Context
    ) -> pb.ResumeDomainResponse:
        self._note("ResumeDomain", request.reference)
        return pb.ResumeDomainResponse()

    async def ResetDomain(
        self, request: pb.ResetDomainRequest, context: Context
    ) -> pb.ResetDomainResponse:
        self._note("ResetDomain", request.reference)
        return pb.ResetDomainResponse()

    async def RebootDomain(
        self, request: pb.RebootDomainRequest, context: Context
    ) -> pb.RebootDomainResponse:
        self._note("RebootDomain", request.reference)
        return pb.RebootDomainResponse()

    async def TakeScreenshot(
        self, request: pb.TakeScreenshotRequest, context: Context
    ) -> AsyncIterator[pb.TakeScreenshotResponse]:
        self._note("TakeScreenshot", request.reference)
        for piece in self.picture:
            if isinstance(piece, Exception):
                raise piece
            yield pb.TakeScreenshotResponse(png=piece)

    async def OpenConsole(
        self, request_iterator: AsyncIterator[pb.OpenConsoleRequest], context: Context
    ) -> AsyncIterator[pb.OpenConsoleResponse]:
        opening = (await anext(request_iterator)).opening
        self._note("OpenConsole", opening.reference)
        yield pb.OpenConsoleResponse()
        async for data in self._stream(request_iterator):
            yield pb.OpenConsoleResponse(data=data)

    async def OpenVnc(
        self, request_iterator: AsyncIterator[pb.OpenVncRequest], context: Context
    ) -> AsyncIterator[pb.OpenVncResponse]:
        opening = (await anext(request_iterator)).opening
        self._note("OpenVnc", opening.reference)
        if opening.preserve_session:
            raise FailedPrecondition("Somebody is connected.", reason="SessionInUse")
        yield pb.OpenVncResponse(data=b"")
        yield pb.OpenVncResponse(data=b"RFB 003.008\n")
        async for data in self._stream(request_iterator):
            yield pb.OpenVncResponse(data=data)

    async def ForwardPort(
        self, request_iterator: AsyncIterator[pb.ForwardPortRequest], context: Context
    ) -> AsyncIterator[pb.ForwardPortResponse]:
        opening = (await anext(request_iterator)).opening
        protocol = pb.PortProtocol.Name(opening.protocol)
        self._note(f"ForwardPort {opening.port} {protocol}", opening.reference)
        yield pb.ForwardPortResponse()
        async for data in self._stream(request_iterator):
            yield pb.ForwardPortResponse(data=data)

    async def GetGuestInfo(
        self, request: pb.GetGuestInfoRequest, context: Context
    ) -> pb.GetGuestInfoResponse:
        self._note("GetGuestInfo", request.reference)
        return pb.GetGuestInfoResponse(info=self.agent)

    async def ListGuestUsers(
        self, request: pb.ListGuestUsersRequest, context: Context
    ) -> pb.ListGuestUsersResponse:
        self._note("ListGuestUsers", request.reference)
        return pb.ListGuestUsersResponse(users=self.agent.users)

    async def ListGuestFilesystems(
        self, request: pb.ListGuestFilesystemsRequest, context: Context
    ) -> pb.ListGuestFilesystemsResponse:
        self._note("ListGuestFilesystems", request.reference)
        return pb.ListGuestFilesystemsResponse(filesystems=self.agent.filesystems)

    async def FreezeGuest(
        self, request: pb.FreezeGuestRequest, context: Context
    ) -> pb.FreezeGuestResponse:
        self._note(f"FreezeGuest {request.thaw_after_s}", request.reference)
        return pb.FreezeGuestResponse()

    async def ThawGuest(
        self, request: pb.ThawGuestRequest, context: Context
    ) -> pb.ThawGuestResponse:
        self._note("ThawGuest", request.reference)
        return pb.ThawGuestResponse()

    async def _stream(
        self,
        requests: "AsyncIterator[pb.OpenConsoleRequest] | AsyncIterator[pb.OpenVncRequest] | AsyncIterator[pb.ForwardPortRequest]",
    ) -> AsyncIterator[bytes]:
        while self.flood:
            self.given += 65536
            yield bytes(65536)
        async for request in requests:
            self.received += len(request.data)
            if request.data == b"displace":
                raise Aborted("Somebody else has connected.", reason="SessionDisplaced")
            if request.data == b"exit":
                return
            yield request.data
        self.ended.set()


class OneHandler:
    """Connections to the handler of node n1."""

    def __init__(self, handler: FakeHandler, stub: Stub) -> None:
        self._handler = handler
        self._stub = stub
        self.nodes: list[str] = []

    @asynccontextmanager
    async def on(self, node: str) -> AsyncIterator[Stub]:
        self.nodes.append(node)
        if self._handler.unreachable is not None:
            raise self._handler.unreachable
        yield self._stub


@asynccontextmanager
async def serving(handler: FakeHandler) -> AsyncIterator[OneHandler]:
    """Serves it for the body."""
    service = RpcService(
        "podvisor.handler.v1.HandlerService",
        handler,
        handler_pb2_grpc.add_HandlerServiceServicer_to_server,
    )
    with tempfile.TemporaryDirectory(prefix="pv") as short:
        async with (
            serve_unix(f"{short}/s", [service], grace_s=0.0),
            unix_channel(f"{short}/s") as channel,
        ):
            yield OneHandler(handler, handler_pb2_grpc.HandlerServiceStub(channel))
