"""Two controllers, one leader: who dies is replaced, and nothing that a user does is lost meanwhile."""

import asyncio

import pytest

from tests.support.cluster import Cluster, Json
from tests.support.machine import Machine, vm

pytestmark = pytest.mark.alone

KUBEVIRT = Cluster("kubevirt")
CONTROLLERS = "app.kubernetes.io/component=virt-controller"


async def _leader() -> str:
    lease = await KUBEVIRT.get("lease", "virt-controller")
    assert lease is not None
    holder: str = lease["spec"]["holderIdentity"]
    return holder


async def test_one_of_two_leads(cluster: Cluster) -> None:
    """Both replicas are ready, and the lease names one of them."""
    pods = {pod["metadata"]["name"]: pod for pod in await KUBEVIRT.all("pods", labels=CONTROLLERS)}
    ready = [
        name
        for name, pod in pods.items()
        if any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"]["conditions"])
    ]
    assert len(ready) == 2
    assert await _leader() in ready


async def test_another_leads_when_the_leader_goes(cluster: Cluster) -> None:
    """The leader's pod is deleted while machines are being made: all of them come up, each exactly once."""
    leader = await _leader()
    names = ["one", "two", "three"]
    manifests = [vm(name) for name in names]
    deletion = asyncio.create_task(
        KUBEVIRT.kubectl("delete", "pod", leader, "--wait=false"), name="delete the leader"
    )
    for manifest in manifests:
        await cluster.apply(manifest)
    await deletion
    for name in names:
        await Machine(cluster, name).running(within_s=60)
    assert await _leader() != leader
    owners = [
        pod["metadata"]["labels"]["vmi.kubevirt.io/id"]
        for pod in await cluster.all("pods", labels="kubevirt.io=virt-launcher")
    ]
    assert sorted(owners) == sorted(names)


async def test_deleted_before_it_began(cluster: Cluster) -> None:
    """A machine that no node can run is deleted at once, and says before why it does not run."""
    manifest = vm("nowhere", nodeSelector={"no-such-label": "true"})
    await cluster.apply(manifest)

    def unschedulable(state: Json | None) -> bool:
        status = (state or {}).get("status", {})
        return bool(status.get("printableStatus") == "ErrorUnschedulable")

    await cluster.until("vm", "nowhere", unschedulable, within_s=15, what="ErrorUnschedulable")
    described = (await cluster.kubectl("describe", "vm", "nowhere")).stdout
    assert "node(s) didn't match" in described
    await cluster.kubectl("delete", "vm", "nowhere", "--timeout=10s")
    assert await cluster.all("pods") == []
