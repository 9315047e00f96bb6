"""HandlerService: the machines of this node, for grpcurl, for the controller and for tests.

Invariant: what is here reads only what the registry has; what reaches a launcher or a guest is in the modules beside it.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import grpc
from podvisor.handler.v1 import handler_pb2
from podvisor_common.kube.client import KubeClient

from podvisor_handler import __version__
from podvisor_handler.launchers.connection import LauncherConnection
from podvisor_handler.launchers.registry import LauncherRegistry
from podvisor_handler.launchers.state import Connection
from podvisor_handler.rpc.guest_agent import GuestAgentServicer
from podvisor_handler.rpc.machines import Machines
from podvisor_handler.rpc.power import PowerServicer
from podvisor_handler.rpc.streams import StreamServicer

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


class HandlerServicer(PowerServicer, StreamServicer, GuestAgentServicer):
    """Serves HandlerService. `client` asks the API server for addresses of pods."""

    def __init__(self, node: NodeInfo, registry: LauncherRegistry, client: KubeClient) -> None:
        StreamServicer.__init__(self, Machines(node.name, registry), client)
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
        machine = self._machines.find(request.reference)
        return handler_pb2.GetDomainResponse(machine=machine_of(machine))

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
