"""Lets only some callers in: those whose certificate has a name that was agreed upon.

Invariant: no method is reached by anybody else, health and reflection included. That the certificate is of a trusted authority and valid
is the transport's to see; whose it is, is seen here. Must stand inside of ErrorInterceptor, which makes an answer of what is raised.
"""

import math
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import structlog

from podvisor_common.rpc.errors import PermissionDenied

REFUSED = "CallerRefused"
# Whoever has a certificate can call as often as it likes.
TOLD_EVERY_S = 30.0
_NAMES = "x509_subject_alternative_name"

_log = structlog.stdlib.get_logger(__name__)


class OnlyCallers(grpc.aio.ServerInterceptor):
    """Answers PERMISSION_DENIED (`CallerRefused`) unless the caller's certificate has the alternative name `name`."""

    def __init__(self, name: str, *, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._monotonic_s = monotonic_s
        self._told_s = -math.inf

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        return None if handler is None else self._guarded(handler, handler_call_details.method)

    def _guarded(self, handler: Any, method: str) -> Any:
        kind = f"{_arity(handler.request_streaming)}_{_arity(handler.response_streaming)}"
        behaviour = getattr(handler, kind)

        def answer(request: Any, context: Any) -> Any:
            self._check(context, method)
            return behaviour(request, context)

        make = getattr(grpc, f"{kind}_rpc_method_handler")
        return make(answer, handler.request_deserializer, handler.response_serializer)

    def _check(self, context: Any, method: str) -> None:
        shown = [name.decode(errors="replace") for name in context.auth_context().get(_NAMES, ())]
        if self._name in shown:
            return
        now_s = self._monotonic_s()
        if now_s >= self._told_s + TOLD_EVERY_S:
            self._told_s = now_s
            _log.warning("caller refused", peer=context.peer(), method=method, names=shown[:8])
        raise PermissionDenied(
            f"only a caller whose certificate has the name {self._name} may call this",
            reason=REFUSED,
        )


def _arity(is_stream: bool) -> str:
    return "stream" if is_stream else "unary"
