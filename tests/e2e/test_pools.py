"""Pools of machines: names in order, updates that leave the others serving, and what happens to both when a leader is killed."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from podvisor_common.api import v1
from podvisor_common.api.meta import find_condition
from podvisor_common.kube.client import KubeClient

from tests.faults.audit import controller_writes, made
from tests.faults.replicas import all_are_ready, leader, process_of
from tests.perf.measure import audit_mark
from tests.support.cluster import ROOT, Cluster, Json, on_node
from tests.support.machine import Machine, vmi_spec
from tests.support.storm import Scene, watching

NAME = "web"
LABELS = {"app": NAME}
LAST_FIRST = {"proactive": {"selectionPolicy": {"sortPolicy": "DescendingOrder"}}}
# A killed leader's container is started again by the kubelet, or its lease runs out.
BLOW_S = 40.0


def template(memory: str = "64M", **machine: Any) -> Json:
    """What the pool's machines are made from."""
    domain = vmi_spec(NAME)["domain"] | {"resources": {"requests": {"memory": memory}}}
    spec = {"runStrategy": "Always", "template": {"spec": vmi_spec(NAME, domain=domain)}}
    return {"metadata": {"labels": LABELS}, "spec": spec | machine}


def pool(replicas: int, /, **spec: Any) -> Json:
    """A pool of small machines."""
    return {
        "apiVersion": "pool.kubevirt.io/v1beta1",
        "kind": "VirtualMachinePool",
        "metadata": {"name": NAME},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": LABELS},
            "virtualMachineTemplate": template(),
        }
        | spec,
    }


async def change(cluster: Cluster, **spec: Any) -> None:
    """As a user edits the pool."""
    await cluster.kubectl("patch", "vmpool", NAME, "--type=merge", "-p", json.dumps({"spec": spec}))


async def until_pool(
    cluster: Cluster,
    holds: Callable[[Json], bool],
    *,
    within_s: float,
    what: str,
    name: str = NAME,
) -> Json:
    """Wait for what the status of the pool says."""

    def of_status(state: Json | None) -> bool:
        return state is not None and holds(state.get("status", {}))

    state = await cluster.until("vmpool", name, of_status, within_s=within_s, what=what)
    status: Json = (state or {})["status"]
    return status


async def ready(
    cluster: Cluster, count: int, *, within_s: float = 60, name: str = NAME
) -> list[str]:
    """Wait until the pool has so many and all are ready; their names."""

    def holds(status: Json) -> bool:
        return (status.get("replicas"), status.get("readyReplicas")) == (count, count)

    await until_pool(cluster, holds, within_s=within_s, what=f"{count} are ready", name=name)
    return sorted(vm["metadata"]["name"] for vm in await cluster.all("vm"))


async def kill_leader() -> None:
    """kill -9 of whoever leads."""
    await on_node("kill", "-9", str(await process_of(await leader())))


def condition(status: Json, type_: str) -> Json:
    found: Json = next((c for c in status.get("conditions", []) if c["type"] == type_), {})
    return found


def serves(vmi: v1.VirtualMachineInstance | None) -> bool:
    """The guest runs, and is not on its way out."""
    if vmi is None or vmi.metadata.is_being_deleted:
        return False
    condition = find_condition(vmi.status.conditions, "Ready")
    return condition is not None and condition.is_true


def memory_of(vmi: v1.VirtualMachineInstance | None) -> str:
    """What the guest's machine asked for when it was started."""
    resources = vmi.spec.domain.resources if vmi is not None else None
    return str(((resources.requests if resources else None) or {}).get("memory", ""))


@asynccontextmanager
async def watched(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, *, patience_s: float
) -> AsyncIterator[Scene]:
    """The namespace as watches tell of it."""
    monkeypatch.setenv("KUBECONFIG", str(ROOT / ".dev/kubeconfig"))
    async with (
        await KubeClient.from_environment(user_agent="podvisor-pools") as client,
        watching(client, cluster.namespace, patience_s=patience_s) as scene,
    ):
        yield scene


async def test_machines_are_made_in_order_and_go_from_the_last(cluster: Cluster) -> None:
    """0 → 3 → 1 by kubectl scale, and what kubectl shows of it."""
    await cluster.apply(pool(0, scaleInStrategy=LAST_FIRST))
    await cluster.kubectl("scale", "vmpool", NAME, "--replicas=3")
    assert await ready(cluster, 3) == ["web-0", "web-1", "web-2"]
    shown = (await cluster.kubectl("get", "vmpools", NAME)).stdout.split()
    assert shown[:4] == ["NAME", "DESIRED", "CURRENT", "READY"]
    assert shown[5:9] == [NAME, "3", "3", "3"]
    path = (
        f"/apis/pool.kubevirt.io/v1beta1/namespaces/{cluster.namespace}"
        f"/virtualmachinepools/{NAME}/scale"
    )
    read = json.loads((await cluster.kubectl("get", "--raw", path)).stdout)
    assert read["status"] == {"replicas": 3, "selector": "app=web"}
    await cluster.kubectl("scale", "vmpool", NAME, "--replicas=1")
    assert await ready(cluster, 1) == ["web-0"]
    # The older version is the same object.
    old = await cluster.get("virtualmachinepools.v1alpha1.pool.kubevirt.io", NAME)
    assert old is not None
    assert old["spec"]["replicas"] == 1


@pytest.mark.timeout(300)
@pytest.mark.alone
async def test_an_update_leaves_the_others_serving_whoever_leads(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new template for three machines, the leader killed in the middle: never are two guests missing, and all have it in the end."""
    await all_are_ready()
    await cluster.apply(pool(3, maxUnavailable=1))
    machines = await ready(cluster, 3)
    mark = audit_mark()
    async with watched(cluster, monkeypatch, patience_s=BLOW_S + 120) as scene:
        missing: list[int] = []
        scene.vmis.subscribe(
            lambda _, __, ___: missing.append(sum(not serves(scene.vmi(n)) for n in machines))
        )
        missing.clear()
        await change(cluster, virtualMachineTemplate=template("72M"))
        await scene.until(
            lambda: any(not serves(scene.vmi(name)) for name in machines),
            "the first is being restarted",
        )
        await kill_leader()

        def is_done() -> bool:
            guests = [scene.vmi(name) for name in machines]
            return all(serves(vmi) and memory_of(vmi) == "72M" for vmi in guests)

        await scene.until(is_done, "all serve, with the new template")
        assert max(missing) == 1
    await all_are_ready()
    assert await ready(cluster, 3) == machines
    created = made(controller_writes(mark), cluster.namespace, "virtualmachineinstances")
    assert dict(created) == dict.fromkeys(machines, 1)


async def test_an_opportunistic_update_waits_for_the_guest(cluster: Cluster) -> None:
    """The machine has the new template and says that it takes a restart; the guest runs on."""
    await cluster.apply(pool(1, updateStrategy={"opportunistic": {}}))
    await ready(cluster, 1)
    before = await cluster.get("vmi", "web-0")
    await change(cluster, virtualMachineTemplate=template("72M"))

    def says_so(state: Json | None) -> bool:
        return condition((state or {}).get("status", {}), "RestartRequired").get("status") == "True"

    await cluster.until("vm", "web-0", says_so, within_s=15, what="RestartRequired")
    after = await cluster.get("vmi", "web-0")
    assert before is not None
    assert after is not None
    assert after["metadata"]["uid"] == before["metadata"]["uid"]


async def test_a_paused_pool_does_nothing(cluster: Cluster) -> None:
    """Neither what is missing is made nor what is outdated changed, until the pool goes on."""
    await cluster.apply(pool(1))
    await ready(cluster, 1)
    await change(cluster, paused=True, replicas=2)
    await until_pool(
        cluster,
        lambda status: condition(status, "ReplicaPaused").get("status") == "True",
        within_s=10,
        what="ReplicaPaused",
    )
    assert len(await cluster.all("vm")) == 1
    await change(cluster, paused=False)
    assert await ready(cluster, 2) == ["web-0", "web-1"]
    reasons = [event["reason"] for event in await cluster.events()]
    assert reasons.count("SuccessfulPaused") == reasons.count("SuccessfulResume") == 1


async def test_orphans_are_adopted_by_the_next_pool(cluster: Cluster) -> None:
    """kubectl delete --cascade=orphan leaves the machines running, a new pool takes them over, and takes them along when it goes."""
    await cluster.apply(pool(2))
    await ready(cluster, 2)
    before = {vm["metadata"]["uid"] for vm in await cluster.all("vm")}
    await cluster.kubectl("delete", "vmpool", NAME, "--cascade=orphan")
    assert not any(vm["metadata"].get("ownerReferences") for vm in await cluster.all("vm"))
    await cluster.apply(pool(2))
    await ready(cluster, 2)
    assert {vm["metadata"]["uid"] for vm in await cluster.all("vm")} == before
    await cluster.kubectl("delete", "vmpool", NAME, "--cascade=foreground", "--timeout=60s")
    assert await cluster.all("vm") == []


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"selector": {"matchLabels": {"app": "db"}}}, "spec.selector"),
        ({"selector": {}}, "spec.selector"),
        ({"replicas": -1}, "spec.replicas"),
        ({"maxUnavailable": "0%"}, "spec.maxUnavailable"),
        (
            {"updateStrategy": {"opportunistic": {}, "unmanaged": {}}},
            "spec.updateStrategy",
        ),
        (
            {"scaleInStrategy": {"proactive": {"statePreservation": "Online"}}},
            "spec.scaleInStrategy.proactive.statePreservation",
        ),
        (
            {"virtualMachineTemplate": template("-1")},
            "spec.virtualMachineTemplate.spec.template.spec.domain.resources.requests.memory",
        ),
        (
            {"virtualMachineTemplate": template(runStrategy="Sometimes")},
            "spec.virtualMachineTemplate.spec.runStrategy",
        ),
    ],
    ids=[
        "selects-others",
        "selects-all",
        "fewer-than-none",
        "none-unavailable",
        "two-strategies",
        "keeps-memory",
        "bad-guest",
        "bad-machine",
    ],
)
async def test_a_bad_pool_is_refused_with_the_path(
    cluster: Cluster, spec: Json, field: str
) -> None:
    assert field in await cluster.refused(pool(1, **spec))
    assert await cluster.get("vmpool", NAME) is None


async def test_the_selector_cannot_be_changed(cluster: Cluster) -> None:
    await cluster.apply(pool(0))
    other = {"matchExpressions": [{"key": "app", "operator": "Exists"}]}
    assert "spec.selector is immutable" in await cluster.refused(pool(0, selector=other))


@pytest.mark.timeout(120)
async def test_the_example_boots(cluster: Cluster) -> None:
    """The example's three machines boot as they are written, and the key lets in."""
    await cluster.apply(ROOT / "examples/vm-pool.yaml")
    names = await ready(cluster, 3, name="vm-pool")
    assert names == ["vm-pool-0", "vm-pool-1", "vm-pool-2"]
    machines = [Machine(cluster, name) for name in names]
    await asyncio.gather(*(machine.console_shows("login:", within_s=90) for machine in machines))
    assert (await machines[0].ssh("id -un")).stdout.strip()
