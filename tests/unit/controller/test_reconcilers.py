"""The controllers against an API server on a real socket; the test plays scheduler, kubelet and handler."""

import asyncio

import msgspec
import pytest
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.resources import (
    EVENTS,
    NODES,
    PODS,
    VIRTUAL_MACHINE_INSTANCES,
    VIRTUAL_MACHINES,
    ObjectKey,
)
from podvisor_controller.controllers import Controllers
from podvisor_controller.node import attendance
from podvisor_controller.settings import Settings

from tests.unit.controller.api_server import ApiServer, Json
from tests.unit.controller.builders import IMAGE
from tests.unit.controller.scripted_cluster import MYVM, Cluster
from tests.unit.kube.fake_apiserver import Refuse

KUBEVIRT = ObjectKey("kubevirt", "kubevirt")


def event_reasons(server: ApiServer) -> list[str]:
    return sorted(event["reason"] for event in server.list(EVENTS))


async def test_a_start_costs_what_the_ledger_says(
    cluster: Cluster, server: ApiServer, leading: Controllers
) -> None:
    cluster.apply_vm()
    await cluster.bound_pod()
    cluster.report("Running")
    await server.until(lambda: cluster.status(cluster.vm).get("printableStatus") == "Running")
    await server.until(lambda: len(server.list(EVENTS)) == 2)
    await cluster.gate("True")
    assert cluster.status(cluster.vm)["ready"] is True
    assert cluster.status(cluster.vm)["nodeName"] == "n1"
    assert sorted(cluster.writes()) == sorted(
        [
            "POST controllerrevisions",
            "POST virtualmachineinstances",
            "POST pods",
            "PATCH virtualmachineinstances/status",
            "PATCH pods/status",
            "PATCH virtualmachines/status",
            "PATCH virtualmachines/status",
            "POST events",
            "POST events",
        ]
    )
    assert event_reasons(server) == ["SuccessfulCreate", "SuccessfulCreate"]


async def test_a_stop_costs_what_the_ledger_says(
    cluster: Cluster, server: ApiServer, leading: Controllers
) -> None:
    vm = cluster.apply_vm()
    await cluster.bound_pod()
    cluster.report("Running")
    await server.until(lambda: cluster.status(cluster.vm).get("printableStatus") == "Running")
    await cluster.gate("True")
    before = len(cluster.writes())
    cluster.change(VIRTUAL_MACHINES, cluster.vm, spec={**vm["spec"], "runStrategy": "Halted"})
    await cluster.ends_as_asked()
    await server.until(lambda: cluster.status(cluster.vm).get("printableStatus") == "Stopped")
    objects = [write for write in cluster.writes()[before:] if "events" not in write]
    assert sorted(objects) == [
        "DELETE pods",
        "DELETE virtualmachineinstances",
        "PATCH virtualmachineinstances",
        "PATCH virtualmachines/status",
        "PATCH virtualmachines/status",
    ]


async def test_the_pod_is_the_instances(cluster: Cluster, leading: Controllers) -> None:
    vmi = cluster.apply_vmi()
    pod = await cluster.pod()
    assert pod["metadata"]["ownerReferences"][0]["uid"] == vmi["metadata"]["uid"]
    assert pod["spec"]["containers"][0]["image"] == IMAGE
    assert "devices.kubevirt.io/kvm" not in msgspec.json.encode(pod).decode()


async def test_a_pod_of_another_namespace_is_not_the_instances(
    cluster: Cluster, server: ApiServer, client: KubeClient, leading: Controllers
) -> None:
    cluster.apply_vmi()
    pod = await cluster.pod()
    forged = {**pod["metadata"], "namespace": "elsewhere", "name": "forged", "uid": "forged"}
    server.put(PODS, {**pod, "metadata": forged, "spec": {**pod["spec"], "nodeName": "n2"}})
    await cluster.bound_pod()
    assert cluster.status(cluster.vmi)["activePods"] == {pod["metadata"]["uid"]: "n1"}
    await client.delete(VIRTUAL_MACHINE_INSTANCES, MYVM)
    await cluster.ends_as_asked()
    await server.until(lambda: cluster.vmi is None)
    assert server.get(PODS, ObjectKey("elsewhere", "forged")) is not None


async def test_deletion_takes_everything_along(
    cluster: Cluster, server: ApiServer, client: KubeClient, leading: Controllers
) -> None:
    cluster.apply_vm()
    await cluster.bound_pod()
    cluster.report("Running")
    await client.delete(VIRTUAL_MACHINES, MYVM)
    await cluster.ends_as_asked()
    await server.until(lambda: cluster.vm is None)
    assert cluster.vmi is None
    assert cluster.pods == []


async def test_an_instance_deleted_before_its_pod_was_made_goes_as_well(
    cluster: Cluster, server: ApiServer, client: KubeClient, leading: Controllers
) -> None:
    server.refuse("POST", "/pods", Refuse(503))
    cluster.apply_vmi()
    await client.delete(VIRTUAL_MACHINE_INSTANCES, MYVM)
    await server.until(lambda: cluster.vmi is None)


async def test_always_starts_again_after_a_shutdown(
    cluster: Cluster, server: ApiServer, leading: Controllers
) -> None:
    cluster.apply_vm()
    first = (await cluster.bound_pod())["metadata"]["name"]
    cluster.report("Running")
    cluster.report("Succeeded", ready="False")
    await server.until(lambda: any(p["metadata"]["name"] != first for p in cluster.pods))
    assert cluster.status(cluster.vmi).get("phase") != "Succeeded"


def keep(cluster: Cluster, pod: Json) -> None:
    """As for a pod whose containers take their time: deleted, the object stays for a while."""
    cluster.change(PODS, pod, metadata={**pod["metadata"], "finalizers": ["test/grace"]})


@pytest.mark.parametrize("end", ["Succeeded", "Failed"])
async def test_a_successor_waits_for_the_guest_and_not_for_the_kubelet(
    end: str, cluster: Cluster, server: ApiServer, client: KubeClient, leading: Controllers
) -> None:
    cluster.apply_vm()
    first = await cluster.bound_pod()
    keep(cluster, first)
    cluster.report("Running")
    await client.delete(VIRTUAL_MACHINE_INSTANCES, MYVM)
    await server.until(lambda: "deletionTimestamp" in cluster.pods[0]["metadata"])
    assert len(cluster.pods) == 1
    cluster.report(end, ready="False")
    await server.until(lambda: len(cluster.pods) == 2)
    names = {pod["metadata"]["name"] for pod in cluster.pods}
    assert first["metadata"]["name"] in names
    assert cluster.vmi["metadata"]["uid"] != first["metadata"]["ownerReferences"][0]["uid"]


async def test_a_machine_that_stops_has_stopped_when_its_pod_is_gone(
    cluster: Cluster, server: ApiServer, leading: Controllers
) -> None:
    vm = cluster.apply_vm()
    pod = await cluster.bound_pod()
    keep(cluster, pod)
    cluster.report("Running")
    await server.until(lambda: cluster.status(cluster.vm).get("printableStatus") == "Running")
    cluster.change(VIRTUAL_MACHINES, cluster.vm, spec={**vm["spec"], "runStrategy": "Halted"})
    await server.until(lambda: "deletionTimestamp" in cluster.pods[0]["metadata"])
    cluster.report("Succeeded", ready="False")
    await server.until(lambda: cluster.condition(cluster.vm, "Ready").get("status") == "False")
    assert cluster.vmi is not None
    server.remove(PODS, ObjectKey("shop", pod["metadata"]["name"]))
    await server.until(lambda: cluster.vmi is None)


async def test_a_quota_that_counts_the_pod_before_is_waited_for_in_silence(
    cluster: Cluster, server: ApiServer, client: KubeClient, leading: Controllers
) -> None:
    cluster.apply_vm()
    first = await cluster.bound_pod()
    keep(cluster, first)
    cluster.report("Running")
    await client.delete(VIRTUAL_MACHINE_INSTANCES, MYVM)
    await server.until(lambda: "deletionTimestamp" in cluster.pods[0]["metadata"])
    server.refuse("POST", "/pods", Refuse(403, "Forbidden", "exceeded quota: small"))
    cluster.report("Succeeded", ready="False")
    await server.until(lambda: len(cluster.pods) == 2)
    assert "FailedCreate" not in event_reasons(server)


async def test_once_stays_ended_even_without_its_instance(
    cluster: Cluster, server: ApiServer, client: KubeClient, leading: Controllers
) -> None:
    cluster.apply_vm("Once")
    await cluster.bound_pod()
    cluster.report("Running")
    cluster.report("Succeeded", ready="False")
    await server.until(lambda: cluster.status(cluster.vm).get("phase") == "Succeeded")
    await client.delete(VIRTUAL_MACHINE_INSTANCES, MYVM)
    await server.until(lambda: cluster.vm["status"].get("created") is None)
    assert cluster.vm["status"]["printableStatus"] == "Stopped"
    assert cluster.vm["status"]["runStrategy"] == "Once"
    assert cluster.vmi is None


async def test_halting_stops_and_starting_starts(
    cluster: Cluster, server: ApiServer, leading: Controllers
) -> None:
    vm = cluster.apply_vm()
    await cluster.bound_pod()
    vm = cluster.change(VIRTUAL_MACHINES, cluster.vm, spec={**vm["spec"], "runStrategy": "Halted"})
    await cluster.ends_as_asked()
    await server.until(lambda: cluster.status(cluster.vm).get("printableStatus") == "Stopped")
    assert cluster.vmi is None
    cluster.change(VIRTUAL_MACHINES, cluster.vm, spec={**vm["spec"], "runStrategy": "Always"})
    await cluster.pod()


async def test_a_handler_that_was_faster_keeps_its_phase(
    cluster: Cluster, server: ApiServer, leading: Controllers
) -> None:
    cluster.apply_vmi()
    pod = await cluster.pod()
    conflict = Refuse(409, "Conflict", 'conflict with "virt-handler"')
    server.refuse("PATCH", "/myvm/status", conflict)
    cluster.change(PODS, pod, spec={**pod["spec"], "nodeName": "n1"})
    await server.until(lambda: cluster.status(cluster.vmi).get("nodeName") == "n1")
    assert "phase" not in cluster.status(cluster.vmi)
    applied = [r for r in server.requests if r.path.endswith("myvm/status")]
    assert all("force" not in request.query for request in applied)


async def test_a_pod_of_our_name_that_is_not_ours_is_left_alone(
    cluster: Cluster, server: ApiServer, leading: Controllers
) -> None:
    vmi = cluster.apply_vmi()
    mine = await cluster.pod()
    stranger = {"metadata": {**mine["metadata"], "ownerReferences": [], "labels": {}}}
    stranger["metadata"].pop("uid")
    server.remove(VIRTUAL_MACHINE_INSTANCES, MYVM)
    server.remove(PODS, ObjectKey("shop", mine["metadata"]["name"]))
    server.put(PODS, stranger)
    server.put(VIRTUAL_MACHINE_INSTANCES, {**vmi, "status": {}})
    await server.until(lambda: bool(cluster.condition(cluster.vmi, "Synchronized")))
    assert cluster.condition(cluster.vmi, "Synchronized")["reason"] == "FailedCreate"
    assert "does not belong" in cluster.condition(cluster.vmi, "Synchronized")["message"]
    assert len(cluster.pods) == 1


async def test_a_pod_that_may_not_be_created_is_explained(
    cluster: Cluster, server: ApiServer, leading: Controllers
) -> None:
    server.refuse("POST", "/pods", Refuse(403, "Forbidden", "exceeded quota: small"))
    cluster.apply_vmi()
    await server.until(lambda: "FailedCreate" in event_reasons(server))
    condition = cluster.condition(cluster.vmi, "Synchronized")
    assert condition["reason"] == "FailedCreate"
    assert "exceeded quota: small" in condition["message"]
    assert cluster.status(cluster.vmi)["phase"] == "Pending"


async def test_a_machine_refused_at_admission_is_explained(
    cluster: Cluster, server: ApiServer, leading: Controllers
) -> None:
    invalid = Refuse(422, "Invalid", "spec.domain.memory: too little")
    server.refuse("POST", "/virtualmachineinstances", invalid)
    cluster.apply_vm()
    await server.until(lambda: bool(cluster.condition(cluster.vm, "Failure")))
    assert "spec.domain.memory: too little" in cluster.condition(cluster.vm, "Failure")["message"]
    assert cluster.vmi is None


async def test_a_pod_refused_by_the_kubelet_is_replaced(
    cluster: Cluster, server: ApiServer, leading: Controllers
) -> None:
    cluster.apply_vmi()
    pod = await cluster.bound_pod()
    refusal = {"phase": "Failed", "reason": "OutOfcpu", "message": "not enough cpu"}
    cluster.change(PODS, pod, status=refusal)
    await server.until(
        lambda: cluster.condition(cluster.vmi, "Synchronized").get("reason") == "PodRefused"
    )
    # The fake's apply merges, so the node's name stays where a real API server would drop it.
    status = {k: v for k, v in cluster.vmi["status"].items() if k not in ("nodeName", "activePods")}
    cluster.change(VIRTUAL_MACHINE_INSTANCES, cluster.vmi, status=status)
    await server.until(
        lambda: any(p["metadata"]["name"] != pod["metadata"]["name"] for p in cluster.pods)
    )


async def test_an_ended_pod_without_a_handler_ends_the_instance(
    cluster: Cluster, server: ApiServer, leading: Controllers
) -> None:
    cluster.apply_vmi()
    pod = await cluster.bound_pod()
    cluster.report("Running")
    ended = {"exitCode": 1, "reason": "Error", "finishedAt": "2026-01-01T00:00:00Z"}
    statuses = [{"name": "compute", "state": {"terminated": ended}}]
    cluster.change(PODS, pod, status={"phase": "Failed", "containerStatuses": statuses})
    await server.until(lambda: cluster.status(cluster.vmi).get("phase") == "Failed")
    assert cluster.status(cluster.vmi)["reason"] == "GuestCrashed"


async def test_a_node_that_does_not_answer_fails_nobody_and_a_deleted_one_does(
    cluster: Cluster, server: ApiServer, leading: Controllers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attendance, "UNRESPONSIVE_AFTER_S", 0.2)
    cluster.apply_vmi()
    await cluster.bound_pod()
    cluster.report("Running")
    silent = {"conditions": [{"type": "Ready", "status": "Unknown"}]}
    node = server.put(NODES, {"metadata": {"name": "n1"}, "status": silent})
    await server.until(lambda: cluster.condition(cluster.vmi, "Ready")["status"] == "False")
    assert cluster.condition(cluster.vmi, "Ready")["reason"] == "NodeUnresponsive"
    assert cluster.status(cluster.vmi)["phase"] == "Running"
    await server.until(lambda: "NodeUnresponsive" in event_reasons(server))
    server.remove(NODES, ObjectKey("", node["metadata"]["name"]))
    await server.until(lambda: cluster.status(cluster.vmi)["phase"] == "Failed")
    assert cluster.status(cluster.vmi)["reason"] == "NodeFenced"


async def test_a_silent_handler_is_told_of_and_fails_nobody(
    cluster: Cluster,
    server: ApiServer,
    leading: Controllers,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its node takes no more machines; when it beats again, what it says counts."""
    cluster.apply_vmi()
    await cluster.bound_pod()
    cluster.report("Running")
    monkeypatch.setattr(attendance, "OVERDUE_AFTER_S", 0.2)
    monkeypatch.setattr(attendance, "CONFIRMED_AFTER_S", 0.2)
    well = {"conditions": [{"type": "Ready", "status": "True"}]}
    metadata = {
        "name": "n1",
        "labels": {"kubevirt.io/schedulable": "true"},
        "annotations": {"kubevirt.io/heartbeat": "2026-01-01T00:00:00Z"},
    }
    server.put(NODES, {"metadata": metadata, "status": well})
    await server.until(lambda: cluster.condition(cluster.vmi, "Ready")["status"] == "Unknown")
    assert cluster.condition(cluster.vmi, "Ready")["reason"] == "HandlerUnresponsive"
    assert cluster.status(cluster.vmi)["phase"] == "Running"
    await server.until(
        lambda: server.list(NODES)[0]["metadata"]["labels"]["kubevirt.io/schedulable"] == "false"
    )
    monkeypatch.setattr(attendance, "OVERDUE_AFTER_S", 60.0)
    beat = {"kubevirt.io/heartbeat": "2026-01-01T00:10:00Z"}
    server.put(NODES, {"metadata": {**metadata, "annotations": beat}, "status": well})
    cluster.report("Running")
    await server.until(lambda: cluster.condition(cluster.vmi, "Ready")["status"] == "True")
    assert server.list(NODES)[0]["metadata"]["labels"]["kubevirt.io/schedulable"] == "true"


async def test_without_image_volumes_the_images_are_held_by_containers(
    cluster: Cluster, server: ApiServer, client: KubeClient, settings: Settings
) -> None:
    controllers = Controllers(client, settings)
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(controllers.watch())
        await server.until(lambda: controllers.not_synced() is None)
        server.refuse("POST", "/pods", Refuse(422, "Invalid", "must specify a volume type"))
        leading = group.create_task(controllers.lead())
        cluster.apply_vmi()
        await server.until(lambda: bool(cluster.pods))
        [pod] = cluster.pods
        assert [c["name"] for c in pod["spec"]["initContainers"]][1:] == ["volumeroot"]
        assert not cluster.condition(cluster.vmi, "Synchronized")
        for task in (watching, leading):
            task.cancel()


async def test_a_new_leader_goes_on_where_the_last_one_stopped(
    cluster: Cluster, server: ApiServer, client: KubeClient, settings: Settings
) -> None:
    async with asyncio.TaskGroup() as group:
        first = Controllers(client, settings)
        tasks = [group.create_task(first.watch()), group.create_task(first.lead())]
        cluster.apply_vm()
        pod = await cluster.pod()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        cluster.change(PODS, pod, spec={**pod["spec"], "nodeName": "n1"})
        second = Controllers(client, settings)
        tasks = [group.create_task(second.watch()), group.create_task(second.lead())]
        await server.until(lambda: cluster.status(cluster.vmi).get("nodeName") == "n1")
        assert len(cluster.pods) == 1
        for task in tasks:
            task.cancel()
