"""The part of HandlerService that asks the agent in a guest, by way of its launcher.

Invariant: nobody vouches for what launchers answer: it is bounded and made printable before it is passed on, errors included. Nothing
is asked of a launcher whose release cannot answer.
"""

from typing import TypeAlias, TypeVar

import grpc
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from podvisor.handler.v1 import handler_pb2, handler_pb2_grpc
from podvisor.launcher.v1 import launcher_pb2, launcher_pb2_grpc
from podvisor_common.rpc.client import call
from podvisor_common.rpc.errors import Unimplemented
from podvisor_common.told import told_text

from podvisor_handler.launchers.state import GUEST_AGENT_FEATURE
from podvisor_handler.rpc.machines import TEXT_LIMIT, Machines, passed_on

# Longer than a launcher takes by its contract, whose own words for it tell more.
_QUESTION_TIMEOUT_S = 45.0
_FREEZE_TIMEOUT_S = 80.0
_LIST_LIMIT = 256

_Request = TypeVar("_Request", bound=Message)
_Reply = TypeVar("_Reply", bound=Message)
_Context: TypeAlias = "grpc.aio.ServicerContext[object, object]"
_Stub: TypeAlias = "launcher_pb2_grpc.LauncherServiceAsyncStub"


class GuestAgentServicer(handler_pb2_grpc.HandlerServiceServicer):
    """The methods are documented in handler.proto."""

    def __init__(self, machines: Machines) -> None:
        self._machines = machines

    async def GetGuestInfo(
        self, request: handler_pb2.GetGuestInfoRequest, context: _Context
    ) -> handler_pb2.GetGuestInfoResponse:
        stub = self._stub(request.reference)
        asked = launcher_pb2.GetGuestInfoRequest()
        told = await _told(stub.GetGuestInfo, asked, _QUESTION_TIMEOUT_S)
        return handler_pb2.GetGuestInfoResponse(info=told.info)

    async def ListGuestUsers(
        self, request: handler_pb2.ListGuestUsersRequest, context: _Context
    ) -> handler_pb2.ListGuestUsersResponse:
        stub = self._stub(request.reference)
        asked = launcher_pb2.ListGuestUsersRequest()
        told = await _told(stub.ListGuestUsers, asked, _QUESTION_TIMEOUT_S)
        return handler_pb2.ListGuestUsersResponse(users=told.users)

    async def ListGuestFilesystems(
        self, request: handler_pb2.ListGuestFilesystemsRequest, context: _Context
    ) -> handler_pb2.ListGuestFilesystemsResponse:
        stub = self._stub(request.reference)
        asked = launcher_pb2.ListGuestFilesystemsRequest()
        told = await _told(stub.ListGuestFilesystems, asked, _QUESTION_TIMEOUT_S)
        return handler_pb2.ListGuestFilesystemsResponse(filesystems=told.filesystems)

    async def FreezeGuest(
        self, request: handler_pb2.FreezeGuestRequest, context: _Context
    ) -> handler_pb2.FreezeGuestResponse:
        stub = self._stub(request.reference)
        asked = launcher_pb2.FreezeGuestRequest(thaw_after_s=request.thaw_after_s)
        await _told(stub.FreezeGuest, asked, _FREEZE_TIMEOUT_S)
        return handler_pb2.FreezeGuestResponse()

    async def ThawGuest(
        self, request: handler_pb2.ThawGuestRequest, context: _Context
    ) -> handler_pb2.ThawGuestResponse:
        stub = self._stub(request.reference)
        await _told(stub.ThawGuest, launcher_pb2.ThawGuestRequest(), _FREEZE_TIMEOUT_S)
        return handler_pb2.ThawGuestResponse()

    def _stub(self, reference: handler_pb2.MachineReference) -> _Stub:
        connection = self._machines.find(reference)
        stub = connection.stub
        if GUEST_AGENT_FEATURE not in connection.build.features:
            version = connection.build.version or "unknown"
            raise Unimplemented(
                f"The launcher of the machine, version {version}, cannot ask the guest's agent. A machine that is started"
                " again has one that can.",
                reason="LauncherTooOld",
            )
        return stub


async def _told(
    method: "grpc.aio.UnaryUnaryMultiCallable[_Request, _Reply]",
    request: _Request,
    timeout_s: float,
) -> _Reply:
    """The answer of a launcher, fit to be passed on. Raises RpcError."""
    with passed_on():
        reply = await call(method, request, timeout_s=timeout_s)
    bound(reply)
    return reply


def bound(message: Message) -> None:
    """Cut whatever the message holds to what is fit to be passed on: texts to 1024 characters, lists to 256 elements."""
    for field, value in message.ListFields():
        if field.is_repeated:
            del value[_LIST_LIMIT:]
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for each in value if field.is_repeated else (value,):
                bound(each)
        elif field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated:
            setattr(message, field.name, told_text(value, TEXT_LIMIT))
