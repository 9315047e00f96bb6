"""What the API server does not let be deleted: told once, tried again, and forgotten when it goes."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from podvisor_common.api import core, meta, v1
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.controller import Requeue
from podvisor_common.kube.events import EventRecorder
from podvisor_common.kube.informer import Informer
from podvisor_common.kube.resources import (
    EVENTS,
    PODS,
    VIRTUAL_MACHINE_INSTANCES,
    VIRTUAL_MACHINES,
)
from podvisor_controller.controllers import Controllers
from podvisor_controller.vm.reconciler import VmReconciler
from podvisor_controller.vm.starts import Starts

from tests.unit.controller.api_server import ApiServer, Json
from tests.unit.controller.builders import NOW, pod, stamp, vm_body, vmi_body
from tests.unit.controller.scripted_cluster import MYVM, Cluster
from tests.unit.controller.snapshots import volume_statuses
from tests.unit.controller.test_stale_caches import Scene
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


class Machine:
    """A machine and its reconciler, which sees what is there at each pass and at no other time."""

    def __init__(self, server: ApiServer, client: KubeClient) -> None:
        self._server = server
        self.at = NOW
        self.vms = Informer(client, VIRTUAL_MACHINES, v1.VirtualMachine)
        self.vmis = Informer(client, VIRTUAL_MACHINE_INSTANCES, v1.VirtualMachineInstance)
        self.reconciler = VmReconciler(
            client,
            vms=self.vms,
            vmis=self.vmis,
            volume_statuses=volume_statuses(client),
            starts=Starts(lambda _: None),
            recorder=EventRecorder(client, "test", "test"),
            clock=lambda: self.at,
        )

    def put(self, run_strategy: str, **metadata: Any) -> None:
        """The machine as its user wants it now; its status stays."""
        known = self._server.get(VIRTUAL_MACHINES, MYVM) or {}
        body = vm_body(run_strategy, metadata=metadata, status=known.get("status", {}))
        del body["metadata"]["resourceVersion"]
        self._server.put(VIRTUAL_MACHINES, body)

    def put_instance(self, phase: str) -> None:
        body = vmi_body(owned=True, status={"phase": phase})
        del body["metadata"]["resourceVersion"]
        self._server.put(VIRTUAL_MACHINE_INSTANCES, body)

    async def passes(self, *, after_s: float = 0.0) -> Requeue | None:
        self.at += timedelta(seconds=after_s)
        machines = self._server.list(VIRTUAL_MACHINES)
        self.vms.replace([msgspec.convert(body, v1.VirtualMachine) for body in machines])
        bodies = self._server.list(VIRTUAL_MACHINE_INSTANCES)
        self.vmis.replace([msgspec.convert(body, v1.VirtualMachineInstance) for body in bodies])
        return await self.reconciler.reconcile(MYVM)

    @property
    def failure(self) -> str:
        body = self._server.get(VIRTUAL_MACHINES, MYVM)
        status = msgspec.convert(body, v1.VirtualMachine).status
        condition = meta.find_condition(status.conditions, "Failure")
        return condition.reason if condition is not None else ""


@pytest.fixture
def machine(server: ApiServer, client: KubeClient) -> Machine:
    return Machine(server, client)


async def test_an_ended_instance_that_may_not_be_deleted(
    server: ApiServer, machine: Machine
) -> None:
    """The pause before its successor does not mean that it is wanted."""
    machine.put("Always")
    machine.put_instance("Succeeded")
    for _ in range(2):
        server.refuse("DELETE", "/virtualmachineinstances/myvm", DENIED)
    await machine.passes()
    assert machine.failure == "FailedDelete"
    written = len(server.requests)
    await machine.passes(after_s=1)
    assert machine.failure == "FailedDelete"
    assert len(server.requests) == written
    await machine.passes(after_s=2)
    assert server.refused == 2
    assert machine.failure == "FailedDelete"
    assert len(server.requests) == written


async def test_a_start_does_not_wait_for_a_deletion_that_does_not_matter_any_more(
    server: ApiServer, machine: Machine
) -> None:
    machine.put("Halted")
    machine.put_instance("Running")
    for _ in range(4):
        server.refuse("DELETE", "/virtualmachineinstances/myvm", DENIED)
        await machine.passes(after_s=60)
    assert machine.failure == "FailedDelete"
    assert server.refused == 4
    server.remove(VIRTUAL_MACHINE_INSTANCES, MYVM)
    await machine.passes()
    assert machine.failure == ""
    machine.put("Manual", generation=3)
    start = {"stateChangeRequests": [{"action": "Start"}]}
    server.put(VIRTUAL_MACHINES, {**(server.get(VIRTUAL_MACHINES, MYVM) or {}), "status": start})
    await machine.passes()
    assert server.get(VIRTUAL_MACHINE_INSTANCES, MYVM) is not None


async def is_tried_again_after_its_pause(
    server: ApiServer, passes: Callable[..., Awaitable[Requeue | None]]
) -> None:
    """What is refused twice is asked for again after two seconds, however many passes there are before."""
    waits = await passes()
    assert waits is not None
    assert 2 <= waits.after_s <= 2.2
    for _ in range(5):
        await passes(after_s=0.1)
    assert server.refused == 1
    await passes(after_s=2)
    assert server.refused == 2


@pytest.mark.parametrize("leaving", [{}, {"deletionTimestamp": stamp()}], ids=["halted", "deleted"])
async def test_a_refused_deletion_is_tried_again_after_its_pause(
    server: ApiServer, machine: Machine, leaving: Json
) -> None:
    machine.put("Halted", **leaving)
    machine.put_instance("Running")
    for _ in range(3):
        server.refuse("DELETE", "/virtualmachineinstances/myvm", DENIED)
    await is_tried_again_after_its_pause(server, machine.passes)
    # What was refused to this machine may be right for the one that was edited.
    machine.put("Halted", generation=4, **leaving)
    await machine.passes()
    assert server.refused == 3


class Pods(Scene):
    """An instance that is being deleted, and pods of its own."""

    def __init__(self, server: ApiServer, client: KubeClient, *pods: Json) -> None:
        super().__init__(client)
        self._server = server
        status = {
            "phase": "Running",
            "nodeName": "n1",
            "activePods": {"uid-launcher": "n1", "uid-a": "n1", "uid-b": "n1"},
        }
        body = vmi_body(metadata={"deletionTimestamp": stamp()}, status=status)
        del body["metadata"]["resourceVersion"]
        server.put(VIRTUAL_MACHINE_INSTANCES, body)
        for body in pods:
            server.put(PODS, body)

    async def passes(self, *, after_s: float = 0.0) -> Requeue | None:
        self.at += timedelta(seconds=after_s)
        bodies = self._server.list(VIRTUAL_MACHINE_INSTANCES)
        self.vmis.replace([msgspec.convert(body, v1.VirtualMachineInstance) for body in bodies])
        self.pods.replace([msgspec.convert(body, core.Pod) for body in self._server.list(PODS)])
        return await self.reconciler.reconcile(MYVM)

    @property
    def trouble(self) -> str:
        body = self._server.get(VIRTUAL_MACHINE_INSTANCES, MYVM)
        status = msgspec.convert(body, v1.VirtualMachineInstance).status
        condition = meta.find_condition(status.conditions, "Synchronized")
        return condition.reason if condition is not None else ""


def launcher(name: str = "launcher", **metadata: Any) -> Json:
    """The pod of that name, which stays for its grace period when it is deleted."""
    body: Json = msgspec.to_builtins(pod("Running", node="n1"))
    # As for a pod that has its grace period: the object stays for a while.
    body["metadata"] |= {"name": name, "uid": f"uid-{name}", "finalizers": ["test/grace"]}
    body["metadata"] |= metadata
    return body


async def test_a_pods_deletion_is_tried_again_after_its_pause(
    server: ApiServer, client: KubeClient
) -> None:
    scene = Pods(server, client, launcher())
    for _ in range(2):
        server.refuse("DELETE", "/pods/launcher", DENIED)
    await is_tried_again_after_its_pause(server, scene.passes)


async def test_the_status_stops_telling_of_a_refusal_when_the_pod_goes(
    server: ApiServer, client: KubeClient
) -> None:
    scene = Pods(server, client, launcher())
    server.refuse("DELETE", "/pods/launcher", DENIED)
    await scene.passes()
    assert scene.trouble == "FailedDelete"
    await scene.passes(after_s=3)
    assert scene.trouble == ""
    written = server.version
    await scene.passes(after_s=1)
    assert server.version == written


async def test_a_pod_that_may_not_be_deleted_and_that_somebody_else_deletes(
    server: ApiServer, client: KubeClient
) -> None:
    scene = Pods(server, client, launcher())
    server.refuse("DELETE", "/pods/launcher", DENIED)
    await scene.passes()
    assert scene.trouble == "FailedDelete"
    server.put(PODS, launcher(deletionTimestamp=stamp()))
    waits = await scene.passes()
    assert scene.trouble == ""
    assert waits is None


async def test_of_two_pods_one_may_not_be_deleted(server: ApiServer, client: KubeClient) -> None:
    scene = Pods(server, client, launcher("a"), launcher("b"))
    server.refuse("DELETE", "/pods/a", DENIED)
    await scene.passes()
    assert scene.trouble == "FailedDelete"
    await scene.passes(after_s=1)
    assert [r.path for r in server.requests if r.method == "DELETE"] == [
        "/api/v1/namespaces/shop/pods/b"
    ]
    assert scene.trouble == "FailedDelete"
    await scene.passes(after_s=2)
    assert scene.trouble == ""
