"""A pass that comes before the watches tell of the last one's writes must not repeat them."""

from datetime import timedelta

import msgspec
import pytest
from podvisor_common.api import core, v1
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.errors import ApiConflict
from podvisor_common.kube.events import EventRecorder
from podvisor_common.kube.informer import Informer
from podvisor_common.kube.resources import (
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    VIRTUAL_MACHINE_INSTANCES,
    VIRTUAL_MACHINES,
    ObjectKey,
)
from podvisor_controller.node.attendance import UNRESPONSIVE_AFTER_S, Attendance
from podvisor_controller.vmi.claim_users import KEEPERS_INDEX, USERS_INDEX
from podvisor_controller.vmi.claims import claims_kept, claims_used
from podvisor_controller.vmi.pod_index import OWNER_INDEX, owner_keys
from podvisor_controller.vmi.reconciler import VmiReconciler

from tests.unit.controller.api_server import ApiServer
from tests.unit.controller.builders import CONFIG, NOW, ended_pod, stamp, vmi_body

KEY = ObjectKey("shop", "myvm")


class Scene:
    """A reconciler whose caches hear of nothing: no watch runs at all."""

    def __init__(self, client: KubeClient) -> None:
        self.vmis = Informer(
            client,
            VIRTUAL_MACHINE_INSTANCES,
            v1.VirtualMachineInstance,
            indexers={USERS_INDEX: claims_used, KEEPERS_INDEX: claims_kept},
        )
        self.pods = Informer(client, PODS, core.Pod, indexers={OWNER_INDEX: owner_keys})
        self.nodes = Informer(client, NODES, core.Node)
        self.at = NOW
        self.monotonic_s = 0.0
        self.attendance = Attendance(lambda: self.monotonic_s)
        self.recorder = EventRecorder(client, "test", "test")
        self.reconciler = VmiReconciler(
            client,
            vms=Informer(client, VIRTUAL_MACHINES, v1.VirtualMachine),
            vmis=self.vmis,
            pods=self.pods,
            volume_claims=Informer(client, PERSISTENT_VOLUME_CLAIMS, core.PersistentVolumeClaim),
            nodes=self.nodes,
            attendance=self.attendance,
            exports=lambda _: {},
            config=lambda: CONFIG,
            recorder=self.recorder,
            clock=lambda: self.at,
        )


async def test_a_pod_is_deleted_once(server: ApiServer, client: KubeClient) -> None:
    scene = Scene(client)
    body = vmi_body()
    del body["metadata"]["resourceVersion"]
    stored = server.put(VIRTUAL_MACHINE_INSTANCES, body)
    scene.vmis.replace([msgspec.convert(stored, v1.VirtualMachineInstance)])
    await scene.reconciler.reconcile(KEY)
    (pod,) = server.list(PODS)
    # As for a pod that has its grace period: the object stays for a while.
    kept = server.put(PODS, {**pod, "metadata": {**pod["metadata"], "finalizers": ["test/grace"]}})
    scene.pods.apply(msgspec.convert(kept, core.Pod))
    deleted = {**stored["metadata"], "deletionTimestamp": stamp()}
    going = server.put(VIRTUAL_MACHINE_INSTANCES, {**stored, "metadata": deleted})
    scene.vmis.apply(msgspec.convert(going, v1.VirtualMachineInstance))
    await scene.reconciler.reconcile(KEY)
    await scene.reconciler.reconcile(KEY)
    assert [r.path for r in server.requests if r.method == "DELETE"] == [
        f"/api/v1/namespaces/shop/pods/{pod['metadata']['name']}"
    ]


async def test_a_finalizer_is_released_once(server: ApiServer, client: KubeClient) -> None:
    scene = Scene(client)
    body = vmi_body(status={"phase": "Succeeded"})
    del body["metadata"]["resourceVersion"]
    body["metadata"] |= {"deletionTimestamp": stamp()}
    stored = server.put(VIRTUAL_MACHINE_INSTANCES, body)
    scene.vmis.replace([msgspec.convert(stored, v1.VirtualMachineInstance)])
    await scene.reconciler.reconcile(KEY)
    await scene.reconciler.reconcile(KEY)
    assert [r.method for r in server.requests if r.path.endswith("/myvm")] == ["PATCH"]


async def test_the_finalizer_of_a_namesake_is_left_alone(
    server: ApiServer, client: KubeClient
) -> None:
    """The instance that the cache shows is gone, and its machine has made another one."""
    scene = Scene(client)
    body = vmi_body(status={"phase": "Succeeded"})
    del body["metadata"]["resourceVersion"]
    stored = server.put(VIRTUAL_MACHINE_INSTANCES, body)
    gone = {**stored["metadata"], "deletionTimestamp": stamp(), "uid": "before"}
    cached = msgspec.convert({**stored, "metadata": gone}, v1.VirtualMachineInstance)
    scene.vmis.replace([cached])
    with pytest.raises(ApiConflict):
        await scene.reconciler.reconcile(KEY)
    assert server.get(VIRTUAL_MACHINE_INSTANCES, KEY) == stored


async def test_an_end_that_the_cache_has_not_seen_is_not_contradicted_again_and_again(
    server: ApiServer, client: KubeClient
) -> None:
    """The handler has reported it, and the watch that would tell of that is down."""
    scene = Scene(client)
    server.put(NODES, {"metadata": {"name": "n1"}})
    status = {"phase": "Running", "nodeName": "n1"}
    body = vmi_body(status=status)
    del body["metadata"]["resourceVersion"]
    stored = server.put(VIRTUAL_MACHINE_INSTANCES, body)
    scene.vmis.replace([msgspec.convert(stored, v1.VirtualMachineInstance)])
    scene.pods.replace([ended_pod(0)])
    await scene.reconciler.reconcile(KEY)
    stored = server.get(VIRTUAL_MACHINE_INSTANCES, KEY) or {}
    server.put(VIRTUAL_MACHINE_INSTANCES, {**stored, "status": {**status, "phase": "Succeeded"}})
    scene.at = NOW + timedelta(seconds=4)
    with pytest.raises(ApiConflict):
        await scene.reconciler.reconcile(KEY)
    await scene.reconciler.reconcile(KEY)
    told = server.get(VIRTUAL_MACHINE_INSTANCES, KEY)
    assert told is not None
    assert told["status"]["phase"] == "Succeeded"


async def test_a_node_that_is_back_is_not_fenced_by_a_cache_that_has_not_heard_of_it(
    server: ApiServer, client: KubeClient
) -> None:
    scene = Scene(client)
    taint = {"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}
    away = server.put(NODES, {"metadata": {"name": "n1"}, "spec": {"taints": [taint]}})
    scene.nodes.replace([msgspec.convert(away, core.Node)])
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    server.put(NODES, {"metadata": {"name": "n1"}, "spec": {}, "status": ready})
    body = vmi_body(status={"phase": "Running", "nodeName": "n1"})
    del body["metadata"]["resourceVersion"]
    stored = server.put(VIRTUAL_MACHINE_INSTANCES, body)
    scene.vmis.replace([msgspec.convert(stored, v1.VirtualMachineInstance)])
    await scene.reconciler.reconcile(KEY)
    told = server.get(VIRTUAL_MACHINE_INSTANCES, KEY)
    assert told is not None
    assert told["status"]["phase"] == "Running"


async def test_a_node_that_is_late_is_given_time(server: ApiServer, client: KubeClient) -> None:
    """As all are when the API server was away: nothing is written before that has lasted."""
    scene = Scene(client)
    silent = {"conditions": [{"type": "Ready", "status": "Unknown"}]}
    node = msgspec.convert({"metadata": {"name": "n1"}, "status": silent}, core.Node)
    scene.nodes.replace([node])
    scene.attendance.saw(node)
    body = vmi_body(status={"phase": "Running", "nodeName": "n1"})
    del body["metadata"]["resourceVersion"]
    stored = server.put(VIRTUAL_MACHINE_INSTANCES, body)
    scene.vmis.replace([msgspec.convert(stored, v1.VirtualMachineInstance)])
    again = await scene.reconciler.reconcile(KEY)
    assert server.requests == []
    assert again is not None
    assert again.after_s == UNRESPONSIVE_AFTER_S
    scene.monotonic_s += again.after_s
    await scene.reconciler.reconcile(KEY)
    told = server.get(VIRTUAL_MACHINE_INSTANCES, KEY)
    assert told is not None
    assert told["status"]["phase"] == "Running"
    (ready,) = told["status"]["conditions"]
    assert (ready["status"], ready["reason"]) == ("False", "NodeUnresponsive")
