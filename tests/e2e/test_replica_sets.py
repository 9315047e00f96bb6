"""Sets of instances: scaled by kubectl, by whoever leads; what belongs to them, and what an autoscaler reads."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.faults.audit import Write, controller_writes, made
from tests.faults.replicas import all_are_ready, leader, process_of
from tests.perf.measure import audit_mark
from tests.support.cluster import Cluster, Json, on_node
from tests.support.machine import Machine, gone, vmi_spec

NAME = "web"
SELECTOR = {"matchLabels": {"app": NAME}}
VMIS = "virtualmachineinstances"
# A killed leader's container is started again by the kubelet, or its lease runs out.
BLOW_S = 40.0


def replica_set(replicas: int, /, **spec: Any) -> Json:
    """A set of small guests."""
    template = {"metadata": {"labels": {"app": NAME}}, "spec": vmi_spec(NAME)}
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstanceReplicaSet",
        "metadata": {"name": NAME},
        "spec": {"replicas": replicas, "selector": SELECTOR, "template": template} | spec,
    }


async def until_set(
    cluster: Cluster, holds: Callable[[Json], bool], *, within_s: float, what: str
) -> Json:
    """Wait for what the status of the set says."""

    def of_status(state: Json | None) -> bool:
        return state is not None and holds(state.get("status", {}))

    state = await cluster.until("vmirs", NAME, of_status, within_s=within_s, what=what)
    status: Json = (state or {})["status"]
    return status


async def ready(cluster: Cluster, count: int, *, within_s: float = 60) -> list[Json]:
    """Wait until the set has so many and all are ready; its instances, those on their way out left out."""

    def holds(status: Json) -> bool:
        return (status.get("replicas"), status.get("readyReplicas")) == (count, count)

    await until_set(cluster, holds, within_s=within_s, what=f"{count} are ready")
    return [vmi for vmi in await cluster.all("vmi") if "deletionTimestamp" not in vmi["metadata"]]


async def scale(cluster: Cluster, replicas: int) -> None:
    """As a user does it, through the scale subresource."""
    await cluster.kubectl("scale", "vmirs", NAME, f"--replicas={replicas}")


async def kill_leader() -> None:
    """kill -9 of whoever leads."""
    await on_node("kill", "-9", str(await process_of(await leader())))


def names_of(instances: list[Json]) -> set[str]:
    return {vmi["metadata"]["name"] for vmi in instances}


def condition(status: Json, type_: str) -> Json:
    found: Json = next((c for c in status.get("conditions", []) if c["type"] == type_), {})
    return found


def limit(count: int) -> Json:
    """A quota of instances."""
    return {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "small"},
        "spec": {"hard": {f"count/{VMIS}.kubevirt.io": str(count)}},
    }


def deletions(writes: list[Write], namespace: str) -> set[str]:
    """The instances whose deletion was accepted."""
    return {
        write.name
        for write in writes
        if (write.verb, write.resource, write.namespace) == ("delete", VMIS, namespace)
        and write.code < 300
    }


@pytest.mark.alone
@pytest.mark.timeout(400)
async def test_scaled_up_and_down_while_leaders_are_killed(cluster: Cluster) -> None:
    """0 → 10 → 3, the leader killed in the middle of each: ten instances are made in all, and seven deleted."""
    await all_are_ready()
    mark = audit_mark()
    # In the middle of it: the quota stops the set at four until the leader is dead.
    await cluster.apply(limit(4))
    await cluster.until(
        "quota",
        "small",
        lambda state: bool((state or {}).get("status", {}).get("hard")),
        within_s=20,
        what="the quota is in force",
    )
    await cluster.apply(replica_set(0))
    await scale(cluster, 10)
    status = await until_set(
        cluster,
        lambda status: bool(condition(status, "ReplicaFailure")) and status["replicas"] == 4,
        within_s=20,
        what="four, and why not more",
    )
    failure = condition(status, "ReplicaFailure")
    assert failure["reason"] == "FailedCreate"
    assert "exceeded quota: small" in failure["message"]
    await asyncio.gather(kill_leader(), cluster.kubectl("delete", "quota", "small"))
    ten = await ready(cluster, 10, within_s=BLOW_S + 90)
    assert len(ten) == 10
    await scale(cluster, 3)
    await until_set(
        cluster, lambda status: status["replicas"] < 10, within_s=20, what="some are being deleted"
    )
    await kill_leader()
    three = await ready(cluster, 3, within_s=BLOW_S + 30)
    assert names_of(three) < names_of(ten)
    for vmi in ten:
        if vmi["metadata"]["name"] not in names_of(three):
            await cluster.until(
                "vmi", vmi["metadata"]["name"], gone, within_s=BLOW_S, what="it is gone"
            )
    await all_are_ready()
    writes = controller_writes(mark)
    created = made(writes, cluster.namespace, VMIS)
    assert set(created) == names_of(ten)
    assert created.total() == 10
    assert deletions(writes, cluster.namespace) == names_of(ten) - names_of(three)
    status = (await cluster.get("vmirs", NAME) or {})["status"]
    assert not condition(status, "ReplicaFailure")


async def test_an_autoscaler_reads_what_it_needs(cluster: Cluster) -> None:
    """The scale subresource says how many there are and what selects them, and an autoscaler can read it."""
    await cluster.apply(replica_set(0))
    await until_set(
        cluster, lambda status: status.get("replicas") == 0, within_s=10, what="a status"
    )
    path = (
        f"/apis/kubevirt.io/v1/namespaces/{cluster.namespace}"
        f"/virtualmachineinstancereplicasets/{NAME}/scale"
    )
    read = json.loads((await cluster.kubectl("get", "--raw", path)).stdout)
    assert read["kind"] == "Scale"
    assert read["status"] == {"replicas": 0, "selector": "app=web"}
    await cluster.apply(
        {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": NAME},
            "spec": {
                "scaleTargetRef": {
                    "apiVersion": "kubevirt.io/v1",
                    "kind": "VirtualMachineInstanceReplicaSet",
                    "name": NAME,
                },
                "minReplicas": 1,
                "maxReplicas": 2,
                "metrics": [
                    {
                        "type": "Resource",
                        "resource": {
                            "name": "cpu",
                            "target": {"type": "Utilization", "averageUtilization": 80},
                        },
                    }
                ],
            },
        }
    )

    def able(state: Json | None) -> bool:
        return condition((state or {}).get("status", {}), "AbleToScale").get("status") == "True"

    await cluster.until("hpa", NAME, able, within_s=45, what="AbleToScale")


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"selector": {"matchLabels": {"app": "db"}}}, "spec.selector"),
        ({"selector": {}}, "spec.selector"),
        ({"replicas": -1}, "spec.replicas"),
        (
            {
                "template": {
                    "metadata": {"labels": {"app": NAME}},
                    "spec": vmi_spec(NAME, domain={"devices": {"disks": [{"name": "ghost"}]}}),
                }
            },
            "spec.template.spec.domain.devices.disks[0].name",
        ),
    ],
    ids=["selects-others", "selects-all", "fewer-than-none", "bad-template"],
)
async def test_a_bad_set_is_refused_with_the_path(cluster: Cluster, spec: Json, field: str) -> None:
    assert field in await cluster.refused(replica_set(1, **spec))
    assert await cluster.get("vmirs", NAME) is None


async def test_orphans_are_adopted_by_the_next_set(cluster: Cluster) -> None:
    """kubectl delete --cascade=orphan leaves the guests running, a new set takes them over, and takes them along when it goes."""
    await cluster.apply(replica_set(2))
    two = await ready(cluster, 2)
    await cluster.kubectl("delete", "vmirs", NAME, "--cascade=orphan")
    left = await cluster.all("vmi")
    assert names_of(left) == names_of(two)
    assert not any(vmi["metadata"].get("ownerReferences") for vmi in left)
    await cluster.apply(replica_set(2))
    again = await ready(cluster, 2)
    assert {vmi["metadata"]["uid"] for vmi in again} == {vmi["metadata"]["uid"] for vmi in two}
    assert all(vmi["metadata"]["ownerReferences"][0]["name"] == NAME for vmi in again)
    await cluster.kubectl("delete", "vmirs", NAME, "--cascade=foreground", "--timeout=60s")
    assert await cluster.all("vmi") == []


async def test_what_has_ended_is_replaced_unless_the_set_is_paused(cluster: Cluster) -> None:
    """A guest that shuts itself down: the paused set keeps its instance to be looked at, and replaces it when it goes on."""
    await cluster.apply(replica_set(1))
    [first] = await ready(cluster, 1)
    await cluster.kubectl("patch", "vmirs", NAME, "--type=merge", "-p", '{"spec":{"paused":true}}')
    await until_set(
        cluster,
        lambda status: condition(status, "ReplicaPaused").get("status") == "True",
        within_s=10,
        what="ReplicaPaused",
    )
    machine = Machine(cluster, first["metadata"]["name"])
    await machine.console_shows("login:")
    await machine.ssh("poweroff", check=False)
    await until_set(
        cluster, lambda status: status["replicas"] == 0, within_s=60, what="the guest has ended"
    )
    assert names_of(await cluster.all("vmi")) == names_of([first])
    await cluster.kubectl("patch", "vmirs", NAME, "--type=merge", "-p", '{"spec":{"paused":false}}')
    [second] = await ready(cluster, 1)
    assert second["metadata"]["uid"] != first["metadata"]["uid"]
    shown = (await cluster.kubectl("get", "vmirs", NAME)).stdout.split()
    assert shown[:4] == ["NAME", "DESIRED", "CURRENT", "READY"]
    assert shown[5:9] == [NAME, "1", "1", "1"]
