"""The chart's admission policy on the development cluster: what a handler's token of one node may write.

Skipped when podvisor is not installed there. Asks as the handler by impersonation; what is let through is a dry run or an
event in a namespace of its own.
"""

import json
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from podvisor_common.kube import transport
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.errors import ApiError
from podvisor_common.kube.resources import (
    EVENTS,
    NAMESPACES,
    NODES,
    VIRTUAL_MACHINE_INSTANCES,
    ObjectKey,
    Resource,
)

KUBECONFIG = Path(__file__).parents[2] / ".dev" / "kubeconfig"
POLICY = Resource(
    "admissionregistration.k8s.io",
    "v1",
    "validatingadmissionpolicies",
    "ValidatingAdmissionPolicy",
    namespaced=False,
)
NODE = "node1"
ACCOUNT = "system:serviceaccount:kubevirt:virt-handler"
MERGE_PATCH = "application/merge-patch+json"
HEARTBEAT = {"metadata": {"annotations": {"kubevirt.io/heartbeat": "now"}}}

pytestmark = [
    pytest.mark.skipif(not KUBECONFIG.exists(), reason="the development cluster is not up"),
    pytest.mark.timeout(60),
]


class Handler:
    """A handler's token as the API server sees it, bound to a node and a pod there."""

    def __init__(self, session: aiohttp.ClientSession, host: str, node: str) -> None:
        self._session = session
        self._host = host
        self.instance = f"virt-handler-{node}"
        self._headers = {"Impersonate-User": ACCOUNT, "Impersonate-Group": "system:authenticated"}
        if node:
            extra = "Impersonate-Extra-Authentication.kubernetes.io%2f"
            self._headers |= {f"{extra}node-name": node, f"{extra}pod-name": self.instance}

    async def write(self, method: str, path: str, body: Any) -> tuple[bool, str]:
        """Whether the write was let through, and the API server's words if not."""
        headers = {
            **self._headers,
            "Content-Type": MERGE_PATCH if method == "PATCH" else "application/json",
        }
        async with self._session.request(
            method, self._host + path, data=json.dumps(body), headers=headers
        ) as answer:
            said = await answer.json()
            return answer.status < 300, said.get("message", "")

    async def patch_node(self, body: Any) -> tuple[bool, str]:
        return await self.write("PATCH", f"{NODES.path(None, NODE)}?dryRun=All", body)


@pytest.fixture
async def client(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[KubeClient]:
    monkeypatch.setenv("KUBECONFIG", str(KUBECONFIG))
    async with await KubeClient.from_environment(user_agent="podvisor-test") as client:
        try:
            await client.get(POLICY, ObjectKey("", "virt-handler"), timeout_s=5)
        except ApiError as error:
            pytest.skip(f"podvisor is not installed on the development cluster: {error}")
        yield client


@pytest.fixture
async def session(client: KubeClient) -> AsyncIterator[tuple[aiohttp.ClientSession, str]]:
    configuration = await transport.configuration_from_environment()
    async with transport.open_session(configuration) as session:
        yield session, configuration.host


@pytest.fixture
def ours(session: tuple[aiohttp.ClientSession, str]) -> Handler:
    return Handler(*session, NODE)


@pytest.fixture
def other(session: tuple[aiohttp.ClientSession, str]) -> Handler:
    return Handler(*session, "elsewhere")


@pytest.fixture
async def namespace(client: KubeClient) -> AsyncIterator[str]:
    name = f"policy-test-{secrets.token_hex(3)}"
    await client.create(NAMESPACES, None, {"metadata": {"name": name}})
    yield name
    await client.delete(NAMESPACES, ObjectKey("", name))


async def test_a_node_is_written_by_its_own_handler_only(
    session: tuple[aiohttp.ClientSession, str], ours: Handler, other: Handler
) -> None:
    assert await ours.patch_node(HEARTBEAT) == (True, "")
    is_let, said = await other.patch_node(HEARTBEAT)
    assert not is_let
    assert "its own node only" in said
    is_let, said = await Handler(*session, "").patch_node(HEARTBEAT)
    assert not is_let
    assert "not bound to a node" in said


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"spec": {"unschedulable": True}}, id="specification"),
        pytest.param({"metadata": {"finalizers": ["x.test/y"]}}, id="finalizers"),
        pytest.param({"metadata": {"labels": {"x.test/role": ""}}}, id="a foreign label"),
        pytest.param({"metadata": {"labels": {"kubernetes.io/hostname": None}}}, id="taking one"),
        pytest.param({"metadata": {"annotations": {"x.test/y": "z"}}}, id="a foreign annotation"),
    ],
)
async def test_of_its_node_a_handler_writes_its_labels_and_heartbeat_only(
    ours: Handler, body: Any
) -> None:
    is_let, said = await ours.patch_node(body)
    assert not is_let
    assert "virt-handler" in said


async def test_an_event_stays_with_the_handler_that_reported_it(
    ours: Handler, other: Handler, namespace: str
) -> None:
    event = {
        "metadata": {"name": "one", "namespace": namespace},
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "type": "Normal",
        "reason": "Started",
        "action": "Reconcile",
        "regarding": {"kind": "Pod", "namespace": namespace, "name": "x"},
        "reportingController": "virt-handler",
        "reportingInstance": ours.instance,
    }
    collection = EVENTS.path(namespace)
    assert not (await other.write("POST", collection, event))[0]
    assert await ours.write("POST", collection, event) == (True, "")
    series = {"series": {"count": 9, "lastObservedTime": "2026-01-01T00:00:01.000000Z"}}
    is_let, said = await other.write("PATCH", f"{collection}/one", series)
    assert not is_let
    assert "in its own name only" in said
    # The older group's events are the same objects, and there all fields may change.
    stolen = {"reportingInstance": other.instance, "message": "a lie"}
    older = f"/api/v1/namespaces/{namespace}/events/one"
    assert not (await other.write("PATCH", older, stolen))[0]
    assert await ours.write("PATCH", f"{collection}/one", series) == (True, "")


async def test_an_instance_of_no_node_or_another_is_not_written(
    client: KubeClient, other: Handler, namespace: str
) -> None:
    # Asks for a node that there is not, so that nothing is started.
    instance = {
        "metadata": {"name": "one", "namespace": namespace},
        "spec": {
            "nodeSelector": {"x.test/none": ""},
            "domain": {"resources": {"requests": {"memory": "64M"}}, "devices": {}},
        },
    }
    body = {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", **instance}
    await client.create(VIRTUAL_MACHINE_INSTANCES, namespace, body)
    path = VIRTUAL_MACHINE_INSTANCES.path(namespace, "one", "status")
    for status in ({"phase": "Failed"}, {"nodeName": "elsewhere"}):
        is_let, said = await other.write("PATCH", f"{path}?dryRun=All", {"status": status})
        assert not is_let
        assert "its own node only" in said
    assert not (await other.write("PATCH", path.removesuffix("/status"), HEARTBEAT))[0]
