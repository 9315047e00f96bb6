"""The contracts as another build of podvisor has them: message classes made from descriptors when they are needed.

Invariant: every contract has a descriptor pool of its own, so nothing of this build's generated classes takes part on the
other side of the wire.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import cached_property
from typing import Any, TypeAlias

import grpc
from google.protobuf import descriptor_pool, message_factory, timestamp_pb2
from google.protobuf.descriptor import FileDescriptor, MethodDescriptor
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)
from podvisor.domain.v1 import domain_pb2, guest_pb2
from podvisor.handler.v1 import handler_pb2
from podvisor.launcher.v1 import launcher_pb2
from podvisor_common.rpc.client import call, stream
from podvisor_common.rpc.server import RpcService

from tests.support.cluster import ROOT

BASELINE = ROOT / "proto/baseline.binpb"
LAUNCHER = "podvisor.launcher.v1.LauncherService"
# What a later release adds everywhere: a field to each message, a value to each enum, a method to each service.
LATER_FIELD = "of_a_later_release"
LATER_NUMBER = 1000
LATER_METHOD = "DoWhatALaterReleaseCan"

# Of messages that exist only at run time, no type checker knows the fields.
Message: TypeAlias = Any
Answer: TypeAlias = (
    Callable[[Message], Awaitable[Message]] | Callable[[Message], AsyncIterator[Message]]
)


class Contract:
    """All messages and services of one version of the contracts."""

    def __init__(self, files: FileDescriptorSet) -> None:
        self._pool = descriptor_pool.DescriptorPool()
        for file in files.file:
            self._pool.Add(file)

    @classmethod
    def older(cls) -> "Contract":
        """The committed baseline: what every launcher that still lives may be of."""
        return cls(FileDescriptorSet.FromString(BASELINE.read_bytes()))

    @classmethod
    def later(cls) -> "Contract":
        """A compatible successor of this build's contract, with additions wherever there can be one."""
        return cls(FileDescriptorSet(file=[_with_additions(file) for file in _present()]))

    @classmethod
    def renamed(cls, package: str) -> "Contract":
        """This build's launcher contract under another package, as a successor that is not compatible has to have."""
        files = _present()
        for file in files:
            if file.package == "podvisor.launcher.v1":
                file.package = package
                for method in file.service[0].method:
                    method.input_type = method.input_type.replace("podvisor.launcher.v1", package)
                    method.output_type = method.output_type.replace("podvisor.launcher.v1", package)
        return cls(FileDescriptorSet(file=files))

    def message(self, name: str, /, **fields: Any) -> Message:
        """A message by its full name."""
        descriptor = self._pool.FindMessageTypeByName(name)
        return message_factory.GetMessageClass(descriptor)(**fields)

    def launcher(self, method: str, /, **fields: Any) -> Message:
        """A message of the launcher's package."""
        return self.message(f"podvisor.launcher.v1.{method}", **fields)

    def domain(self, name: str, /, **fields: Any) -> Message:
        """A message of the domain's package."""
        return self.message(f"podvisor.domain.v1.{name}", **fields)

    def service(self, name: str, answers: Mapping[str, Answer]) -> RpcService:
        """A servicer of the service that answers as told; methods it is not told of are UNIMPLEMENTED."""
        methods = self._pool.FindServiceByName(name).methods_by_name
        handlers = {
            method: self._handler(methods[method], answer) for method, answer in answers.items()
        }

        def add(_: object, server: grpc.aio.Server) -> None:
            generic = grpc.method_handlers_generic_handler(name, handlers)
            server.add_generic_rpc_handlers((generic,))

        return RpcService(name, None, add)

    async def call(self, channel: grpc.aio.Channel, method: str, request: Message) -> Message:
        """One call of a launcher's method; its answer. Raises RpcError."""
        found = self._method(method)
        callable_ = channel.unary_unary(
            f"/{LAUNCHER}/{method}",
            request_serializer=_serialized,
            response_deserializer=self._class_of(found.output_type.full_name).FromString,
        )
        return await call(callable_, request, timeout_s=10)

    def watch(self, channel: grpc.aio.Channel) -> AsyncIterator[Message]:
        """The stream of a launcher's reports."""
        found = self._method("WatchDomain")
        callable_ = channel.unary_stream(
            f"/{LAUNCHER}/WatchDomain",
            request_serializer=_serialized,
            response_deserializer=self._class_of(found.output_type.full_name).FromString,
        )
        return stream(callable_, self.launcher("WatchDomainRequest"), first_reply_timeout_s=10)

    @cached_property
    def verbs(self) -> list[str]:
        """The names of the launcher's methods."""
        return [method.name for method in self._pool.FindServiceByName(LAUNCHER).methods]

    def _method(self, name: str) -> MethodDescriptor:
        return self._pool.FindServiceByName(LAUNCHER).methods_by_name[name]

    def _class_of(self, name: str) -> Any:
        return message_factory.GetMessageClass(self._pool.FindMessageTypeByName(name))

    def _handler(self, method: MethodDescriptor, answer: Answer) -> Any:
        request = self._class_of(method.input_type.full_name)
        if method.server_streaming:

            async def replies(message: Message, _: object) -> AsyncIterator[Message]:
                async for reply in answer(message):  # type: ignore[union-attr]
                    yield reply

            return grpc.unary_stream_rpc_method_handler(replies, request.FromString, _serialized)

        async def reply(message: Message, _: object) -> Message:
            return await answer(message)  # type: ignore[misc]

        return grpc.unary_unary_rpc_method_handler(reply, request.FromString, _serialized)


def said_later(message: Message) -> Message:
    """`message` with what only the later release knows in it and in every message below."""
    setattr(message, LATER_FIELD, "nobody here knows what this means")
    for field, value in message.ListFields():
        if field.message_type is None or not field.message_type.full_name.startswith("podvisor."):
            continue
        for below in value if field.is_repeated else (value,):
            said_later(below)
    return message


def _present() -> list[FileDescriptorProto]:
    """The files of this build, what they import first."""
    generated = (timestamp_pb2, guest_pb2, domain_pb2, launcher_pb2, handler_pb2)
    return [_proto_of(module.DESCRIPTOR) for module in generated]


def _proto_of(file: FileDescriptor) -> FileDescriptorProto:
    proto = FileDescriptorProto()
    file.CopyToProto(proto)
    return proto


def _with_additions(file: FileDescriptorProto) -> FileDescriptorProto:
    if not file.package.startswith("podvisor."):
        return file
    for message in file.message_type:
        _add_field(message)
    for enum in file.enum_type:
        prefix = enum.value[0].name.removesuffix("UNSPECIFIED")
        enum.value.add(name=f"{prefix}OF_A_LATER_RELEASE", number=LATER_NUMBER)
    for service in file.service:
        method = service.method.add()
        method.CopyFrom(service.method[0])
        method.name = LATER_METHOD
    return file


def _add_field(message: DescriptorProto) -> None:
    message.field.add(
        name=LATER_FIELD,
        number=LATER_NUMBER,
        type=FieldDescriptorProto.TYPE_STRING,
        label=FieldDescriptorProto.LABEL_OPTIONAL,
    )
    for index, oneof in enumerate(message.oneof_decl):
        message.field.add(
            name=f"{oneof.name}_{LATER_FIELD}",
            number=LATER_NUMBER + 1 + index,
            type=FieldDescriptorProto.TYPE_STRING,
            label=FieldDescriptorProto.LABEL_OPTIONAL,
            oneof_index=index,
        )


def _serialized(message: Message) -> bytes:
    content: bytes = message.SerializeToString()
    return content
