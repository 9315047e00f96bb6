"""Where the handlers are, from a cache of their pods.

Invariant: what is found is where to try, no more: who answers there proves by its certificate that it is the handler of that node.
"""

from collections.abc import Iterable

from podvisor_common.api.base import ApiStruct
from podvisor_common.api.meta import ObjectMeta
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.informer import Informer
from podvisor_common.kube.resources import PODS

HANDLERS = "kubevirt.io=virt-handler"
# Of the container's port, in the chart.
PORT_NAME = "rpc"
NODE_INDEX = "node"


class HandlerPort(ApiStruct, frozen=True):
    """A port of a container."""

    name: str = ""
    container_port: int = 0


class HandlerContainer(ApiStruct, frozen=True):
    """A container, as far as its ports."""

    ports: tuple[HandlerPort, ...] | None = None


class HandlerPodSpec(ApiStruct, frozen=True):
    """On which node a handler is, and where it listens."""

    node_name: str = ""
    containers: tuple[HandlerContainer, ...] | None = None


class HandlerPodStatus(ApiStruct, frozen=True):
    """Whether a handler runs, and at which address."""

    phase: str = ""
    pod_ip: str = ""


class HandlerPod(ApiStruct, frozen=True):
    """A handler's pod, as far as it matters to those who look for one."""

    metadata: ObjectMeta
    spec: HandlerPodSpec = HandlerPodSpec()
    status: HandlerPodStatus = HandlerPodStatus()

    @property
    def address(self) -> str | None:
        """`host:port`; None before it has an address, and of a release that has no such port."""
        containers = self.spec.containers or ()
        ports = (port for one in containers for port in one.ports or ())
        port = next((port.container_port for port in ports if port.name == PORT_NAME), None)
        host = self.status.pod_ip
        if port is None or not host:
            return None
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def address_among(pods: Iterable[HandlerPod]) -> str | None:
    """Where to find the handler, of the pods of one node: the newest that runs and does not go. None where there is none. Pure."""
    running = [
        pod
        for pod in pods
        if pod.status.phase == "Running" and not pod.metadata.is_being_deleted and pod.address
    ]
    newest = max(running, key=lambda pod: pod.metadata.creation_timestamp or "", default=None)
    return newest.address if newest is not None else None


def outline(pod: HandlerPod) -> HandlerPod:
    """The pod without what nobody asks for."""
    old = pod.metadata
    metadata = ObjectMeta(
        name=old.name,
        namespace=old.namespace,
        uid=old.uid,
        resource_version=old.resource_version,
        creation_timestamp=old.creation_timestamp,
        deletion_timestamp=old.deletion_timestamp,
    )
    return HandlerPod(metadata=metadata, spec=pod.spec, status=pod.status)


class Directory:
    """The handlers of an installation, by their nodes. Knows none before run() has."""

    def __init__(self, client: KubeClient, namespace: str) -> None:
        self._pods = Informer(
            client,
            PODS,
            HandlerPod,
            namespace=namespace,
            label_selector=HANDLERS,
            indexers={NODE_INDEX: lambda pod: [pod.spec.node_name]},
            keep=outline,
            called="handler pods",
        )

    async def run(self) -> None:
        """Keep in step with the cluster until cancelled."""
        await self._pods.run()

    async def wait_synced(self) -> None:
        """Wait until all are known; how long is the caller's to bound."""
        await self._pods.wait_synced()

    def address_of(self, node: str) -> str | None:
        """Where to try for the handler of a node, as `host:port`."""
        return address_among(self._pods.by_index(NODE_INDEX, node))

    def nodes(self) -> list[str]:
        """Every node that has the pod of a handler, ordered by name."""
        return sorted({pod.spec.node_name for pod in self._pods.list() if pod.spec.node_name})
