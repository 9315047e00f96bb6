"""Objects for the controller's tests, with what a test does not care about filled in."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from podvisor_common.api import core, v1
from podvisor_common.api.v1 import names
from podvisor_controller.config import ClusterConfig
from podvisor_controller.node.health import NodeHealth
from podvisor_controller.vm.observed import Observed as VmObserved
from podvisor_controller.vmi.observed import Observed
from podvisor_controller.vmi.pod import launcher_pod_name

NOW = datetime(2026, 1, 1, 0, 1, tzinfo=UTC)
UID = "11111111-1111-1111-1111-111111111111"
VM_UID = "22222222-2222-2222-2222-222222222222"
IMAGE = "registry.example/virt-launcher:1"
CONFIG = ClusterConfig(launcher_image=IMAGE, use_emulation=True, image_volumes=True)

Json = dict[str, Any]


def situations(*rows: tuple[Any, ...]) -> list[Any]:
    """Rows of a table for parametrize; the first column says in words what the row is about."""
    return [pytest.param(*row[1:], id=row[0]) for row in rows]


def stamp(seconds_ago: float = 60) -> str:
    """RFC 3339 text of a moment before NOW."""
    return (NOW - timedelta(seconds=seconds_ago)).strftime("%Y-%m-%dT%H:%M:%SZ")


def handlers_body(**status: int) -> Json:
    """The DaemonSet of the handlers, which are ready on the one node unless `status` says otherwise."""
    return {
        "metadata": {"namespace": "kubevirt", "name": "virt-handler", "generation": 2},
        "status": {
            "observedGeneration": 2,
            "desiredNumberScheduled": 1,
            "updatedNumberScheduled": 1,
            "numberAvailable": 1,
        }
        | status,
    }


def spec_body(**changes: Any) -> Json:
    """The specification of the introduction's machine, as v1."""
    return {
        "terminationGracePeriodSeconds": 5,
        "domain": {
            "resources": {"requests": {"memory": "64M"}},
            "devices": {"disks": [{"name": "root", "disk": {"bus": "virtio"}}]},
        },
        "volumes": [
            {"name": "root", "containerDisk": {"image": "demo/disk:devel"}},
            {"name": "seed", "cloudInitNoCloud": {"userData": "hunter2"}},
        ],
    } | changes


def vmi_body(*, owned: bool = False, **changes: Any) -> Json:
    """An instance as JSON; `metadata`, `spec` and `status` are merged over the defaults."""
    metadata: Json = {
        "name": "myvm",
        "namespace": "shop",
        "uid": UID,
        "resourceVersion": "7",
        "creationTimestamp": stamp(),
        "finalizers": [names.VMI_FINALIZER],
    }
    if owned:
        owner = {"kind": "VirtualMachine", "name": "myvm", "uid": VM_UID, "controller": True}
        metadata["ownerReferences"] = [{"apiVersion": names.API_VERSION, **owner}]
    return {
        "apiVersion": names.API_VERSION,
        "kind": "VirtualMachineInstance",
        "metadata": metadata | changes.get("metadata", {}),
        "spec": spec_body() | changes.get("spec", {}),
        "status": changes.get("status", {}),
    }


def vmi(*, owned: bool = False, **changes: Any) -> v1.VirtualMachineInstance:
    return msgspec.convert(vmi_body(owned=owned, **changes), v1.VirtualMachineInstance)


def scheduled(phase: str = "Scheduled", **status: Any) -> v1.VirtualMachineInstance:
    """An instance whose pod was bound to node n1."""
    return vmi(status={"phase": phase, "nodeName": "n1", **status})


def deleted(status: Json | None = None, **metadata: Any) -> v1.VirtualMachineInstance:
    """An instance that is being deleted."""
    return vmi(metadata={"deletionTimestamp": stamp(1), **metadata}, status=status or {})


def pod(phase: str = "Pending", *, node: str = "", **changes: Any) -> core.Pod:
    """A launcher pod of vmi(); `metadata`, `spec` and `status` are merged over the defaults."""
    owner = {"kind": "VirtualMachineInstance", "name": "myvm", "uid": UID, "controller": True}
    body: Json = {
        "metadata": {
            "name": launcher_pod_name("myvm", UID),
            "namespace": "shop",
            "uid": "pod-1",
            "creationTimestamp": stamp(59),
            "ownerReferences": [{"apiVersion": names.API_VERSION, **owner}],
        }
        | changes.get("metadata", {}),
        "spec": {"containers": [{"name": "compute", "image": IMAGE}]}
        | ({"nodeName": node} if node else {})
        | changes.get("spec", {}),
        "status": {"phase": phase, "qosClass": "Burstable"} | changes.get("status", {}),
    }
    return msgspec.convert(body, core.Pod)


def ended_pod(
    exit_code: int, *, seconds_ago: float = 10, phase: str = "", **metadata: Any
) -> core.Pod:
    """A pod whose containers have ended."""
    terminated = {
        "exitCode": exit_code,
        "reason": "Completed" if exit_code == 0 else "Error",
        "startedAt": stamp(50),
        "finishedAt": stamp(seconds_ago),
    }
    statuses = [{"name": "compute", "state": {"terminated": terminated}}]
    return pod(
        phase or ("Failed" if exit_code else "Succeeded"),
        node="n1",
        metadata=metadata,
        status={"containerStatuses": statuses},
    )


def lingering_pod(*, seconds_ago: float = 10, **metadata: Any) -> core.Pod:
    """A pod whose `compute` has ended, and whose other container has not noticed."""
    return ended_pod(2, seconds_ago=seconds_ago, phase="Running", **metadata)


def waiting_pod(reason: str, message: str = "") -> core.Pod:
    """A bound pod whose `compute` waits."""
    state = {"waiting": {"reason": reason, "message": message}}
    return pod(
        "Pending", node="n1", status={"containerStatuses": [{"name": "compute", "state": state}]}
    )


def initializing_pod(reason: str, message: str = "") -> core.Pod:
    """A bound pod whose `compute` waits for a container that holds an image, and that one waits as well."""
    holder = {"waiting": {"reason": reason, "message": message}}
    first = [
        {"name": "container-disk-binary", "state": {"terminated": {"exitCode": 0}}},
        {"name": "volumeroot", "state": holder},
    ]
    others = [{"name": "compute", "state": {"waiting": {"reason": "PodInitializing"}}}]
    return pod(
        "Pending", node="n1", status={"initContainerStatuses": first, "containerStatuses": others}
    )


def refused_pod() -> core.Pod:
    """A pod that the kubelet refused before any container started."""
    return pod(
        "Failed", node="n1", status={"reason": "OutOfcpu", "message": "Node didn't have enough cpu"}
    )


def unstartable_pod() -> core.Pod:
    """A pod whose `compute` the runtime could not start; the other container runs, and so does the pod."""
    terminated = {
        "exitCode": 128,
        "reason": "StartError",
        "message": "failed to create containerd task",
        "startedAt": "1970-01-01T00:00:00Z",
        "finishedAt": stamp(10),
    }
    statuses = [
        {"name": "compute", "state": {"terminated": terminated}},
        {"name": "guest-console-log", "state": {"running": {"startedAt": stamp(9)}}},
    ]
    return pod("Running", node="n1", status={"containerStatuses": statuses})


def unschedulable_pod(seconds_ago: float) -> core.Pod:
    """A pod that fits no node."""
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/1 nodes are available",
        "lastTransitionTime": stamp(seconds_ago),
    }
    return pod(status={"conditions": [condition]})


def claim_body(
    name: str = "data", *, mode: str = "Filesystem", capacity: str = "10Gi", **metadata: Any
) -> Json:
    """A claim for 10Gi as JSON. One without capacity is not bound."""
    got = {"phase": "Bound", "capacity": {"storage": capacity}}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"namespace": "shop", "name": name, "uid": f"uid-{name}"} | metadata,
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "volumeMode": mode,
            "resources": {"requests": {"storage": "10Gi"}},
        },
        "status": got if capacity else {"phase": "Pending"},
    }


def claim(name: str = "data", **changes: Any) -> core.PersistentVolumeClaim:
    return msgspec.convert(claim_body(name, **changes), core.PersistentVolumeClaim)


def on_claim(name: str = "data", **changes: Any) -> Json:
    """The specification of a machine whose one disk is a claim; `disk` says which, and `source` or `volume` how."""
    disk = {"name": "data"} | changes.get("disk", {"disk": {"bus": "virtio"}})
    source = {"persistentVolumeClaim": {"claimName": name} | changes.get("source", {})}
    domain = {"resources": {"requests": {"memory": "64M"}}, "devices": {"disks": [disk]}}
    return {"domain": domain, "volumes": [{"name": "data"} | changes.get("volume", source)]}


def observed(instance: v1.VirtualMachineInstance, *pods: core.Pod, **changes: Any) -> Observed:
    defaults: Json = {"config": CONFIG, "node": NodeHealth.WELL, "at": NOW}
    return Observed(vmi=instance, pods=pods, **(defaults | changes))


def vm_body(run_strategy: str = "Always", **changes: Any) -> Json:
    """A machine as JSON."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": "VirtualMachine",
        "metadata": {
            "name": "myvm",
            "namespace": "shop",
            "uid": VM_UID,
            "generation": 3,
            "resourceVersion": "5",
            "creationTimestamp": stamp(),
            "finalizers": [names.VM_FINALIZER],
        }
        | changes.get("metadata", {}),
        "spec": {
            "runStrategy": run_strategy,
            "template": {"metadata": {"labels": {"app": "demo"}}, "spec": spec_body()},
        }
        | changes.get("spec", {}),
        "status": changes.get("status", {}),
    }


def vm(run_strategy: str = "Always", **changes: Any) -> v1.VirtualMachine:
    return msgspec.convert(vm_body(run_strategy, **changes), v1.VirtualMachine)


def instance(phase: str = "", **changes: Any) -> v1.VirtualMachineInstance:
    """The instance of vm() in a phase."""
    status = {"phase": phase} | changes.pop("status", {})
    return vmi(owned=True, status=status, **changes)


def ran(phase: str, *, began_ago: float, ended_ago: float) -> v1.VirtualMachineInstance:
    """The instance of vm() that ran for a while and ended in `phase`."""
    times = [
        {"phase": "Running", "phaseTransitionTimestamp": stamp(began_ago)},
        {"phase": phase, "phaseTransitionTimestamp": stamp(ended_ago)},
    ]
    return instance(phase, status={"phaseTransitionTimestamps": times})


def vm_observed(
    machine: v1.VirtualMachine, own: v1.VirtualMachineInstance | None = None, **changes: Any
) -> VmObserved:
    defaults: Json = {"at": NOW}
    return VmObserved(vm=machine, instance=own, **(defaults | changes))


def failed_before(count: Any, *, uid: str = UID, retry_in_s: float = -1.0) -> Json:
    """The status of a machine whose instance `uid` was the last of `count` failures."""
    retry = stamp(-retry_in_s)
    failure = {
        "consecutiveFailCount": count,
        "lastFailedVMIUID": uid,
        "retryAfterTimestamp": retry,
    }
    return {"startFailure": failure}


SET_UID = "33333333-3333-3333-3333-333333333333"


def set_body(replicas: int = 3, **changes: Any) -> Json:
    """A set of instances as JSON; `metadata`, `spec` and `status` are merged over the defaults."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.REPLICA_SET,
        "metadata": {
            "name": "web",
            "namespace": "shop",
            "uid": SET_UID,
            "generation": 1,
            "resourceVersion": "5",
            "creationTimestamp": stamp(),
        }
        | changes.get("metadata", {}),
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": spec_body()},
        }
        | changes.get("spec", {}),
        "status": changes.get("status", {}),
    }


def replica_set(replicas: int = 3, **changes: Any) -> v1.VirtualMachineInstanceReplicaSet:
    return msgspec.convert(set_body(replicas, **changes), v1.VirtualMachineInstanceReplicaSet)


def member_body(name: str, phase: str = "Running", **changes: Any) -> Json:
    """An instance of replica_set() as JSON; `ready`, `node` and `owner` say what tests are about."""
    ready, owner = changes.pop("ready", phase == "Running"), changes.pop("owner", SET_UID)
    node = changes.pop("node", "n1" if phase in ("Scheduled", "Running") else "")
    reference = {"kind": names.REPLICA_SET, "name": "web", "uid": owner, "controller": True}
    owners = [{"apiVersion": names.API_VERSION, **reference}] if owner else []
    metadata: Json = {"name": name, "uid": f"uid-{name}", "labels": {"app": "web"}}
    return vmi_body(
        metadata=metadata | {"ownerReferences": owners} | changes.pop("metadata", {}),
        status={
            "phase": phase,
            "nodeName": node,
            "conditions": [{"type": "Ready", "status": str(ready)}],
        },
        **changes,
    )


def member(name: str, phase: str = "Running", **changes: Any) -> v1.VirtualMachineInstance:
    return msgspec.convert(member_body(name, phase, **changes), v1.VirtualMachineInstance)
