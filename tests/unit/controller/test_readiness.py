"""The readiness gate of launcher pods: when Services lead to a guest, and what that costs."""

import asyncio

import msgspec
import pytest
from podvisor_common.api import core, v1
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.controller import Requeue
from podvisor_common.kube.resources import EVENTS, PODS, VIRTUAL_MACHINE_INSTANCES
from podvisor_controller.controllers import Controllers
from podvisor_controller.vmi.outline import outline
from podvisor_controller.vmi.readiness import changed_readiness

from tests.unit.controller.api_server import ApiServer
from tests.unit.controller.builders import (
    Json,
    observed,
    pod,
    scheduled,
    situations,
    stamp,
)
from tests.unit.controller.scripted_cluster import MYVM, Cluster
from tests.unit.controller.test_stale_caches import Scene
from tests.unit.kube.fake_apiserver import Refuse

GATE = "kubevirt.io/virtual-machine-unpaused"
PAUSED = {"type": "Paused", "status": "True", "reason": "PausedByUser", "message": ""}
READY = {"type": "Ready", "status": "True", "reason": "", "message": ""}


def gated(status: str = "", reason: str = "", *, ended: bool = False, **metadata: str) -> core.Pod:
    """A launcher pod on its node as the controller keeps it, and what it says of its guest."""
    terminated = {"exitCode": 0, "reason": "Completed", "finishedAt": stamp(1)}
    state = {"terminated": terminated} if ended else {"running": {}}
    said = [{"type": GATE, "status": status, "reason": reason}] if status else []
    carrier = pod(
        "Running",
        node="n1",
        metadata=metadata,
        spec={"readinessGates": [{"conditionType": GATE}]},
        status={"conditions": said, "containerStatuses": [{"name": "compute", "state": state}]},
    )
    return outline(carrier)


def guest(*conditions: Json, phase: str = "Running") -> v1.VirtualMachineInstance:
    return scheduled(phase, conditions=list(conditions), activePods={"pod-1": "n1"})


@pytest.mark.parametrize(
    ("instance", "carrier", "written"),
    situations(
        ("a guest that runs", guest(READY), gated(), ("True", "NotPaused")),
        ("one that is paused", guest(PAUSED), gated(), ("False", "Paused")),
        ("it was paused just now", guest(PAUSED), gated("True", "NotPaused"), ("False", "Paused")),
        ("it goes on", guest(READY), gated("False", "Paused"), ("True", "NotPaused")),
        ("said already", guest(READY), gated("True", "NotPaused"), None),
        ("not yet there", guest(phase="Scheduled"), gated(), None),
        ("over", guest(phase="Succeeded"), gated("True", "NotPaused"), None),
        ("its container is", guest(READY), gated(ended=True), None),
        ("its pod is going", guest(PAUSED), gated(deletionTimestamp=stamp(1)), None),
        ("from before there was a gate", guest(READY), outline(pod("Running", node="n1")), None),
    ),
)
def test_what_is_said_of_a_pod(
    instance: v1.VirtualMachineInstance, carrier: core.Pod, written: tuple[str, str] | None
) -> None:
    found = changed_readiness(observed(instance, carrier))
    assert written == (found and (found["status"], found["reason"]))
    if found is not None:
        assert (found["type"], found["lastTransitionTime"]) == (GATE, stamp(0))


async def test_a_pod_is_ready_as_long_as_its_guest_runs(
    cluster: Cluster, server: ApiServer, leading: Controllers
) -> None:
    cluster.apply_vmi()
    made = await cluster.bound_pod()
    assert made["spec"]["readinessGates"] == [{"conditionType": GATE}]
    assert "PATCH pods/status" not in cluster.writes()
    cluster.report("Running")
    await cluster.gate("True")
    status = cluster.vmi["status"]
    cluster.change(VIRTUAL_MACHINE_INSTANCES, cluster.vmi, status=status | {"conditions": [PAUSED]})
    await cluster.gate("False")
    cluster.change(VIRTUAL_MACHINE_INSTANCES, cluster.vmi, status=status)
    await cluster.gate("True")
    assert cluster.writes().count("PATCH pods/status") == 3


async def test_that_it_may_not_be_said_is_told_and_tried_again(
    server: ApiServer, client: KubeClient
) -> None:
    scene = Scene(client)
    put(scene, server)
    carrier = server.put(PODS, msgspec.to_builtins(gated()))
    path = f"/pods/{carrier['metadata']['name']}/status"
    server.refuse("PATCH", path, Refuse(403, "Forbidden", "not you"))
    async with asyncio.TaskGroup() as group:
        sending = group.create_task(scene.recorder.run(), name="events")
        assert await scene.reconciler.reconcile(MYVM) == Requeue(30.0)
        await server.until(lambda: bool(server.list(EVENTS)))
        sending.cancel()
    [event] = server.list(EVENTS)
    assert event["reason"] == "FailedPodPatch"
    assert event["note"].endswith("cannot be marked as one whose guest runs or is paused: not you")
    assert await scene.reconciler.reconcile(MYVM) is None
    [carrier] = server.list(PODS)
    assert [c["status"] for c in carrier["status"]["conditions"]] == ["True"]


def put(scene: Scene, server: ApiServer) -> None:
    """A guest that runs in a pod that does not say so yet, as the caches know both."""
    body: Json = msgspec.to_builtins(guest(READY))
    del body["metadata"]["resourceVersion"]
    stored = server.put(VIRTUAL_MACHINE_INSTANCES, body)
    scene.vmis.replace([msgspec.convert(stored, v1.VirtualMachineInstance)])
    scene.pods.replace([gated()])


async def test_a_pod_that_has_gone_is_not_made_again(server: ApiServer, client: KubeClient) -> None:
    """Where the cache does not know yet that it has."""
    scene = Scene(client)
    put(scene, server)
    await scene.reconciler.reconcile(MYVM)
    assert [r.path.rpartition("/")[2] for r in server.requests if "/pods/" in r.path] == ["status"]
    assert server.list(PODS) == []
