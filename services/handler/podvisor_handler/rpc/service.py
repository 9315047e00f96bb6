"""HandlerService: the machines of this node, for grpcurl and for tests.

Invariant: reads only what the registry has; no call here reaches a launcher or the API server.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import grpc
from podvisor.handler.v1 import handler_pb2, handler_pb2_grpc
from podvisor_common.rpc.errors import NotFound

from podvisor_handler import __version__
from podvisor_handler.launchers.connection import LauncherConnection
from podvisor_handler.launchers.registry import LauncherRegistry
from podvisor_handler.launchers.state import Connection

SERVICE = "podvisor.handler.v1.HandlerService"

_CONNECTIONS = {
    Connection.WAITING: handler_pb2.LAUNCHER_CONNECTION_WAITING,
    Connection.CONNECTED: handler_pb2.LAUNCHER_CONNECTION_CONNECTED,
    Connection.UNRESPONSIVE: handler_pb2.LAUNCHER_CONNECTION_UNRESPONSIVE,
}


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """What this node is."""

    name: str
    kvm: bool
    kvm_message: str


class HandlerServicer(handler_pb2_grpc.HandlerServiceServicer):
    """Serves HandlerService from the launcher registry."""

    def __init__(self, node: NodeInfo, registry: LauncherRegistry) -> None:
        self._node = node
        self._registry = registry

    async def GetNodeInfo(
        self,
        request: handler_pb2.GetNodeInfoRequest,
        context: grpc.aio.ServicerContext[
            handler_pb2.GetNodeInfoRequest, handler_pb2.GetNodeInfoResponse
        ],
    ) -> handler_pb2.GetNodeInfoResponse:
        """Which node this is and what it can do."""
        return handler_pb2.GetNodeInfoResponse(
            node_name=self._node.name,
            version=__version__,
            kvm=self._node.kvm,
            kvm_message=self._node.kvm_message,
        )

    async def ListDomains(
        self,
        request: handler_pb2.ListDomainsRequest,
        context: grpc.aio.ServicerContext[
            handler_pb2.ListDomainsRequest, handler_pb2.ListDomainsResponse
        ],
    ) -> handler_pb2.ListDomainsResponse:
        """All machines, ordered by namespace and name."""
        return handler_pb2.ListDomainsResponse(
            machines=[machine_of(connection) for connection in self._ordered()]
        )

    async def GetDomain(
        self,
        request: handler_pb2.GetDomainRequest,
        context: grpc.aio.ServicerContext[
            handler_pb2.GetDomainRequest, handler_pb2.GetDomainResponse
        ],
    ) -> handler_pb2.GetDomainResponse:
        """One machine; where its next instance has begun before the pod of the last one is gone, the next."""
        wanted = (request.reference.namespace, request.reference.name)
        for connection in reversed(tuple(self._registry.all())):
            if (connection.pod.namespace, connection.pod.vmi_name) == wanted:
                return handler_pb2.GetDomainResponse(machine=machine_of(connection))
        raise NotFound(
            f"node {self._node.name} has no machine {wanted[0]}/{wanted[1]}",
            reason="DomainNotFound",
        )

    async def WatchDomains(
        self,
        request: handler_pb2.WatchDomainsRequest,
        context: grpc.aio.ServicerContext[
            handler_pb2.WatchDomainsRequest, handler_pb2.WatchDomainsResponse
        ],
    ) -> AsyncIterator[handler_pb2.WatchDomainsResponse]:
        """Every machine once and again after each change. A slow reader misses intermediate states,
        never the last one: what waits for it is one entry per machine.
        """
        pending = {connection.pod.uid: (connection, False) for connection in self._ordered()}
        changed = asyncio.Event()

        def note(connection: LauncherConnection, gone: bool) -> None:
            pending[connection.pod.uid] = (connection, gone)
            changed.set()

        unsubscribe = self._registry.subscribe(note)
        try:
            while True:
                changed.clear()
                for uid in tuple(pending):
                    connection, gone = pending.pop(uid)
                    yield handler_pb2.WatchDomainsResponse(
                        machine=machine_of(connection), gone=gone
                    )
                await changed.wait()
        finally:
            unsubscribe()

    def _ordered(self) -> list[LauncherConnection]:
        return sorted(
            self._registry.all(), key=lambda c: (c.pod.namespace, c.pod.vmi_name, c.pod.name)
        )


def machine_of(connection: LauncherConnection) -> handler_pb2.Machine:
    """One machine as the contract shows it."""
    pod = connection.pod
    return handler_pb2.Machine(
        reference=handler_pb2.MachineReference(namespace=pod.namespace, name=pod.vmi_name),
        uid=pod.vmi_uid,
        pod_name=pod.name,
        pod_uid=pod.uid,
        connection=_CONNECTIONS[connection.state],
        report=connection.report,
        launcher_version=connection.build.version,
        contract_version=connection.build.contract_version,
    )
