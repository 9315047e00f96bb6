"""Handlers on the cluster: controllers reach each of them as itself, nobody else gets anything, and only a handler's token is a
handler's.
"""

import asyncio
import ssl

import grpc
import pytest
from podvisor.handler.v1 import handler_pb2, handler_pb2_grpc
from podvisor.identity.v1 import identity_pb2, identity_pb2_grpc
from podvisor_common.rpc.client import call
from podvisor_common.rpc.errors import PermissionDenied, RpcError, Unauthenticated, Unavailable
from podvisor_common.rpc.tcp import tls_channel
from podvisor_common.tls.authority import CertificateRequest
from podvisor_common.tls.identities import AUDIENCE, handler_of

from tests.support.cluster import Cluster, Json
from tests.support.forwarding import forwarded

INSTALL = Cluster("kubevirt")
CONTROLLER_NAME = "virt-controller.kubevirt.svc"
RPC_PORT, IDENTITY_PORT = 8443, 8445
ASKED = CertificateRequest.create("somebody")
# The kubelet brings a handler the authority after a minute and a half at the latest.
REACHED_S = 120.0

pytestmark = pytest.mark.timeout(180)


async def running_pods(app: str) -> list[Json]:
    pods = await INSTALL.all("pods", labels=f"kubevirt.io={app}", fields="status.phase=Running")
    assert pods
    return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]


async def authorities() -> bytes:
    found = await INSTALL.get("configmap", "podvisor-ca")
    assert found is not None
    return bytes(found["data"]["ca.crt"].encode())


async def reached() -> str:
    """What a controller says of the handlers, once it reaches all of them."""
    async with asyncio.timeout(REACHED_S):
        while True:
            done = await INSTALL.kubectl(
                "exec", "deploy/virt-controller", "--",
                "python", "-m", "podvisor_controller.handlers",
                check=False,
            )  # fmt: skip
            if done.exit_code == 0:
                return done.stdout


async def test_controllers_reach_every_node_as_itself() -> None:
    """Over the pods' network, with the certificates of the day."""
    said = await reached()
    nodes = {pod["spec"]["nodeName"] for pod in await running_pods("virt-handler")}
    answers = dict(line.split(", ")[0].split(": ") for line in said.splitlines())
    assert answers == {node: node for node in nodes}


async def test_without_a_certificate_there_is_nothing() -> None:
    """The handler proves who it is, for its own node alone; to whoever does not, it says nothing more."""
    await reached()
    pod = (await running_pods("virt-handler"))[0]
    name, node = pod["metadata"]["name"], pod["spec"]["nodeName"]
    bundle = await authorities()
    async with forwarded(INSTALL, name, RPC_PORT) as port:
        async with tls_channel(
            f"127.0.0.1:{port}", server_name=handler_of(node), authorities=bundle
        ) as channel:
            stub = handler_pb2_grpc.HandlerServiceStub(channel)
            with pytest.raises(Unavailable):
                await call(stub.GetNodeInfo, handler_pb2.GetNodeInfoRequest(), timeout_s=10)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as plain:
            stub = handler_pb2_grpc.HandlerServiceStub(plain)
            with pytest.raises(Unavailable):
                await call(stub.GetNodeInfo, handler_pb2.GetNodeInfoRequest(), timeout_s=10)
        with pytest.raises(ssl.SSLCertVerificationError):
            await shake_hands(port, bundle, handler_of(f"not-{node}"))
        await shake_hands(port, bundle, handler_of(node))


async def shake_hands(port: int, bundle: bytes, name: str) -> None:
    """As a client without a certificate. Raises ssl.SSLCertVerificationError unless the other side has that name."""
    trust = ssl.create_default_context(cadata=bundle.decode())
    trust.set_alpn_protocols(["h2"])
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=trust, server_hostname=name
    )
    try:
        # With TLS 1.3 a client learns afterwards only that it was to show a certificate.
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
    finally:
        writer.transport.abort()


@pytest.mark.parametrize(
    ("account", "audience", "error", "reason"),
    [
        ("virt-handler", "", Unauthenticated, "TokenRefused"),
        ("virt-controller", AUDIENCE, PermissionDenied, "NotAHandler"),
        ("virt-handler", AUDIENCE, PermissionDenied, "NotBoundToANode"),
    ],
    ids=["for the API server", "of another account", "of no node"],
)
async def test_tokens_that_are_no_handlers(
    account: str, audience: str, error: type[RpcError], reason: str
) -> None:
    """Every controller refuses them, and writes down none."""
    wanted = [f"--audience={audience}"] if audience else []
    token = (await INSTALL.kubectl("create", "token", account, *wanted)).stdout.strip()
    for pod in await running_pods("virt-controller"):
        name = pod["metadata"]["name"]
        async with (
            forwarded(INSTALL, name, IDENTITY_PORT) as port,
            tls_channel(
                f"127.0.0.1:{port}", server_name=CONTROLLER_NAME, authorities=await authorities()
            ) as channel,
        ):
            with pytest.raises(error) as refused:
                await call(
                    identity_pb2_grpc.IdentityServiceStub(channel).IssueCertificate,
                    identity_pb2.IssueCertificateRequest(certificate_request=ASKED.request),
                    timeout_s=15,
                    metadata=[("authorization", f"Bearer {token}")],
                )
        assert refused.value.reason == reason
        log = await INSTALL.kubectl("logs", name, "--since=2m")
        assert token not in log.stdout
