"""A pass that comes before the watches tell of the last one's writes must not repeat them."""

import msgspec
from podvisor_common.api import core, v1
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.events import EventRecorder
from podvisor_common.kube.informer import Informer
from podvisor_common.kube.resources import (
    NODES,
    PODS,
    VIRTUAL_MACHINE_INSTANCES,
    VIRTUAL_MACHINES,
    ObjectKey,
)
from podvisor_controller.vmi.reconciler import OWNER_INDEX, VmiReconciler, instance_keys

from tests.unit.controller.api_server import ApiServer
from tests.unit.controller.builders import CONFIG, stamp, vmi_body

KEY = ObjectKey("shop", "myvm")


async def test_a_pod_is_deleted_once(server: ApiServer, client: KubeClient) -> None:
    """The caches stay as they were before the deletion: no watch runs at all."""
    vmis = Informer(client, VIRTUAL_MACHINE_INSTANCES, v1.VirtualMachineInstance)
    pods = Informer(client, PODS, core.Pod, indexers={OWNER_INDEX: instance_keys})
    reconciler = VmiReconciler(
        client,
        vms=Informer(client, VIRTUAL_MACHINES, v1.VirtualMachine),
        vmis=vmis,
        pods=pods,
        nodes=Informer(client, NODES, core.Node),
        is_attended=lambda _: True,
        config=lambda: CONFIG,
        recorder=EventRecorder(client, "test", "test"),
    )
    body = vmi_body()
    del body["metadata"]["resourceVersion"]
    stored = server.put(VIRTUAL_MACHINE_INSTANCES, body)
    vmis.replace([msgspec.convert(stored, v1.VirtualMachineInstance)])
    await reconciler.reconcile(KEY)
    (pod,) = server.list(PODS)
    # As for a pod that has its grace period: the object stays for a while.
    kept = server.put(PODS, {**pod, "metadata": {**pod["metadata"], "finalizers": ["test/grace"]}})
    pods.apply(msgspec.convert(kept, core.Pod))
    deleted = {**stored["metadata"], "deletionTimestamp": stamp()}
    going = server.put(VIRTUAL_MACHINE_INSTANCES, {**stored, "metadata": deleted})
    vmis.apply(msgspec.convert(going, v1.VirtualMachineInstance))
    await reconciler.reconcile(KEY)
    await reconciler.reconcile(KEY)
    assert [r.path for r in server.requests if r.method == "DELETE"] == [
        f"/api/v1/namespaces/shop/pods/{pod['metadata']['name']}"
    ]
