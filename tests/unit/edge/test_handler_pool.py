"""A controller's connections to handlers that serve on loopback, with certificates of a real authority."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from podvisor.handler.v1 import handler_pb2, handler_pb2_grpc
from podvisor_common.api.meta import ObjectMeta
from podvisor_common.kube.resources import PODS
from podvisor_common.rpc.client import call
from podvisor_common.rpc.errors import NotFound
from podvisor_common.rpc.server import RpcService
from podvisor_common.rpc.tcp import Credentials, serve_tcp
from podvisor_common.tls.authority import (
    CertificateAuthority,
    make_bundle,
)
from podvisor_common.tls.identities import CONTROLLER
from podvisor_controller.handlers.credentials import ControllerCredentials, NoCredentials
from podvisor_controller.handlers.directory import (
    Directory,
    HandlerContainer,
    HandlerPod,
    HandlerPodSpec,
    HandlerPodStatus,
    HandlerPort,
    address_among,
)
from podvisor_controller.handlers.pool import (
    Handlers,
    HandlerUnreachable,
    NodeUnknown,
    TooManyConnections,
)
from podvisor_controller.webhooks.rotation import Authorities

from tests.unit.edge.handler_identities import LIFE, Controllers, Handler, controllers
from tests.unit.edge.tls_peers import DAY, NOW, authority, server_pair

SERVICE = "podvisor.handler.v1.HandlerService"


class Node(handler_pb2_grpc.HandlerServiceServicer):
    """A handler that says its name, and keeps whoever watches."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.callers: set[str] = set()
        self.watched = 0
        self.left = asyncio.Event()

    async def GetNodeInfo(
        self, request: handler_pb2.GetNodeInfoRequest, context: Any
    ) -> handler_pb2.GetNodeInfoResponse:
        self.callers.add(context.peer())
        return handler_pb2.GetNodeInfoResponse(node_name=self.name)

    async def GetDomain(
        self, request: handler_pb2.GetDomainRequest, context: object
    ) -> handler_pb2.GetDomainResponse:
        raise NotFound("no such machine", reason="DomainNotFound")

    async def WatchDomains(
        self, request: handler_pb2.WatchDomainsRequest, context: object
    ) -> AsyncIterator[handler_pb2.WatchDomainsResponse]:
        self.watched += 1
        try:
            yield handler_pb2.WatchDomainsResponse()
            await asyncio.Event().wait()
        finally:
            self.watched -= 1
            self.left.set()


class Cluster:
    """Handlers by their nodes, and where a controller takes them to be."""

    def __init__(self) -> None:
        self.signer = authority()
        self.authorities: Authorities | None = Authorities(self.signer.pair)
        self.nodes: dict[str, Node] = {}
        self.addresses: dict[str, str] = {}
        self.shown: dict[str, Credentials] = {}

    @asynccontextmanager
    async def handler(self, name: str) -> AsyncIterator[Node]:
        """A handler that serves for the body."""
        node = Node(name)  # type: ignore[abstract]  # the other methods are not called
        self.shown[name] = Credentials(server_pair(self.signer, name), self.signer.certificate)
        service = RpcService(SERVICE, node, handler_pb2_grpc.add_HandlerServiceServicer_to_server)
        async with serve_tcp(
            0,
            [service],
            credentials=lambda: self.shown[name],
            only_for=CONTROLLER,
            host="127.0.0.1",
        ) as port:
            self.nodes[name], self.addresses[name] = node, f"127.0.0.1:{port}"
            yield node

    def pool(self, *, limit: int = 8, idle_s: float = 300.0) -> Handlers:
        credentials = ControllerCredentials(
            lambda: self.authorities, life=LIFE, wall_clock=lambda: NOW
        )
        return Handlers(
            address_of=self.addresses.get,
            is_node=lambda name: name in self.nodes or name == "bare",
            credentials=credentials.current,
            limit=limit,
            idle_s=idle_s,
        )


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    """Two nodes."""
    made = Cluster()
    async with made.handler("n1"), made.handler("n2"):
        yield made


@asynccontextmanager
async def running(pool: Handlers) -> AsyncIterator[Handlers]:
    task = asyncio.create_task(pool.run(), name="pool")
    try:
        yield pool
    finally:
        task.cancel()
        await asyncio.wait([task])


async def name_of(pool: Handlers, node: str) -> str:
    async with pool.on(node) as handler:
        info = await call(handler.GetNodeInfo, handler_pb2.GetNodeInfoRequest(), timeout_s=5)
    return info.node_name


async def test_each_node_answers_for_itself_over_one_connection(cluster: Cluster) -> None:
    async with running(cluster.pool()) as pool:
        for _ in range(3):
            assert [await name_of(pool, node) for node in ("n1", "n2")] == ["n1", "n2"]
        assert [len(node.callers) for node in cluster.nodes.values()] == [1, 1]


async def test_the_handler_of_another_node_gets_no_request(cluster: Cluster) -> None:
    """As where a pod has the address that another one had a moment ago."""
    cluster.addresses["n1"] = cluster.addresses["n2"]
    async with running(cluster.pool()) as pool:
        with pytest.raises(HandlerUnreachable, match=r"node n1 .*Hostname Verification"):
            await name_of(pool, "n1")
    assert cluster.nodes["n2"].callers == set()


async def test_nodes_without_a_handler(cluster: Cluster) -> None:
    async with running(cluster.pool()) as pool:
        with pytest.raises(NodeUnknown):
            await name_of(pool, "n3")
        with pytest.raises(HandlerUnreachable, match="no handler runs on node bare"):
            await name_of(pool, "bare")
        cluster.authorities = None
        with pytest.raises(NoCredentials):
            await name_of(cluster.pool(), "n1")


async def test_an_answer_of_the_handlers_own_passes_as_it_is(cluster: Cluster) -> None:
    async with running(cluster.pool()) as pool:
        with pytest.raises(NotFound) as answered:
            async with pool.on("n1") as handler:
                await call(handler.GetDomain, handler_pb2.GetDomainRequest(), timeout_s=5)
    assert answered.value.reason == "DomainNotFound"


async def test_a_handler_that_goes_and_one_that_comes_in_its_place(cluster: Cluster) -> None:
    async with running(cluster.pool()) as pool:
        async with AsyncExitStack() as last:
            await last.enter_async_context(cluster.handler("n3"))
            assert await name_of(pool, "n3") == "n3"

            async def lose() -> None:
                async with pool.on("n3") as handler:
                    replies = handler.WatchDomains(handler_pb2.WatchDomainsRequest())
                    await anext(aiter(replies))
                    await last.aclose()
                    await call(handler.GetNodeInfo, handler_pb2.GetNodeInfoRequest(), timeout_s=5)

            with pytest.raises(HandlerUnreachable, match="node n3"):
                await lose()
        with pytest.raises(HandlerUnreachable):
            await name_of(pool, "n3")
        async with cluster.handler("n3"):
            assert await name_of(pool, "n3") == "n3"


@pytest.mark.parametrize("step", ["introduced", "promoted", "forgotten"])
async def test_another_authority_leaves_streams_open(cluster: Cluster, step: str) -> None:
    """The stream goes on over the old connection; whoever asks next gets one of the day."""
    following = authority()
    both = make_bundle([following.certificate, cluster.signer.certificate], now=NOW)
    async with running(cluster.pool()) as pool, pool.on("n1") as handler:
        replies = handler.WatchDomains(handler_pb2.WatchDomainsRequest())
        await anext(aiter(replies))
        await name_of(pool, "n1")
        if step == "introduced":
            cluster.authorities = Authorities(cluster.signer.pair, following.pair)
            cluster.shown["n1"] = Credentials(cluster.shown["n1"].pair, both)
        elif step == "promoted":
            cluster.authorities = Authorities(following.pair, None, cluster.signer.certificate)
            cluster.shown["n1"] = Credentials(server_pair(following), both)
        else:
            cluster.authorities = Authorities(following.pair)
            cluster.shown["n1"] = Credentials(server_pair(following), following.certificate)
        assert await name_of(pool, "n1") == "n1"
        assert len(cluster.nodes["n1"].callers) == 2
        assert cluster.nodes["n1"].watched == 1
        assert not replies.done()
        replies.cancel()


async def test_there_are_no_more_connections_than_the_limit(cluster: Cluster) -> None:
    """One that nobody uses makes room; one that is used does not."""
    async with running(cluster.pool(limit=1)) as pool:
        await name_of(pool, "n1")
        async with pool.on("n2") as handler:
            await call(handler.GetNodeInfo, handler_pb2.GetNodeInfoRequest(), timeout_s=5)
            with pytest.raises(TooManyConnections):
                await name_of(pool, "n1")
            assert await name_of(pool, "n2") == "n2"
        assert await name_of(pool, "n1") == "n1"
    assert len(cluster.nodes["n1"].callers) == 2


async def test_a_connection_of_old_that_is_used_counts(cluster: Cluster) -> None:
    async with running(cluster.pool(limit=1)) as pool, pool.on("n1"):
        cluster.authorities = Authorities(authority().pair, None, cluster.signer.certificate)
        with pytest.raises(TooManyConnections):
            await name_of(pool, "n1")


async def test_what_nobody_uses_is_closed(cluster: Cluster) -> None:
    """A stream that somebody has left open over it is ended."""
    async with running(cluster.pool(idle_s=0.02)) as pool:
        async with pool.on("n1") as handler:
            replies = handler.WatchDomains(handler_pb2.WatchDomainsRequest())
            await anext(aiter(replies))
        async with asyncio.timeout(5):
            await cluster.nodes["n1"].left.wait()


def authorities_of(signer: CertificateAuthority, *, previous: bytes = b"") -> Authorities:
    return Authorities(signer.pair, None, previous)


async def test_when_the_controllers_own_certificate_is_replaced() -> None:
    """Young, and of an authority that is trusted still, it stays: handlers may not know the next one yet."""
    old, new = authority(), authority()
    state, now = authorities_of(old), NOW
    credentials = ControllerCredentials(lambda: state, life=DAY, wall_clock=lambda: now)
    first = credentials.current()
    assert credentials.current() is first
    state = authorities_of(new, previous=old.certificate)
    promoted = credentials.current()
    assert promoted.pair is first.pair
    assert promoted.authorities == state.bundle(now=now)
    now += DAY * 0.6
    later = credentials.current()
    assert later.pair is not first.pair
    state = authorities_of(old)
    assert credentials.current().pair is not later.pair


def handler_pod(
    name: str, *, created: str = "2026-01-01T00:00:00Z", node: str = "n1", **status: str
) -> HandlerPod:
    return HandlerPod(
        metadata=ObjectMeta(name=name, creation_timestamp=created),
        spec=HandlerPodSpec(
            node_name=node,
            containers=(
                HandlerContainer(ports=(HandlerPort(name="metrics", container_port=8080),)),
                HandlerContainer(ports=(HandlerPort(name="rpc", container_port=8443),)),
            ),
        ),
        status=HandlerPodStatus(**{"phase": "Running", "pod_ip": "10.0.0.1", **status}),
    )


GOING = HandlerPod(
    metadata=ObjectMeta(name="a", deletion_timestamp="2026-01-01T00:00:00Z"),
    spec=handler_pod("a").spec,
    status=handler_pod("a").status,
)


@pytest.mark.parametrize(
    ("pods", "address"),
    [
        ([], None),
        ([handler_pod("a")], "10.0.0.1:8443"),
        ([handler_pod("a", pod_ip="fd00::1")], "[fd00::1]:8443"),
        ([handler_pod("a", pod_ip="")], None),
        ([handler_pod("a", phase="Failed")], None),
        ([GOING], None),
        ([GOING, handler_pod("b", pod_ip="10.0.0.2")], "10.0.0.2:8443"),
        (
            [
                handler_pod("a", created="2026-01-02T00:00:00Z", pod_ip="10.0.0.2"),
                handler_pod("b"),
            ],
            "10.0.0.2:8443",
        ),
        ([HandlerPod(metadata=ObjectMeta(), status=HandlerPodStatus("Running", "1.1.1.1"))], None),
    ],
    ids=[
        "none",
        "one",
        "IPv6",
        "no address yet",
        "ended",
        "going",
        "its successor",
        "the newest",
        "an older release",
    ],
)
def test_which_pod_is_the_handler(pods: list[HandlerPod], address: str | None) -> None:
    assert address_among(pods) == address


@asynccontextmanager
async def directory(made: Controllers) -> AsyncIterator[Directory]:
    found = Directory(made.client, "kubevirt")
    task = asyncio.create_task(found.run(), name="directory")
    try:
        await found.wait_synced()
        yield found
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_the_directory_is_of_the_installation_alone() -> None:
    async with controllers() as made:
        for namespace, label, node in (
            ("kubevirt", "virt-handler", "n1"),
            ("kubevirt", "virt-controller", "n2"),
            ("shop", "virt-handler", "n3"),
        ):
            ports = [{"name": "rpc", "containerPort": 8443}]
            made.server.put(
                PODS,
                {
                    "metadata": {
                        "namespace": namespace,
                        "name": node,
                        "labels": {"kubevirt.io": label},
                    },
                    "spec": {"nodeName": node, "containers": [{"name": "c", "ports": ports}]},
                    "status": {"phase": "Running", "podIP": "10.0.0.1"},
                },
            )
        async with directory(made) as found:
            assert found.nodes() == ["n1"]
            assert found.address_of("n1") == "10.0.0.1:8443"
            assert found.address_of("n3") is None


async def test_from_a_token_to_an_answer(tmp_path: Path) -> None:
    """A handler with the certificate that a controller gave it, reached by that controller; and again with another authority."""
    cluster = Cluster()
    async with controllers() as made, made.issuing(), cluster.handler("n1"):
        handler = Handler(tmp_path, made.port, made.trust())
        certificate = handler.certificate
        credentials = ControllerCredentials(lambda: made.certificates.published, life=LIFE)
        pool = Handlers(
            address_of=cluster.addresses.get, is_node=bool, credentials=credentials.current
        )
        async with running(pool):
            await certificate.bring_up_to_date()
            cluster.shown["n1"] = certificate.current()
            assert await name_of(pool, "n1") == "n1"
            await made.make_another_authority()
            with pytest.raises(HandlerUnreachable):
                await name_of(pool, "n1")
            handler.trust(made.trust())
            await certificate.bring_up_to_date()
            cluster.shown["n1"] = certificate.current()
            assert await name_of(pool, "n1") == "n1"
