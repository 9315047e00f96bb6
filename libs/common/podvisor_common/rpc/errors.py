"""Errors that cross a gRPC boundary, as types on both sides.

A service raises them (or any Retryable/Terminal with a `reason`), the server's interceptor turns
them into a status code and a google.rpc.ErrorInfo, and the client gets the same type back. The
reason is stable and for programs; the message is for people. Must not carry anything secret: both
travel to the peer and into its logs.
"""

from collections.abc import Mapping
from typing import ClassVar

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from podvisor_common.errors import Retryable, Terminal

STATUS_DETAILS_KEY = "grpc-status-details-bin"
_MESSAGE_LIMIT = 2048  # metadata travels in HTTP/2 headers, which peers bound at 8 KiB


class RpcError(Exception):
    """A call failed. `reason` is a stable CamelCase word, the text is a sentence, `metadata` holds
    facts as strings.
    """

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.UNKNOWN
    reason: str = "Unknown"

    def __init__(
        self, message: str, *, reason: str | None = None, metadata: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.reason = reason if reason is not None else type(self).reason
        self.metadata: dict[str, str] = dict(metadata or {})

    @property
    def message(self) -> str:
        return str(self.args[0])


class UnknownFailure(RpcError, Terminal):
    """The peer failed with a code this release does not know."""


class InvalidArgument(RpcError, Terminal):
    """The request itself is wrong, whatever the state of the world."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = "InvalidArgument"


class FailedPrecondition(RpcError, Terminal):
    """The request is fine, the machine is in the wrong state for it."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "FailedPrecondition"


class NotFound(RpcError, Terminal):
    """There is no such machine, device or file."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "NotFound"


class AlreadyExists(RpcError, Terminal):
    """What should be made is there already."""

    code = grpc.StatusCode.ALREADY_EXISTS
    reason = "AlreadyExists"


class PermissionDenied(RpcError, Terminal):
    """The caller is known and may not."""

    code = grpc.StatusCode.PERMISSION_DENIED
    reason = "PermissionDenied"


class Unauthenticated(RpcError, Terminal):
    """The caller is not known."""

    code = grpc.StatusCode.UNAUTHENTICATED
    reason = "Unauthenticated"


class Unimplemented(RpcError, Terminal):
    """The peer is of a release without this method."""

    code = grpc.StatusCode.UNIMPLEMENTED
    reason = "Unimplemented"


class Internal(RpcError, Terminal):
    """A bug of the peer. Its log has the rest."""

    code = grpc.StatusCode.INTERNAL
    reason = "Internal"


class DataLoss(RpcError, Terminal):
    """Data is gone or damaged."""

    code = grpc.StatusCode.DATA_LOSS
    reason = "DataLoss"


class OutOfRange(RpcError, Terminal):
    """The argument lies outside of what exists now."""

    code = grpc.StatusCode.OUT_OF_RANGE
    reason = "OutOfRange"


class Aborted(RpcError, Retryable):
    """Somebody else was faster: read again and repeat."""

    code = grpc.StatusCode.ABORTED
    reason = "Aborted"


class ResourceExhausted(RpcError, Retryable):
    """Out of disk, memory, quota or message size."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "ResourceExhausted"


class Unavailable(RpcError, Retryable):
    """The peer cannot be reached or cannot serve now. Says nothing about the guest."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "Unavailable"


class DeadlineExceeded(RpcError, Retryable):
    """No answer in time; whether the request took effect is unknown."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED
    reason = "DeadlineExceeded"


class Cancelled(RpcError, Retryable):
    """The peer gave the call up, usually because it is stopping."""

    code = grpc.StatusCode.CANCELLED
    reason = "Cancelled"


_TYPES: Mapping[grpc.StatusCode, type[RpcError]] = {
    type_.code: type_
    for type_ in (
        UnknownFailure,
        InvalidArgument,
        FailedPrecondition,
        NotFound,
        AlreadyExists,
        PermissionDenied,
        Unauthenticated,
        Unimplemented,
        Internal,
        DataLoss,
        OutOfRange,
        Aborted,
        ResourceExhausted,
        Unavailable,
        DeadlineExceeded,
        Cancelled,
    )
}


def to_rpc_error(error: Exception) -> RpcError | None:
    """`error` as the type that goes over the wire; None for anything that is not a typed error and
    so must not leak.
    """
    if isinstance(error, RpcError):
        return error
    reason = getattr(error, "reason", type(error).__name__)
    if isinstance(error, Retryable):
        return Unavailable(str(error), reason=reason)
    if isinstance(error, Terminal):
        return FailedPrecondition(str(error), reason=reason)
    return None


def to_status(error: RpcError, *, domain: str) -> tuple[grpc.StatusCode, str, bytes]:
    """Code, message and serialised google.rpc.Status (with an ErrorInfo of `domain`) of `error`."""
    message = error.message[:_MESSAGE_LIMIT]
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=domain, metadata=error.metadata)
    detail = any_pb2.Any()
    detail.Pack(info)
    number: int = error.code.value[0]
    status = status_pb2.Status(code=number, message=message, details=[detail])
    return error.code, message, status.SerializeToString()


def from_status(error: grpc.aio.AioRpcError) -> RpcError:
    """The typed error a peer raised, or the one that stands for the transport's own failure."""
    type_ = _TYPES.get(error.code(), UnknownFailure)
    message = error.details() or error.code().name
    info = _error_info(error)
    if info is None:
        return type_(message)
    return type_(message, reason=info.reason, metadata=info.metadata)


def _error_info(error: grpc.aio.AioRpcError) -> error_details_pb2.ErrorInfo | None:
    for key, value in error.trailing_metadata() or ():
        if key != STATUS_DETAILS_KEY or not isinstance(value, bytes):
            continue
        for detail in status_pb2.Status.FromString(value).details:
            info = error_details_pb2.ErrorInfo()
            if detail.Unpack(info):
                return info
    return None
