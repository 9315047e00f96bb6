"""Finds the machine that a caller names, and speaks with its launcher.

Invariant: a machine is one whose launcher's pod is on this node; nothing a caller sends leads anywhere else.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from podvisor.domain.v1 import domain_pb2
from podvisor.handler.v1 import handler_pb2
from podvisor.launcher.v1 import launcher_pb2_grpc
from podvisor_common.rpc.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    RpcError,
    Unimplemented,
)
from podvisor_common.told import told_text

from podvisor_handler.launchers.connection import LauncherConnection
from podvisor_handler.launchers.registry import LauncherRegistry

_T = TypeVar("_T")
_REPORTED_WITHIN_S = 2.0
TEXT_LIMIT = 1024
_REASON = re.compile(r"[A-Za-z]{1,64}")


class Machines:
    """Those of the node of that name."""

    def __init__(self, node_name: str, registry: LauncherRegistry) -> None:
        self._node_name = node_name
        self._registry = registry

    @property
    def pods_directory(self) -> str:
        """Where the directories of pods are."""
        return self._registry.pods_directory

    def find(self, reference: handler_pb2.MachineReference) -> LauncherConnection:
        """The machine; where its next instance has begun before the pod of the last one is gone, the next. Raises NotFound and
        InvalidArgument."""
        if not reference.namespace or not reference.name:
            raise InvalidArgument("the reference names no machine", reason="ReferenceIncomplete")
        for connection in reversed(tuple(self._registry.all())):
            pod = connection.pod
            is_named = (pod.namespace, pod.vmi_name) == (reference.namespace, reference.name)
            # Anybody may make a pod that says it is a launcher's: who knows the pod names it.
            is_meant = reference.uid in ("", pod.vmi_uid) and reference.pod_uid in ("", pod.uid)
            if is_named and is_meant:
                return connection
        raise NotFound(
            f"node {self._node_name} has no machine {reference.namespace}/{reference.name}",
            reason="DomainNotFound",
        )

    async def ask(
        self,
        reference: handler_pb2.MachineReference,
        question: Callable[["launcher_pb2_grpc.LauncherServiceAsyncStub"], Awaitable[_T]],
    ) -> _T:
        """What the machine's launcher answers. Raises what find() and LauncherConnection.ask() do, and FailedPrecondition where the
        launcher is of a release that does not know the question."""
        try:
            with passed_on():
                return await self.find(reference).ask(question)
        except Unimplemented as error:
            raise too_old() from error

    async def until(
        self, connection: LauncherConnection, state: "domain_pb2.DomainState.ValueType"
    ) -> None:
        """Wait until the launcher reports that state, but not for long: who reads reports after an answer is to find what it said."""
        changed = asyncio.Event()
        unsubscribe = self._registry.subscribe(lambda *_: changed.set())
        try:
            async with asyncio.timeout(_REPORTED_WITHIN_S):
                while connection.report is None or connection.report.state != state:
                    await changed.wait()
                    changed.clear()
        except TimeoutError:
            return
        finally:
            unsubscribe()


@contextmanager
def passed_on() -> Iterator[None]:
    """Makes of a launcher's error, whose words nobody vouches for, one that is fit to be passed on: cut, and printable."""
    try:
        yield
    except RpcError as error:
        reason = error.reason if _REASON.fullmatch(error.reason) else type(error).reason
        raise type(error)(told_text(error.message, TEXT_LIMIT), reason=reason) from error


def too_old() -> FailedPrecondition:
    """The launcher does not know what it is asked."""
    message = (
        "The machine's launcher is of an older release and cannot do this; restart the machine."
    )
    return FailedPrecondition(message, reason="LauncherTooOld")
