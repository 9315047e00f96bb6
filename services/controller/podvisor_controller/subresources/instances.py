"""The instance that a verb is about, and the handler of its node.

Invariant: what an instance does is asked of the handler that sees it, never read from its status, which may be older than the answer to
the call before.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

import msgspec
from podvisor.handler.v1 import handler_pb2, handler_pb2_grpc
from podvisor_common.api import v1
from podvisor_common.api.v1.names import Phase
from podvisor_common.errors import Retryable, Terminal
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.errors import ApiError, ApiNotFound
from podvisor_common.kube.resources import VIRTUAL_MACHINE_INSTANCES, ObjectKey
from podvisor_common.rpc.errors import RpcError

from podvisor_controller.subresources.statuses import (
    StatusError,
    conflict,
    internal,
    not_found,
    unavailable,
)

_decode = msgspec.json.Decoder(v1.VirtualMachineInstance).decode


class Handlers(Protocol):
    """Connections to the handlers of nodes."""

    def on(
        self, node: str
    ) -> "AbstractAsyncContextManager[handler_pb2_grpc.HandlerServiceAsyncStub]":
        """The handler of that node."""


Refusal = Callable[[str, str], StatusError]
"""What is answered about the instance of that name for what a handler says."""

Refusals = Mapping[str, Refusal]
"""The refusal of each reason that a handler gives."""


def conflicting(words: str) -> Refusal:
    """A refusal of the state that the instance is in (409)."""
    return lambda name, _: conflict(VIRTUAL_MACHINE_INSTANCES, name, words)


_NOWHERE = "The guest does not run."


class Instances:
    """Looks instances up and reaches their guests."""

    def __init__(self, client: KubeClient, handlers: Handlers) -> None:
        self._client = client
        self._handlers = handlers

    async def get(self, key: ObjectKey) -> v1.VirtualMachineInstance:
        """The instance as the API server has it. Raises StatusError (404) and ApiError."""
        try:
            return _decode(await self._client.get(VIRTUAL_MACHINE_INSTANCES, key))
        except ApiNotFound as error:
            raise not_found(VIRTUAL_MACHINE_INSTANCES, key.name) from error

    @asynccontextmanager
    async def guest(
        self, vmi: v1.VirtualMachineInstance, refusals: Refusals
    ) -> "AsyncIterator[tuple[handler_pb2_grpc.HandlerServiceAsyncStub, handler_pb2.MachineReference]]":
        """The handler that sees the guest, and how to name it there. Whatever goes wrong in the block becomes a StatusError: the one of
        the handler's reason in `refusals`, of which `NotRunning` is told of a guest that is nowhere too."""
        if vmi.is_final or not vmi.status.node_name or not _pod_of(vmi):
            raise refusals["NotRunning"](vmi.metadata.name, _NOWHERE)
        reference = handler_pb2.MachineReference(
            namespace=vmi.metadata.namespace,
            name=vmi.metadata.name,
            uid=vmi.metadata.uid,
            pod_uid=_pod_of(vmi),
        )
        try:
            async with self._handlers.on(vmi.status.node_name) as stub:
                yield stub, reference
        except (RpcError, Retryable, Terminal) as error:
            if isinstance(error, ApiError):
                raise
            raise told(error, vmi, refusals) from error


def _pod_of(vmi: v1.VirtualMachineInstance) -> str:
    """The UID of the instance's launcher pod, of which its status says where it is."""
    active = vmi.status.active_pods or {}
    return next((uid for uid, node in active.items() if node == vmi.status.node_name), "")


def told(
    error: RpcError | Retryable | Terminal, vmi: v1.VirtualMachineInstance, refusals: Refusals
) -> StatusError:
    """What a client is told of an error on the way to a guest."""
    name = vmi.metadata.name
    reason = getattr(error, "reason", "")
    message = error.message if isinstance(error, RpcError) else str(error)
    # A launcher that is not there yet has no guest; one that was there may have one, and be back in a moment.
    is_early = reason == "LauncherUnreachable" and vmi.status.phase != Phase.RUNNING
    if reason == "DomainNotFound" or is_early:
        return refusals["NotRunning"](name, _NOWHERE)
    if reason in refusals:
        return refusals[reason](name, message)
    if reason == "LauncherTooOld":
        return conflict(VIRTUAL_MACHINE_INSTANCES, name, message)
    if isinstance(error, Retryable):
        return unavailable(message)
    return internal(message)
