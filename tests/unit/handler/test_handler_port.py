"""The handler's port for controllers, of a whole handler: it opens when there is a certificate, and nothing else waits for that."""

import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from podvisor.handler.v1 import handler_pb2, handler_pb2_grpc
from podvisor_common.kube.resources import CONFIGMAPS
from podvisor_common.rpc.client import call, unix_channel
from podvisor_common.rpc.tcp import tls_channel
from podvisor_common.tls.identities import handler_of
from podvisor_controller.handlers.credentials import ControllerCredentials

from tests.unit.edge.handler_identities import LIFE, controllers
from tests.unit.handler.fake_launcher import needs_root
from tests.unit.handler.world import World, handler, world_in

pytestmark = needs_root
ASKED = handler_pb2.GetNodeInfoRequest()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with world_in(tmp_path) as it:
        yield it


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def ask_on_socket(world: World) -> str:
    async with unix_channel(str(world.run / "handler.sock")) as channel:
        stub = handler_pb2_grpc.HandlerServiceStub(channel)
        return (await call(stub.GetNodeInfo, ASKED, timeout_s=10, wait_for_ready=True)).node_name


async def test_the_port_opens_when_a_controller_is_there(world: World, tmp_path: Path) -> None:
    port = free_port()
    async with controllers() as made:
        made.server.tokens["of node1"] = made.server.tokens.popitem()[1]
        extra = made.server.tokens["of node1"]["user"]["extra"]
        extra["authentication.kubernetes.io/node-name"] = ["node1"]
        made.port = free_port()
        token = tmp_path / "token"
        token.write_text("of node1")
        serving = handler(
            world,
            rpc_port=port,
            identity_token=token,
            identity_address=f"127.0.0.1:{made.port}",
        )
        credentials = ControllerCredentials(lambda: made.certificates.published, life=LIFE)
        async with serving:
            assert await ask_on_socket(world) == "node1"
            with pytest.raises(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=1)
            async with made.issuing():
                world.server.put(CONFIGMAPS, made.told())
                shown = credentials.current()
                async with tls_channel(
                    f"127.0.0.1:{port}",
                    server_name=handler_of("node1"),
                    authorities=shown.authorities or b"",
                    pair=shown.pair,
                ) as channel:
                    node = handler_pb2_grpc.HandlerServiceStub(channel)
                    info = await call(node.GetNodeInfo, ASKED, timeout_s=10, wait_for_ready=True)
                assert info.node_name == "node1"
