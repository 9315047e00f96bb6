"""Every test gets a namespace of its own on the one cluster; at the end of the run all of them must have gone."""

import asyncio
import os
import re
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.support.cluster import Cluster, create_namespace
from tests.support.machine import DEMO_KEY
from tests.support.networks import has_multus, put_multus_into_cluster, take_multus_away
from tests.support.settings import Configure, configuring
from tests.support.storage import put_driver_into_cluster

# Namespaces of an earlier run may still be going away.
_RUN = f"{os.getpid() % 4096:03x}"
_made: list[str] = []


@pytest.fixture
async def cluster(request: pytest.FixtureRequest) -> AsyncIterator[Cluster]:
    """A namespace named after the test. Its removal is started when the test ends and proven when the run ends."""
    stem = (
        re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower())
        .strip("-")[:40]
        .strip("-")
    )
    namespace = await create_namespace(f"t{_RUN}-{len(_made)}-{stem}")
    _made.append(namespace.namespace)
    yield namespace
    await namespace.kubectl("delete", "namespace", namespace.namespace, "--wait=false")


@pytest.fixture(scope="session", autouse=True)
def namespaces_go_away() -> Iterator[None]:
    """No namespace of a test may hang: whatever a test left in it, podvisor lets it be deleted."""
    yield

    async def wait() -> None:
        for name in _made:
            await Cluster("default").until(
                "namespace",
                name,
                lambda state: state is None,
                within_s=90,
                what="the namespace is deleted",
            )

    asyncio.run(wait())


@pytest.fixture(scope="session")
def storage_classes() -> None:
    """Claims of the CSI driver's classes are served."""
    asyncio.run(put_driver_into_cluster())


@pytest.fixture(scope="session")
def multus() -> Iterator[None]:
    """Pods get the networks of Multus that they ask for. Where it was not there before, it is not there afterwards."""
    was_there = asyncio.run(has_multus())
    asyncio.run(put_multus_into_cluster())
    yield
    if not was_there:
        asyncio.run(take_multus_away())


@pytest.fixture
async def configure() -> AsyncIterator[Configure]:
    """Merges into the settings of the cluster until the test ends. For tests that are marked `alone`."""
    async with configuring() as merge:
        yield merge


@pytest.fixture
async def tools_pod(cluster: Cluster) -> str:
    """A pod with ssh and friends in the test's namespace, the demo key under /key."""
    key = DEMO_KEY.read_text()
    await cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "demo-key"},
            "stringData": {"demo_key": key},
        }
    )
    await cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "tools"},
            "spec": {
                "terminationGracePeriodSeconds": 0,
                "containers": [
                    {
                        "name": "tools",
                        "image": "podvisor-dev/toolbox:latest",
                        "command": ["sleep", "infinity"],
                        "volumeMounts": [{"name": "key", "mountPath": "/key"}],
                    }
                ],
                "volumes": [
                    {"name": "key", "secret": {"secretName": "demo-key", "defaultMode": 0o400}}
                ],
            },
        }
    )
    await cluster.kubectl(
        "wait", "pod/tools", "--for=condition=Ready", "--timeout=60s", timeout_s=70
    )
    return "tools"
