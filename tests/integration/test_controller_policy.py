"""The chart's admission policies on the development cluster: of a node the controller writes one label, of a launcher pod one
annotation and one condition, and what it makes in anybody's namespace is for exports and restores.

Skipped when podvisor is not installed there. Asks as the controller by impersonation; what is let through is a dry run.
"""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from podvisor_common.api.snapshot import names

from tests.support.cluster import ROOT, Cluster
from tests.support.machine import condition
from tests.support.process import run

ACCOUNT = "system:serviceaccount:kubevirt:virt-controller"

pytestmark = [
    pytest.mark.skipif(
        not (ROOT / ".dev/kubeconfig").exists(), reason="the development cluster is not up"
    ),
    pytest.mark.timeout(60),
]


@pytest.fixture(autouse=True)
async def installed() -> None:
    done = await Cluster("default").kubectl(
        "get", "validatingadmissionpolicy", "virt-controller", check=False
    )
    if done.exit_code != 0:
        pytest.skip(f"podvisor is not installed on the development cluster: {done.stderr}")


async def patch_node(body: Any) -> tuple[bool, str]:
    """Whether the controller may, and the API server's words if not."""
    done = await run(
        str(ROOT / "dev/kubectl"), "patch", "node", "node1", "--as", ACCOUNT, "--dry-run=server",
        "--type=merge", "-p", json.dumps(body), check=False,
    )  # fmt: skip
    return done.exit_code == 0, done.stderr


async def make_secret(owners: list[Any], type_: str = "Opaque") -> tuple[bool, str]:
    """Whether the controller may make a Secret in somebody else's namespace, and the API server's words if not."""
    metadata = {"name": "policy-test", "namespace": "default", "ownerReferences": owners}
    body = {
        "apiVersion": "v1",
        "kind": "Secret",
        # Without the annotation a Secret of that type is refused before any policy is asked.
        "metadata": metadata | {"annotations": {"kubernetes.io/service-account.name": "default"}},
        "type": type_,
        "data": {"tls.crt": "", "tls.key": ""},
    }
    return await make(body)


async def make(body: Any) -> tuple[bool, str]:
    """Whether the controller may make that, and the API server's words if not; what it warns of is left out."""
    done = await run(
        str(ROOT / "dev/kubectl"), "create", "--as", ACCOUNT, "--dry-run=server", "-f", "-",
        stdin=json.dumps(body), check=False,
    )  # fmt: skip
    told = [line for line in done.stderr.splitlines() if not line.startswith("Warning: ")]
    return done.exit_code == 0, "\n".join(told)


def claim_body(**metadata: Any) -> Any:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "policy-test", "namespace": "default"} | metadata,
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Mi"}},
            "storageClassName": "",
        },
    }


async def make_service(owners: list[Any]) -> tuple[bool, str]:
    """Whether the controller may make a Service, and the API server's words if not."""
    metadata = {"name": "policy-test", "namespace": "default", "ownerReferences": owners}
    spec = {"ports": [{"protocol": "TCP", "port": 443}], "selector": {"x.test/y": "z"}}
    return await make({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})


OF_EXPORT = {
    "apiVersion": "export.kubevirt.io/v1",
    "kind": "VirtualMachineExport",
    "name": "copy",
    "uid": "1",
}
OF_POD = {"apiVersion": "v1", "kind": "Pod", "name": "virt-export-copy", "uid": "2"}


async def test_it_makes_the_secrets_of_exports() -> None:
    assert await make_secret([OF_EXPORT]) == (True, "")
    assert await make_secret([OF_POD], "kubernetes.io/tls") == (True, "")


@pytest.mark.parametrize(
    ("owners", "type_"),
    [
        pytest.param([], "Opaque", id="nobody's"),
        pytest.param([OF_POD | {"kind": "Node"}], "Opaque", id="somebody else's"),
        pytest.param([OF_EXPORT], "kubernetes.io/service-account-token", id="an identity"),
    ],
)
async def test_it_makes_no_other_secret(owners: list[Any], type_: str) -> None:
    is_let, said = await make_secret(owners, type_)
    assert not is_let
    assert "virt-controller-secrets" in said


MARK = {names.RESTORE_NAME_ANNOTATION: "back"}


@pytest.mark.parametrize(
    "metadata",
    [
        pytest.param({"annotations": MARK}, id="a restore's"),
        pytest.param({"ownerReferences": [OF_EXPORT]}, id="an export's"),
    ],
)
async def test_it_makes_claims_for_restores_and_exports(metadata: Any) -> None:
    assert await make(claim_body(**metadata)) == (True, "")


@pytest.mark.parametrize(
    "metadata",
    [
        pytest.param({}, id="nobody's"),
        pytest.param({"annotations": {"x.test/y": "z"}}, id="not marked"),
        pytest.param({"ownerReferences": [OF_POD]}, id="somebody else's"),
        pytest.param({"ownerReferences": [OF_EXPORT, OF_POD]}, id="not an export's alone"),
        pytest.param(
            {"ownerReferences": [OF_EXPORT | {"apiVersion": "x.test/v1"}]}, id="of the same name"
        ),
    ],
)
async def test_it_makes_no_other_claim(metadata: Any) -> None:
    is_let, said = await make(claim_body(**metadata))
    assert not is_let
    assert "virt-controller-claims" in said


@pytest.fixture
async def claim() -> AsyncIterator[str]:
    """A claim that a user has made; nothing ever provisions it."""
    cluster = Cluster("default")
    await cluster.kubectl("apply", "-f", "-", stdin=json.dumps(claim_body(name="policy-claim")))
    yield "policy-claim"
    await cluster.kubectl("delete", "pvc", "policy-claim", "--wait=false")


async def test_it_marks_no_claim_of_a_users(claim: str) -> None:
    done = await run(
        str(ROOT / "dev/kubectl"), "patch", "pvc", claim, "-n", "default", "--as", ACCOUNT, "--dry-run=server",
        "--type=merge", "-p", json.dumps({"metadata": {"annotations": MARK}}), check=False,
    )  # fmt: skip
    assert done.exit_code != 0
    assert "virt-controller-claims" in done.stderr


async def test_it_makes_services_for_exports_only() -> None:
    assert await make_service([OF_EXPORT]) == (True, "")
    for owners in ([], [OF_POD], [OF_EXPORT, OF_POD]):
        is_let, said = await make_service(owners)
        assert not is_let
        assert "virt-controller-services" in said


async def test_it_takes_a_node_out_of_scheduling() -> None:
    label = {"kubevirt.io/schedulable": "false"}
    assert await patch_node({"metadata": {"labels": label}}) == (True, "")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"spec": {"unschedulable": True}}, id="specification"),
        pytest.param({"metadata": {"finalizers": ["x.test/y"]}}, id="finalizers"),
        pytest.param({"metadata": {"labels": {"x.test/role": ""}}}, id="a foreign label"),
        pytest.param({"metadata": {"labels": {"kubernetes.io/hostname": None}}}, id="taking one"),
        pytest.param({"metadata": {"annotations": {"kubevirt.io/heartbeat": "z"}}}, id="heartbeat"),
    ],
)
async def test_of_a_node_it_writes_nothing_else(body: Any) -> None:
    is_let, said = await patch_node(body)
    assert not is_let
    assert "virt-controller" in said
    assert "the controller writes" in said


NETWORKS = {"k8s.v1.cni.cncf.io/networks": "[]"}


@pytest.fixture
async def pods() -> AsyncIterator[None]:
    """The pods `policy-launcher` and `policy-other`, which fit no node; the first has a launcher pod's mark."""
    cluster = Cluster("default")
    for name, app in (("policy-launcher", "virt-launcher"), ("policy-other", "other")):
        spec = {"containers": [{"name": "a", "image": "a"}], "nodeSelector": {"x.test/y": "z"}}
        metadata = {"name": name, "labels": {"kubevirt.io": app}}
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
        await cluster.kubectl("apply", "-f", "-", stdin=json.dumps(body))
        await cluster.until(
            "pod",
            name,
            lambda pod: condition(pod, "PodScheduled").get("status") == "False",
            within_s=30,
            what="the scheduler has looked at it",
        )
    yield
    await cluster.kubectl("delete", "pod", "policy-launcher", "policy-other", "--wait=false")


async def patch_pod(name: str, body: Any, *options: str) -> tuple[bool, str]:
    """Whether the controller may, and the API server's words if not."""
    done = await run(
        str(ROOT / "dev/kubectl"), "patch", "pod", name, "-n", "default", "--as", ACCOUNT, "--dry-run=server",
        "--type=merge", "-p", json.dumps(body), *options, check=False,
    )  # fmt: skip
    return done.exit_code == 0, done.stderr


async def test_of_a_launcher_pod_it_writes_the_networks_only(pods: None) -> None:
    metadata: dict[str, Any] = {"annotations": NETWORKS}
    assert await patch_pod("policy-launcher", {"metadata": metadata}) == (True, "")
    for name, body in (
        ("policy-other", {"metadata": metadata}),
        ("policy-launcher", {"metadata": metadata | {"labels": {"x.test/y": "z"}}}),
        ("policy-launcher", {"metadata": {"annotations": NETWORKS | {"x.test/y": "z"}}}),
        ("policy-launcher", {"metadata": {"finalizers": ["x.test/y"]}}),
        ("policy-launcher", {"spec": {"activeDeadlineSeconds": 1}}),
    ):
        is_let, said = await patch_pod(name, body)
        assert not is_let, body
        assert "virt-controller-pods" in said


async def test_of_its_status_it_writes_one_condition_only(pods: None) -> None:
    gate = {"type": "kubevirt.io/virtual-machine-unpaused", "status": "True"}
    # kubectl reads what it patches, which the controller's own rights do not have it do.
    whole = ("--subresource=status", "--as-group=system:masters")
    # As a strategic merge, which like an apply leaves the other conditions.
    beside = (*whole, "--type=strategic")

    async def may(body: Any, *options: str, name: str = "policy-launcher") -> bool:
        is_let, said = await patch_pod(name, body, *options)
        assert is_let or "virt-controller-pods" in said
        return is_let

    conditions = {"status": {"conditions": [gate]}}
    assert await may(conditions, *beside)
    assert not await may(conditions, *beside, name="policy-other")
    assert not await may(conditions, *whole), "the scheduler's is gone by that"
    for status in (
        {"conditions": [gate, gate | {"type": "Ready"}]},
        {"conditions": [gate], "phase": "Running"},
        {"conditions": [gate], "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}]},
        {"reason": "Evicted"},
    ):
        assert not await may({"status": status}, *beside), status
    for metadata in ({"labels": {"x.test/y": "z"}}, {"annotations": NETWORKS}):
        assert not await may(conditions | {"metadata": metadata}, *beside), metadata


async def test_no_pod_is_made_by_its_condition() -> None:
    """As the unit tests' API server has it. What is applied to a pod that has gone makes none."""
    manifest = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "policy-gone", "namespace": "default"},
        "status": {"conditions": []},
    }
    done = await run(
        str(ROOT / "dev/kubectl"), "apply", "--server-side", "--subresource=status", "-f", "-",
        stdin=json.dumps(manifest), check=False,
    )  # fmt: skip
    assert done.exit_code != 0
    assert "NotFound" in done.stderr
