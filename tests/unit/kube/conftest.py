"""Fixtures: a fake API server and a client for it."""

from collections.abc import AsyncIterator

import pytest
from podvisor_common.kube.client import KubeClient

from tests.unit.kube.fake_apiserver import FakeApiServer


@pytest.fixture
async def server() -> AsyncIterator[FakeApiServer]:
    async with FakeApiServer() as server:
        yield server


@pytest.fixture
async def client(server: FakeApiServer) -> AsyncIterator[KubeClient]:
    async with KubeClient.for_url(server.url, user_agent="podvisor-test") as client:
        yield client
