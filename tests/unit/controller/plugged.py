"""Machines with volumes that come and go, as the controller sees them: manifests, pods that hold volumes, what is said of either."""

from datetime import timedelta
from typing import Any

import msgspec
from podvisor_common.api import core, v1
from podvisor_common.api.v1 import names
from podvisor_controller.vmi.attachment_pod import attachment_pod_name
from podvisor_controller.vmi.attachments import Attachments, Failure
from podvisor_controller.vmi.claims import Rival

from tests.unit.controller.builders import (
    NOW,
    UID,
    Json,
    claim,
    on_claim,
    pod,
    spec_body,
    stamp,
    vmi,
)

LAUNCHER = pod("Running", node="n1")
INFO = {
    "claimName": "data",
    "accessModes": ["ReadWriteOnce"],
    "volumeMode": "Filesystem",
    "capacity": {"storage": "10Gi"},
    "requests": {"storage": "10Gi"},
}


def volume(name: str = "data", claim_name: str = "data", **source: Any) -> Json:
    """A volume that may come and go."""
    body = {"claimName": claim_name, "hotpluggable": True} | source
    return {"name": name, "persistentVolumeClaim": body}


def disk(name: str = "data", **target: Any) -> Json:
    return {"name": name} | (target or {"disk": {"bus": "scsi"}})


def with_volumes(*volumes: Json, disks: tuple[Json, ...] | None = None) -> Json:
    """The introduction's machine with more volumes, and a disk for each unless told otherwise."""
    spec = spec_body()
    spec["volumes"] = [*spec["volumes"], *volumes]
    devices = spec["domain"]["devices"]
    more = disks if disks is not None else tuple(disk(v["name"]) for v in volumes)
    devices["disks"] = [*devices["disks"], *more]
    return spec


def told(name: str = "data", phase: str = "", uid: str = "hp-0", **changes: Any) -> Json:
    """What the status says of a volume that a pod holds."""
    holder = {"attachPodName": attachment_pod_name(UID, name), "attachPodUID": uid}
    entry = {"name": name, "hotplugVolume": holder, "persistentVolumeClaimInfo": INFO} | changes
    if phase == names.VolumePhase.UNMOUNTED_FROM_POD:
        entry = {"unmountedPodUID": uid} | entry
    return entry | ({"phase": phase} if phase else {})


def running(
    *volumes: Json, status: tuple[Json, ...] = (), **changes: Any
) -> v1.VirtualMachineInstance:
    """An instance whose guest runs on n1."""
    body = {"phase": "Running", "nodeName": "n1", "volumeStatus": list(status)}
    spec = changes.pop("spec", None) or with_volumes(*volumes)
    return vmi(spec=spec, status=body, **changes)


def holder(
    name: str = "data", claim_name: str = "data", phase: str = "Running", **changes: Any
) -> core.Pod:
    """A pod of LAUNCHER's that holds a volume."""
    attempt, uid = changes.pop("attempt", 0), changes.pop("uid", "hp-0")
    owner = {"apiVersion": "v1", "kind": "Pod", "name": LAUNCHER.metadata.name, "uid": "pod-1"}
    body: Json = {
        "metadata": {
            "name": attachment_pod_name(UID, name, attempt),
            "namespace": "shop",
            "uid": uid,
            "creationTimestamp": stamp(30),
            "labels": {names.HELD_VOLUME_LABEL: name, names.APP_LABEL: names.HOTPLUG_DISK_APP},
            "annotations": {names.HELD_CLAIM_ANNOTATION: claim_name},
            "ownerReferences": [owner | {"controller": True}],
        }
        | changes.pop("metadata", {}),
        "spec": {"nodeName": changes.pop("node", "n1")},
        "status": {"phase": phase} | changes.pop("status", {}),
    }
    return msgspec.convert(body, core.Pod)


def attachments(
    instance: v1.VirtualMachineInstance, *pods: core.Pod, **changes: Any
) -> Attachments:
    fields: Json = {
        "launcher": LAUNCHER,
        "at": NOW,
        "is_over": "launcher" in changes and changes["launcher"] is None,
        "claims": {"data": claim(), "other": claim("other")},
    }
    return Attachments(vmi=instance, pods=pods, **(fields | changes))


def rival(spec: Json, *, age_s: float = 30, node: str = "n1", **changes: Any) -> Rival:
    """Another instance; the one of vmi() is 60 seconds old."""
    status = {"phase": "Running", "nodeName": node, **changes.pop("status", {})}
    metadata = {"name": "other", "uid": "other", "creationTimestamp": stamp(age_s)}
    other = vmi(metadata=metadata, spec=spec, status=status)
    return Rival(other, **({"has_pod": bool(node)} | changes))


FIRST, SECOND = attachment_pod_name(UID, "data"), attachment_pod_name(UID, "data", 1)
LATER, EARLIER = Failure("why", NOW + timedelta(seconds=5)), Failure("why", NOW)
DYING = {"deletionTimestamp": stamp(1)}
PLUGGED, FIXED = with_volumes(volume()), on_claim()
