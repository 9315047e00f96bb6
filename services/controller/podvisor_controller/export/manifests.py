"""What an exporter makes manifests of, and the claims that are made from a snapshot. Pure.

Invariant: of a machine there is what its owner wrote, not what the cluster has made of it: no status, no identity, no owner, and of its
claims neither the volume that they are bound to nor where their content came from.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from podvisor_common.api.export import VirtualMachineExport
from podvisor_common.api.quantity import Quantity
from podvisor_common.api.snapshot import VolumeBackup
from podvisor_common.api.v1 import names
from podvisor_common.kube.resources import PERSISTENT_VOLUME_CLAIMS

from podvisor_controller.export.identity import host, owner_reference, restored_claim_name
from podvisor_controller.export.pod import ServedVolume
from podvisor_controller.exporter.manifests import ExportedClaim, Ingredients
from podvisor_controller.snapshot.kept import spec_of_restored
from podvisor_controller.snapshot.outline import claim_of

Json = dict[str, Any]

_KEPT_OF_METADATA = ("name", "namespace", "labels", "annotations")
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
# Of a claim: where it is, and where its content came from.
_OF_THIS_CLUSTER = ("volumeName", "storageClassName", "dataSource", "dataSourceRef")


def ingredients(
    export: VirtualMachineExport,
    served: Sequence[ServedVolume],
    authority: bytes,
    machine: Json | None,
    claims: Mapping[str, Json],
) -> bytes:
    """What the exporter is told. `claims` has the specification of each claim by the name that the machine has it by."""
    whole = Ingredients(
        export_name=export.metadata.name,
        namespace=export.metadata.namespace,
        host=host(export),
        authority=authority.decode(),
        machine=_machine(machine) if machine is not None else None,
        claims=tuple(
            ExportedClaim(
                volume.name, volume.claim, _without(claims[volume.name], _OF_THIS_CLUSTER)
            )
            for volume in served
            if volume.name in claims
        ),
    )
    return msgspec.json.encode(whole)


def restored_claim(
    export: VirtualMachineExport, backup: VolumeBackup, restore_size: Quantity | None
) -> Json:
    """The claim with what the snapshot has of one. It goes with the export."""
    name, _ = claim_of(backup)
    return {
        "apiVersion": PERSISTENT_VOLUME_CLAIMS.api_version,
        "kind": PERSISTENT_VOLUME_CLAIMS.kind,
        "metadata": {
            "name": restored_claim_name(export, name),
            "namespace": export.metadata.namespace,
            "ownerReferences": [owner_reference(export)],
        },
        "spec": spec_of_restored(backup, restore_size),
    }


def _machine(machine: Json) -> Json:
    metadata = {
        key: machine["metadata"][key] for key in _KEPT_OF_METADATA if key in machine["metadata"]
    }
    if "annotations" in metadata:
        metadata["annotations"] = _without(metadata["annotations"], (_LAST_APPLIED,))
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.VIRTUAL_MACHINE,
        "metadata": metadata,
        "spec": machine["spec"],
    }


def _without(obj: Mapping[str, Any], keys: Sequence[str]) -> Json:
    return {key: value for key, value in obj.items() if key not in keys}
