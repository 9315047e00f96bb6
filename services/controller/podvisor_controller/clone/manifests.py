"""The snapshot and the restore that a clone is made by. Pure.

Invariant: both names follow from the clone's UID, so that whoever goes on with it finds them, and both go with the clone.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

from podvisor_common.api.clone import VirtualMachineClone
from podvisor_common.api.clone import names as clone_names
from podvisor_common.api.v1 import names
from podvisor_common.kube.resources import RESTORES, SNAPSHOTS, Resource

from podvisor_controller.webhooks.defaults_instance import owner_reference

Json = dict[str, Any]

_DIGEST_LENGTH = 5
_MAX_NAME_LENGTH = 63


def snapshot_name(clone: VirtualMachineClone) -> str:
    """The name of the snapshot that is used."""
    if clone.spec.source.kind != names.VIRTUAL_MACHINE:
        return clone.spec.source.name
    return f"tmp-snapshot-{clone.metadata.uid}"


def restore_name(clone: VirtualMachineClone) -> str:
    """The name of the restore that is used."""
    return f"tmp-restore-{clone.metadata.uid}"


def target_name(clone: VirtualMachineClone) -> str:
    """The name of the machine that is made, which is made up where none is given: always the same one for a clone."""
    if clone.spec.target is not None:
        return clone.spec.target.name
    digest = hashlib.sha256(clone.metadata.uid.encode()).hexdigest()[:_DIGEST_LENGTH]
    room = _MAX_NAME_LENGTH - len("clone--") - _DIGEST_LENGTH
    return f"clone-{clone.spec.source.name[:room].rstrip('.-')}-{digest}"


def snapshot_manifest(clone: VirtualMachineClone) -> Json:
    """The snapshot of the source, which is a machine."""
    source = _machine(clone.spec.source.name)
    return _manifest(clone, SNAPSHOTS, snapshot_name(clone), {"source": source})


def restore_manifest(clone: VirtualMachineClone, patches: Sequence[str]) -> Json:
    """The restore to the target."""
    spec: Json = {
        "target": _machine(target_name(clone)),
        "virtualMachineSnapshotName": snapshot_name(clone),
        "patches": list(patches),
    }
    if clone.spec.volume_name_policy is not None:
        spec["volumeRestorePolicy"] = clone.spec.volume_name_policy
    return _manifest(clone, RESTORES, restore_name(clone), spec)


def _machine(name: str) -> Json:
    return {"apiGroup": names.GROUP, "kind": names.VIRTUAL_MACHINE, "name": name}


def _manifest(clone: VirtualMachineClone, resource: Resource, name: str, spec: Json) -> Json:
    metadata = clone.metadata
    owner = owner_reference(
        metadata.name, metadata.uid, kind=clone_names.CLONE, api_version=clone_names.API_VERSION
    )
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {"name": name, "namespace": metadata.namespace, "ownerReferences": [owner]},
        "spec": spec,
    }
