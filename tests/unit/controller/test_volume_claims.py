"""Machines whose disks are claims, against an API server on a real socket: what they wait for, what ends it, what it costs."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from aiohttp import web
from podvisor_common.api import core, v1
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.events import EventRecorder
from podvisor_common.kube.informer import Informer
from podvisor_common.kube.resources import (
    EVENTS,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    VIRTUAL_MACHINE_INSTANCES,
    VIRTUAL_MACHINES,
    ObjectKey,
)
from podvisor_controller.controllers import Controllers
from podvisor_controller.node.attendance import Attendance
from podvisor_controller.vmi.claim_users import KEEPERS_INDEX, USERS_INDEX
from podvisor_controller.vmi.claims import claims_kept, claims_used
from podvisor_controller.vmi.pod_index import OWNER_INDEX, owner_keys
from podvisor_controller.vmi.reconciler import VmiReconciler

from tests.unit.controller.api_server import ApiServer, Fate, Json
from tests.unit.controller.builders import CONFIG, claim_body, on_claim, vm_body, vmi_body
from tests.unit.controller.scripted_cluster import Cluster

DATA = ObjectKey("shop", "data")


def put_vmi(server: ApiServer, name: str = "myvm", spec: Json | None = None) -> ObjectKey:
    body = vmi_body(spec=spec or on_claim(), metadata={"name": name, "uid": f"uid-{name}"})
    del body["metadata"]["resourceVersion"]
    server.put(VIRTUAL_MACHINE_INSTANCES, body)
    return ObjectKey("shop", name)


def put_vm(server: ApiServer) -> None:
    body = vm_body()
    del body["metadata"]["uid"], body["metadata"]["resourceVersion"]
    body["spec"]["template"]["spec"] = on_claim()
    server.put(VIRTUAL_MACHINES, body)


def reason_of(server: ApiServer, key: ObjectKey) -> str | None:
    """Why the instance does not come up, as it says itself."""
    status = (server.get(VIRTUAL_MACHINE_INSTANCES, key) or {}).get("status", {})
    conditions = {c["type"]: c for c in status.get("conditions", [])}
    reason: str | None = conditions.get("Synchronized", {}).get("reason")
    return reason


def pods_of(server: ApiServer, key: ObjectKey) -> list[Json]:
    return [
        pod
        for pod in server.list(PODS)
        if pod["metadata"]["labels"].get("vmi.kubevirt.io/id") == key.name
    ]


def printable(cluster: Cluster) -> Any:
    return cluster.status(cluster.vm).get("printableStatus")


def reasons(server: ApiServer) -> list[str]:
    return sorted(event["reason"] for event in server.list(EVENTS))


async def test_a_machine_waits_for_its_claim_and_starts_when_it_is_made(
    cluster: Cluster, server: ApiServer, leading: Controllers
) -> None:
    put_vm(server)
    await server.until(lambda: printable(cluster) == "ErrorPvcNotFound")
    assert not cluster.pods
    server.put(PERSISTENT_VOLUME_CLAIMS, claim_body())
    pod = await cluster.pod()
    assert {"claimName": "data"} in [v.get("persistentVolumeClaim") for v in pod["spec"]["volumes"]]
    await server.until(lambda: printable(cluster) == "Starting")
    await server.until(lambda: len(server.list(EVENTS)) == 3)
    assert reasons(server) == ["FailedPvcNotFound", "SuccessfulCreate", "SuccessfulCreate"]


async def test_a_start_with_a_claim_costs_no_more_than_one_without(
    cluster: Cluster, server: ApiServer, leading: Controllers
) -> None:
    server.put(PERSISTENT_VOLUME_CLAIMS, claim_body())
    put_vm(server)
    await cluster.bound_pod()
    cluster.report("Running")
    await server.until(lambda: printable(cluster) == "Running")
    await server.until(lambda: len(server.list(EVENTS)) == 2)
    assert cluster.writes().count("PATCH virtualmachineinstances/status") == 1
    [entry] = cluster.status(cluster.vmi)["volumeStatus"]
    assert entry["persistentVolumeClaimInfo"]["capacity"] == {"storage": "10Gi"}


async def test_an_expansion_is_told_of_while_the_guest_runs(
    cluster: Cluster, server: ApiServer, leading: Controllers
) -> None:
    server.put(PERSISTENT_VOLUME_CLAIMS, claim_body())
    put_vmi(server)
    await cluster.bound_pod()
    cluster.report("Running")
    server.put(PERSISTENT_VOLUME_CLAIMS, claim_body(capacity="20Gi"))

    def told() -> Any:
        [entry] = cluster.status(cluster.vmi)["volumeStatus"]
        return entry["persistentVolumeClaimInfo"]["capacity"]["storage"]

    await server.until(lambda: told() == "20Gi")
    assert cluster.status(cluster.vmi)["phase"] == "Running"


async def test_a_machine_whose_claim_is_to_be_bound_says_so(
    cluster: Cluster, server: ApiServer, leading: Controllers
) -> None:
    server.put(PERSISTENT_VOLUME_CLAIMS, claim_body(capacity=""))
    put_vm(server)
    pod = await cluster.pod()
    complaint = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims.",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    cluster.change(PODS, pod, status={"phase": "Pending", "conditions": [complaint]})
    await server.until(lambda: printable(cluster) == "WaitingForVolumeBinding")
    server.put(PERSISTENT_VOLUME_CLAIMS, claim_body())
    await cluster.bound_pod()
    assert not cluster.condition(cluster.vmi, "Provisioning")


async def test_the_second_of_two_on_a_claim_waits_for_the_first_to_end(
    cluster: Cluster, server: ApiServer, client: KubeClient, leading: Controllers
) -> None:
    server.put(PERSISTENT_VOLUME_CLAIMS, claim_body())
    first = put_vmi(server)
    await cluster.bound_pod()
    second = put_vmi(server, "second")
    await server.until(lambda: reason_of(server, second) == "VolumeInUse")
    cluster.report("Running")
    assert not pods_of(server, second)
    cluster.report("Succeeded", ready="False")
    await server.until(lambda: bool(pods_of(server, second)))
    await server.until(lambda: reason_of(server, second) is None)
    assert reason_of(server, first) is None
    assert reasons(server).count("VolumeInUse") == 1


async def test_an_instance_waits_for_one_that_is_deleted(
    cluster: Cluster, server: ApiServer, client: KubeClient, leading: Controllers
) -> None:
    first, second = put_vmi(server), put_vmi(server, "second")
    await server.until(
        lambda: {reason_of(server, key) for key in (first, second)} == {"FailedPvcNotFound"}
    )
    server.put(PERSISTENT_VOLUME_CLAIMS, claim_body())
    await server.until(lambda: bool(pods_of(server, first)))
    await server.until(lambda: reason_of(server, second) == "VolumeInUse")
    await client.delete(VIRTUAL_MACHINE_INSTANCES, first)
    await server.until(lambda: bool(pods_of(server, second)))


async def test_readers_do_not_wait_for_each_other(server: ApiServer, leading: Controllers) -> None:
    server.put(PERSISTENT_VOLUME_CLAIMS, claim_body())
    readers = [put_vmi(server, name, on_claim(source={"readOnly": True})) for name in "abc"]
    await server.until(lambda: all(pods_of(server, key) for key in readers))


@pytest.mark.parametrize("is_cached", [True, False], ids=["the cache is right", "it is behind"])
async def test_that_a_claim_is_missing_is_not_believed_of_the_cache(
    server: ApiServer, client: KubeClient, is_cached: bool
) -> None:
    scene = Scene(client)
    stored = server.put(PERSISTENT_VOLUME_CLAIMS, claim_body())
    if is_cached:
        scene.claims.replace([msgspec.convert(stored, core.PersistentVolumeClaim)])
    key = put_vmi(server)
    scene.see(server)
    await scene.reconciler.reconcile(key)
    assert len(server.list(PODS)) == 1
    asked = [r for r in server.requests if "persistentvolumeclaims" in r.path]
    assert bool(asked) != is_cached


async def test_a_claim_that_is_missing_is_asked_for_until_that_is_said(
    server: ApiServer, client: KubeClient
) -> None:
    scene = Scene(client)
    key = put_vmi(server)
    for _ in range(5):
        scene.see(server)
        await scene.reconciler.reconcile(key)
    asked = [r for r in server.requests if "persistentvolumeclaims" in r.path]
    assert 0 < len(asked) <= 2
    assert [r.method for r in server.requests if r.method == "PATCH"] == ["PATCH"]


async def test_a_pod_whose_creation_was_not_answered_counts(
    server: ApiServer, client: KubeClient
) -> None:
    """It may exist: nobody else gets the claim until that is known, not even an instance that is older."""
    scene = Scene(client)
    server.put(PERSISTENT_VOLUME_CLAIMS, claim_body())
    young = put_vmi(server, "young")
    scene.see(server)
    server.fate_of = lose_answer_to_pods
    with pytest.raises(Exception, match="503"):
        await scene.reconciler.reconcile(young)
    server.fate_of = lambda _: Fate.ANSWERED
    old = put_vmi(server, "old")
    scene.see(server)
    again = await scene.reconciler.reconcile(old)
    assert again is not None
    assert not pods_of(server, old)
    await scene.reconciler.reconcile(young)
    await scene.reconciler.reconcile(old)
    assert (len(pods_of(server, young)), len(pods_of(server, old))) == (1, 0)


def lose_answer_to_pods(request: web.Request) -> Fate:
    lost = request.method == "POST" and request.path.endswith("/pods")
    return Fate.ANSWER_LOST if lost else Fate.ANSWERED


class Scene:
    """A reconciler whose caches hear of nothing but what see() shows them."""

    def __init__(self, client: KubeClient) -> None:
        indexers: dict[str, Callable[[v1.VirtualMachineInstance], list[str]]] = {
            USERS_INDEX: claims_used,
            KEEPERS_INDEX: claims_kept,
        }
        self.vmis = Informer(
            client, VIRTUAL_MACHINE_INSTANCES, v1.VirtualMachineInstance, indexers=indexers
        )
        self.claims = Informer(client, PERSISTENT_VOLUME_CLAIMS, core.PersistentVolumeClaim)
        self.reconciler = VmiReconciler(
            client,
            vms=Informer(client, VIRTUAL_MACHINES, v1.VirtualMachine),
            vmis=self.vmis,
            pods=Informer(client, PODS, core.Pod, indexers={OWNER_INDEX: owner_keys}),
            volume_claims=self.claims,
            nodes=Informer(client, NODES, core.Node),
            attendance=Attendance(),
            exports=lambda _: {},
            config=lambda: CONFIG,
            recorder=EventRecorder(client, "test", "test"),
        )

    def see(self, server: ApiServer) -> None:
        """The watch of instances tells of everything; the others do not."""
        listed = server.list(VIRTUAL_MACHINE_INSTANCES)
        self.vmis.replace(msgspec.convert(listed, list[v1.VirtualMachineInstance]))
