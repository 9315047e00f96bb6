"""Where the API server is, and how a client authenticates there."""

import inspect
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from podvisor_common.kube import transport
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.errors import ApiUnavailable
from podvisor_common.kube.leader import LeaderElection
from podvisor_common.kube.resources import PODS

from tests.unit.kube.fake_apiserver import FakeApiServer


def kubeconfig(directory: Path, url: str, user: dict[str, str]) -> str:
    path = directory / "kubeconfig"
    content = {
        "current-context": "test",
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "clusters": [{"name": "test", "cluster": {"server": url}}],
        "users": [{"name": "test", "user": user}],
    }
    path.write_text(json.dumps(content))
    return str(path)


@asynccontextmanager
async def connection_to(server: FakeApiServer) -> AsyncIterator[socket.socket]:
    async with (
        transport.open_session(transport.configuration_for(server.url)) as session,
        session.get(f"{server.url}{PODS.path()}?watch=1&resourceVersion=1") as response,
    ):
        assert response.connection is not None
        assert response.connection.transport is not None
        yield response.connection.transport.get_extra_info("socket")


async def test_what_nobody_acknowledges_is_given_up(server: FakeApiServer) -> None:
    """With time to spare between a leader's last write and the next leader's first."""
    async with connection_to(server) as connection:
        given_up_ms = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
    election = inspect.signature(LeaderElection).parameters
    work_ends_s = election["renew_deadline_s"].default + election["cancel_within_s"].default
    assert 0 < work_ends_s + given_up_ms / 1000 < election["lease_s"].default


async def test_an_idle_connection_that_the_other_end_has_lost_is_noticed(
    server: FakeApiServer,
) -> None:
    """With TCP_USER_TIMEOUT set, the first probe that is not acknowledged until the next one is due ends the connection."""
    async with connection_to(server) as connection:
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL)
        assert sum(connection.getsockopt(socket.IPPROTO_TCP, option) for option in options) == 20


async def test_token_of_a_kubeconfig_is_read_again(
    server: FakeApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    token.write_text("first")
    config = kubeconfig(tmp_path, server.url, {"tokenFile": str(token)})
    monkeypatch.setenv("KUBECONFIG", config)
    async with await KubeClient.from_environment(user_agent="test") as client:
        await client.list_page(PODS)
        token.write_text("second")
        await client.list_page(PODS)
        monkeypatch.setattr(transport, "TOKEN_RENEWAL_S", 0.0)
        await client.list_page(PODS)
    tokens = [request.headers["Authorization"] for request in server.requests]
    assert tokens == ["Bearer first", "Bearer first", "Bearer second"]


async def test_lost_token_is_unavailable_until_it_is_back(
    server: FakeApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    token.write_text("first")
    config = kubeconfig(tmp_path, server.url, {"tokenFile": str(token)})
    monkeypatch.setenv("KUBECONFIG", config)
    monkeypatch.setattr(transport, "TOKEN_RENEWAL_S", 0.0)
    async with await KubeClient.from_environment(user_agent="test") as client:
        token.rename(tmp_path / "away")
        with pytest.raises(ApiUnavailable):
            await client.list_page(PODS)
        (tmp_path / "away").rename(token)
        await client.list_page(PODS)


async def test_without_any_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(transport.ConfigurationMissing):
        await KubeClient.from_environment(user_agent="test")


async def test_proxy_of_the_environment_is_bypassed_where_it_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.test:3128")
    monkeypatch.setenv("no_proxy", "10.96.0.1")
    assert transport._proxy_from_environment("https://api.test:6443") == "http://proxy.test:3128"
    assert transport._proxy_from_environment("https://10.96.0.1:443") is None
