"""What the API server does not let be deleted: told once, tried again, and forgotten when it goes."""

from typing import Any

from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.resources import (
    EVENTS,
    VIRTUAL_MACHINE_INSTANCES,
    VIRTUAL_MACHINES,
)
from podvisor_controller.controllers import Controllers

from tests.unit.controller.api_server import ApiServer
from tests.unit.controller.scripted_cluster import MYVM, Cluster
from tests.unit.kube.fake_apiserver import Refuse

DENIED = Refuse(403, "Forbidden", 'admission webhook "keep.example" denied the request: keep it')


def told(server: ApiServer, reason: str) -> list[dict[str, Any]]:
    return [event for event in server.list(EVENTS) if event["reason"] == reason]


async def test_an_instance_that_may_not_be_deleted(
    cluster: Cluster, server: ApiServer, leading: Controllers
) -> None:
    vm = cluster.apply_vm()
    await cluster.bound_pod()
    cluster.report("Running")
    server.refuse("DELETE", "/virtualmachineinstances/myvm", DENIED)
    server.refuse("DELETE", "/virtualmachineinstances/myvm", DENIED)
    cluster.change(VIRTUAL_MACHINES, cluster.vm, spec={**vm["spec"], "runStrategy": "Halted"})
    await server.until(lambda: bool(cluster.condition(cluster.vm, "Failure")))
    failure = cluster.condition(cluster.vm, "Failure")
    assert (failure["status"], failure["reason"]) == ("True", "FailedDelete")
    assert "keep it" in failure["message"]
    assert cluster.status(cluster.vm)["printableStatus"] == "Running"
    await cluster.ends_as_asked()
    await server.until(lambda: cluster.status(cluster.vm).get("printableStatus") == "Stopped")
    assert not cluster.condition(cluster.vm, "Failure")
    (event,) = told(server, "FailedDelete")
    assert event["regarding"]["kind"] == "VirtualMachine"
    assert "series" not in event


async def test_a_pod_that_may_not_be_deleted(
    cluster: Cluster, server: ApiServer, client: KubeClient, leading: Controllers
) -> None:
    cluster.apply_vmi()
    name = (await cluster.bound_pod())["metadata"]["name"]
    cluster.report("Running")
    server.refuse("DELETE", f"/pods/{name}", DENIED)
    server.refuse("DELETE", f"/pods/{name}", DENIED)
    await client.delete(VIRTUAL_MACHINE_INSTANCES, MYVM)
    await server.until(lambda: bool(told(server, "FailedDelete")))
    condition = cluster.condition(cluster.vmi, "Synchronized")
    assert (condition["status"], condition["reason"]) == ("False", "FailedDelete")
    assert "keep it" in condition["message"]
    assert cluster.status(cluster.vmi)["phase"] == "Running"
    await cluster.ends_as_asked()
    await server.until(lambda: cluster.vmi is None)
    (event,) = told(server, "FailedDelete")
    assert event["regarding"]["kind"] == "VirtualMachineInstance"
    assert "series" not in event
