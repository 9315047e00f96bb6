"""Objects for tests: valid by default, each argument one deviation."""

from typing import Any

import msgspec
from podvisor_common.api import core, v1

from tests.unit.handler.fake_launcher import POD_UID, VMI_UID

CREATED = "2026-01-02T03:04:05Z"


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
            "containers": [compute],
        },
        "status": status,
    }


def pod(**arguments: Any) -> core.Pod:
    """The same, decoded."""
    return msgspec.convert(pod_manifest(**arguments), core.Pod)
