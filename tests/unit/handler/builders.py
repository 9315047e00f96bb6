"""Objects for tests: valid by default, each argument one deviation."""

from typing import Any

import msgspec
from podvisor_common.api import core, v1

from tests.unit.handler.fake_launcher import POD_UID, VMI_UID

CREATED = "2026-01-02T03:04:05Z"
HOLDER_UID = "7c5b2c3e-0d3b-4a3e-9a39-4f1c6b0f3f77"


def vmi_manifest(
    *,
    name: str = "myvm",
    phase: str = "Scheduled",
    deleted: bool = False,
    pods: tuple[str, ...] = (POD_UID,),
    spec: dict[str, Any] | None = None,
    status: dict[str, Any] | None = None,
    **metadata: Any,
) -> dict[str, Any]:
    """A VirtualMachineInstance on node1 as the API server shows it."""
    meta = {
        "name": name,
        "namespace": "default",
        "uid": VMI_UID,
        "generation": 1,
        "resourceVersion": "100",
        "creationTimestamp": CREATED,
        **({"deletionTimestamp": CREATED} if deleted else {}),
        **metadata,
    }
    default_spec = {
        "terminationGracePeriodSeconds": 5,
        "domain": {"memory": {"guest": "64M"}, "devices": {}},
    }
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": meta,
        "spec": {**default_spec, **(spec or {})},
        "status": {
            "phase": phase,
            "nodeName": "node1",
            "activePods": dict.fromkeys(pods, "node1"),
            **(status or {}),
        },
    }


def vmi(**arguments: Any) -> v1.VirtualMachineInstance:
    """The same, decoded."""
    return msgspec.convert(vmi_manifest(**arguments), v1.VirtualMachineInstance)


def pod_manifest(
    *,
    uid: str = POD_UID,
    name: str = "virt-launcher-myvm-abcde",
    phase: str = "Running",
    exit_code: int | None = None,
    deletion_grace_s: int | None = None,
    kvm: bool = False,
    creator: str = VMI_UID,
    namespace: str = "default",
    domain: str = "myvm",
    reason: str = "",
    message: str = "",
    devices: tuple[str, ...] = (),
    annotations: dict[str, str] | None = None,
    sysctls: dict[str, str] | None = None,
) -> dict[str, Any]:
    """The launcher pod of that instance."""
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": namespace,
        "uid": uid,
        "resourceVersion": "50",
        "creationTimestamp": CREATED,
        "labels": {"kubevirt.io": "virt-launcher", "kubevirt.io/created-by": creator},
        "annotations": {
            "kubevirt.io/domain": domain,
            "kubevirt.io/memory-overhead-bytes": str(146 << 20),
            **(annotations or {}),
        },
    }
    if deletion_grace_s is not None:
        metadata["deletionTimestamp"] = CREATED
        metadata["deletionGracePeriodSeconds"] = deletion_grace_s
    requests = {"memory": "128Mi", **({"devices.kubevirt.io/kvm": "1"} if kvm else {})}
    compute: dict[str, Any] = {"name": "compute", "resources": {"requests": requests}}
    if devices:
        compute["volumeDevices"] = [
            {"name": name, "devicePath": f"/dev/podvisor/{name}"} for name in devices
        ]
    status: dict[str, Any] = {"phase": phase, "reason": reason, "message": message}
    if exit_code is not None:
        ended = {"terminated": {"exitCode": exit_code}}
        status["containerStatuses"] = [{"name": "compute", "state": ended}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {
            "nodeName": "node1",
            "securityContext": {
                "runAsUser": 107,
                "sysctls": [{"name": k, "value": v} for k, v in (sysctls or {}).items()],
            },
            "containers": [compute],
        },
        "status": status,
    }


def holder_manifest(
    *,
    uid: str = HOLDER_UID,
    name: str = "hp-volume-0123456789",
    volume: str = "extra",
    phase: str = "Running",
    deleted: bool = False,
    is_device: bool = False,
    owner: str = POD_UID,
) -> dict[str, Any]:
    """The pod that holds a volume for that instance."""
    device = {"name": volume, "devicePath": f"/dev/podvisor/{volume}"}
    mount = {"name": volume, "mountPath": f"/run/podvisor/volumes/{volume}"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "default",
            "uid": uid,
            "resourceVersion": "60",
            "creationTimestamp": CREATED,
            "labels": {"kubevirt.io": "hotplug-disk", "kubevirt.io/created-by": VMI_UID},
            "annotations": {"kubevirt.io/owner-vmi-name": "myvm"},
            "ownerReferences": [{"kind": "Pod", "uid": owner, "controller": True}] if owner else [],
            **({"deletionTimestamp": CREATED} if deleted else {}),
        },
        "spec": {
            "nodeName": "node1",
            "securityContext": {"runAsUser": 107, "runAsNonRoot": True},
            "volumes": [
                {"name": "sockets", "emptyDir": {"sizeLimit": "1Mi"}},
                {"name": volume, "persistentVolumeClaim": {"claimName": volume}},
            ],
            "containers": [
                {
                    "name": "hotplug-disk",
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    **({"volumeDevices": [device]} if is_device else {"volumeMounts": [mount]}),
                }
            ],
        },
        "status": {"phase": phase},
    }


def holder(**arguments: Any) -> core.Pod:
    """The same, decoded."""
    return msgspec.convert(holder_manifest(**arguments), core.Pod)


def held(
    volume: str = "extra",
    *,
    uid: str = HOLDER_UID,
    name: str = "hp-volume-0123456789",
    mode: str = "Filesystem",
    **own: Any,
) -> dict[str, Any]:
    """The entry of a volume that such a pod holds, as the controller writes it, and what the handler wrote."""
    return {
        "name": volume,
        "hotplugVolume": {"attachPodName": name, "attachPodUID": uid},
        "persistentVolumeClaimInfo": {
            "claimName": "c",
            "volumeMode": mode,
            "capacity": {"storage": "1Gi"},
        },
        **own,
    }


def pod(**arguments: Any) -> core.Pod:
    """The same, decoded."""
    return msgspec.convert(pod_manifest(**arguments), core.Pod)
