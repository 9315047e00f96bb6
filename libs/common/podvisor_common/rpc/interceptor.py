"""The one place where an exception of a servicer becomes a gRPC status.

Typed errors travel with code, message and ErrorInfo; everything else is a bug: logged here once
with its traceback, and answered with INTERNAL and no detail. CancelledError passes, since it is how
asyncio ends a call.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from inspect import isasyncgen, isawaitable
from typing import Any, NoReturn, TypeAlias

import grpc
import structlog

from podvisor_common.rpc.errors import STATUS_DETAILS_KEY, Internal, to_rpc_error, to_status

_log = structlog.stdlib.get_logger(__name__)

_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Maps errors of unary and streaming handlers alike. The ErrorInfo's domain is the service's
    package (`podvisor.launcher`).
    """

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method
        if handler.response_streaming:
            return _wrap_streaming(handler, method)
        return _wrap_unary(handler, method)


def _wrap_unary(handler: Any, method: str) -> Any:
    behaviour = handler.stream_unary if handler.request_streaming else handler.unary_unary

    async def answer(request: Any, context: _Context) -> Any:
        try:
            reply = behaviour(request, context)
            return await reply if isawaitable(reply) else reply
        except grpc.aio.AbortError:
            raise
        except Exception as error:
            await _abort(context, method, error)

    make = (
        grpc.stream_unary_rpc_method_handler
        if handler.request_streaming
        else grpc.unary_unary_rpc_method_handler
    )
    return make(answer, handler.request_deserializer, handler.response_serializer)


def _wrap_streaming(handler: Any, method: str) -> Any:
    behaviour = handler.stream_stream if handler.request_streaming else handler.unary_stream

    async def answer(request: Any, context: _Context) -> AsyncIterator[Any]:
        try:
            replies = behaviour(request, context)
            if isawaitable(replies):  # a handler that writes through its context
                await replies
                return
            if isasyncgen(replies):
                async with aclosing(replies):
                    async for reply in replies:
                        yield reply
                return
            async for reply in replies:
                yield reply
        except grpc.aio.AbortError:
            raise
        except Exception as error:
            await _abort(context, method, error)

    make = (
        grpc.stream_stream_rpc_method_handler
        if handler.request_streaming
        else grpc.unary_stream_rpc_method_handler
    )
    return make(answer, handler.request_deserializer, handler.response_serializer)


async def _abort(context: _Context, method: str, error: Exception) -> NoReturn:
    known = to_rpc_error(error)
    if known is None:
        _log.error("rpc failed", method=method, exc_info=error)
        known = Internal("internal error; the server's log has the details")
    code, message, details = to_status(known, domain=_domain(method))
    await context.abort(code, message, ((STATUS_DETAILS_KEY, details),))
    raise AssertionError("abort returned")


def _domain(method: str) -> str:
    """`podvisor.launcher` for `/podvisor.launcher.v1.LauncherService/ApplyDomain`."""
    return ".".join(method.strip("/").split("/")[0].split(".")[:2])
