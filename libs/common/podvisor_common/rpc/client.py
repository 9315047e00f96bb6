"""gRPC clients: channels that reconnect fast, calls with a deadline, errors as types.

Must not retry: whether a call is worth repeating is its caller's to know
(podvisor_common.errors.Retryable says when it may help).
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import TypeVar

import grpc

from podvisor_common.rpc.errors import DeadlineExceeded, Unavailable, from_status

Request = TypeVar("Request")
Reply = TypeVar("Reply")

OPTIONS: Sequence[tuple[str, int]] = (
    # A restarted launcher is back within a second; the default backoff would find it seconds later.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Despite its name the time that one attempt may take, not a pause. A socket without a listener refuses at once; one
    # whose process has no processor at the moment must not be dialled again and again for it.
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # Whichever of the two is shorter counts where the peer takes bytes and does not answer; this one's default is a minute.
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
    # Connections are otherwise shared by target name, and `/proc/self/fd/N` names another socket
    # once N is used again.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", 4 * 1024 * 1024),
)


def unix_channel(path: str) -> grpc.aio.Channel:
    """A channel to the server on the unix socket `path` (`/proc/self/fd/N` works too). Connects on
    first use; the caller closes it.
    """
    return grpc.aio.insecure_channel(f"unix:{path}", options=OPTIONS)


async def call(
    method: "grpc.aio.UnaryUnaryMultiCallable[Request, Reply]",
    request: Request,
    *,
    timeout_s: float,
    wait_for_ready: bool = False,
    metadata: Sequence[tuple[str, str]] = (),
) -> Reply:
    """One unary call with a deadline. Raises the RpcError type that the peer raised, or
    Unavailable/DeadlineExceeded.

    `metadata` goes along and is nowhere logged. `wait_for_ready` waits for the socket to answer instead of failing at once, within the same
    deadline.
    """
    try:
        return await method(
            request, timeout=timeout_s, wait_for_ready=wait_for_ready, metadata=tuple(metadata)
        )
    except grpc.aio.AioRpcError as error:
        raise from_status(error) from error
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        # grpc cancels the call, not its caller, when the channel is closed under it.
        raise Unavailable("the connection was closed during the call") from None


async def stream(
    method: "grpc.aio.UnaryStreamMultiCallable[Request, Reply]",
    request: Request,
    *,
    first_reply_timeout_s: float,
    timeout_s: float | None = None,
) -> AsyncGenerator[Reply, None]:
    """The replies of a server stream, errors as types. Iterate it under contextlib.aclosing so that
    leaving the loop ends the call.

    Watch streams have no end, so only their first reply has a deadline (they open with a snapshot);
    afterwards keepalive notices a dead or stopped peer within 15 s. `timeout_s` bounds the whole stream where
    it has an end.
    """
    replies = method(request, timeout=timeout_s)
    iterator = aiter(replies)
    try:
        try:
            async with asyncio.timeout(first_reply_timeout_s):
                first = await anext(iterator, None)
        except TimeoutError:
            raise DeadlineExceeded(f"no first reply within {first_reply_timeout_s} s") from None
        if first is None:
            return
        yield first
        async for reply in iterator:
            yield reply
    except grpc.aio.AioRpcError as error:
        raise from_status(error) from error
    finally:
        replies.cancel()
