"""What an object costs in a cache. A controller holds one pod and one instance for every machine of the cluster."""

import gc
from typing import Any

import msgspec
from podvisor_common.api import core
from podvisor_handler.vmi.outline import outline

from tests.support.memory import COPIES, cost_of_each

POD_LIMIT_BYTES = 4_000


def _launcher_pod() -> dict[str, Any]:
    """A launcher pod as the API server has it once the kubelet has said all it says."""
    moment = "2026-01-02T03:04:05Z"
    running = [
        {
            "name": name,
            "image": "registry.example.com/podvisor/virt-launcher:0123456789ab",
            "imageID": "registry.example.com/podvisor/virt-launcher@sha256:" + "0" * 64,
            "containerID": "containerd://" + "0" * 64,
            "ready": True,
            "started": True,
            "restartCount": 0,
            "lastState": {},
            "state": {"running": {"startedAt": moment}},
        }
        for name in ("compute", "guest-console-log")
    ]
    names = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "virt-launcher-myvm-abcde",
            "namespace": "default",
            "uid": "7c5b2c3e-0d3b-4a3e-9a39-4f1c6b0f3f01",
            "resourceVersion": "1234567",
            "creationTimestamp": moment,
            "labels": {"kubevirt.io": "virt-launcher", "vmi.kubevirt.io/id": "myvm"},
            "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:status": {}}}] * 3,
        },
        "spec": {
            "nodeName": "node1",
            "containers": [{"name": s["name"], "image": s["image"]} for s in running],
            "volumes": [{"name": f"v{number}", "emptyDir": {}} for number in range(6)],
            "priority": 0,
        },
        "status": {
            "phase": "Running",
            "conditions": [
                {
                    "type": name,
                    "status": "True",
                    "lastProbeTime": None,
                    "lastTransitionTime": moment,
                }
                for name in names
            ],
            "hostIP": "10.0.0.1",
            "podIP": "10.1.0.1",
            "podIPs": [{"ip": "10.1.0.1"}],
            "startTime": moment,
            "containerStatuses": running,
        },
    }


def test_a_pod_in_a_cache_is_what_is_read_of_it() -> None:
    raw = msgspec.json.encode(_launcher_pod())
    decode = msgspec.json.Decoder(core.Pod).decode
    assert cost_of_each(lambda: outline(decode(raw))) < POD_LIMIT_BYTES


def test_a_garbage_collection_does_not_go_through_cached_pods() -> None:
    """It would stop the loop for longer the more machines there are, and finds nothing."""
    raw = msgspec.json.encode(_launcher_pod())
    decode = msgspec.json.Decoder(core.Pod).decode
    gc.collect()
    before = len(gc.get_objects())
    kept = [outline(decode(raw)) for _ in range(COPIES)]
    gc.collect()
    assert len(gc.get_objects()) - before < COPIES / 10
    assert len(kept) == COPIES
