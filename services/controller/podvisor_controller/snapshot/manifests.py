"""The objects that a snapshot of a machine is made of. Pure.

Invariant: what is kept of a machine and its claims is what the API server had of them, word for word, without what it notes about
writers and without their statuses.
"""

from collections.abc import Mapping
from typing import Any

from podvisor_common.api.snapshot import (
    VirtualMachineSnapshot,
    VirtualMachineSnapshotContent,
    VolumeBackup,
    names,
)
from podvisor_common.kube.resources import SNAPSHOT_CONTENTS, VOLUME_SNAPSHOTS

from podvisor_controller.snapshot.observed import content_name, volume_snapshot_name
from podvisor_controller.snapshot.outline import claim_of

Json = dict[str, Any]


def content_manifest(
    snapshot: VirtualMachineSnapshot, machine: Json, claims: Mapping[str, Json]
) -> Json:
    """The content with `machine` and, by the name of its volume, every claim that a VolumeSnapshot is to be made of."""
    backups = [
        {
            "volumeName": volume,
            "persistentVolumeClaim": _copy_of(claim),
            "volumeSnapshotName": volume_snapshot_name(snapshot, volume),
        }
        for volume, claim in claims.items()
    ]
    return {
        "apiVersion": SNAPSHOT_CONTENTS.api_version,
        "kind": SNAPSHOT_CONTENTS.kind,
        "metadata": {
            "name": content_name(snapshot),
            "namespace": snapshot.metadata.namespace,
            "finalizers": [names.CONTENT_FINALIZER],
        },
        "spec": {
            "virtualMachineSnapshotName": snapshot.metadata.name,
            "source": {"virtualMachine": _unlocked(_copy_of(machine))},
            "volumeBackups": backups,
        },
    }


def as_it_runs(machine: Json, started: Mapping[str, Any] | None) -> Json:
    """The machine as its guest has it: the template that it was started with, where that is another, with today's disks and volumes.

    `started` is the specification that its start recorded. Disks and volumes may have come and gone since.
    """
    template = (started or {}).get("template")
    if not isinstance(template, dict) or not isinstance(template.get("spec"), dict):
        return machine
    now, then = machine["spec"]["template"]["spec"], template["spec"]
    devices = _without(then.get("domain", {}).get("devices", {}), "disks") | _only(
        now.get("domain", {}).get("devices", {}), "disks"
    )
    spec = _without(then, "volumes") | _only(now, "volumes")
    spec["domain"] = then.get("domain", {}) | {"devices": devices}
    return machine | {"spec": machine["spec"] | {"template": template | {"spec": spec}}}


def volume_snapshot_manifest(
    content: VirtualMachineSnapshotContent, backup: VolumeBackup, snapshot_class: str
) -> Json:
    """The VolumeSnapshot of one volume. It goes with its content."""
    claim, _ = claim_of(backup)
    machine = content.spec.source.virtual_machine or {}
    labels = {
        names.SOURCE_NAME_LABEL: machine.get("metadata", {}).get("name", ""),
        names.SOURCE_NAMESPACE_LABEL: content.metadata.namespace,
    }
    owner = {
        "apiVersion": SNAPSHOT_CONTENTS.api_version,
        "kind": SNAPSHOT_CONTENTS.kind,
        "name": content.metadata.name,
        "uid": content.metadata.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
    return {
        "apiVersion": VOLUME_SNAPSHOTS.api_version,
        "kind": VOLUME_SNAPSHOTS.kind,
        "metadata": {
            "name": backup.volume_snapshot_name,
            "namespace": content.metadata.namespace,
            "labels": labels,
            "ownerReferences": [owner],
        },
        "spec": {
            "source": {"persistentVolumeClaimName": claim},
            "volumeSnapshotClassName": snapshot_class,
        },
    }


def _copy_of(obj: Json) -> Json:
    return {"metadata": _without(obj["metadata"], "managedFields"), "spec": obj["spec"]}


def _unlocked(machine: Json) -> Json:
    """The machine without the mark of the snapshot itself."""
    metadata = machine["metadata"]
    finalizers = [one for one in metadata.get("finalizers", ()) if one != names.SOURCE_FINALIZER]
    return machine | {"metadata": metadata | {"finalizers": finalizers}}


def _without(obj: Mapping[str, Any], *keys: str) -> Json:
    return {key: value for key, value in obj.items() if key not in keys}


def _only(obj: Mapping[str, Any], key: str) -> Json:
    return {key: obj[key]} if key in obj else {}
