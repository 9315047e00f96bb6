"""What the controller says of an instance's volumes in its status: the claims behind them. Pure.

Invariant: an entry holds the name and the claim alone. The rest of it is the handler's, whatever of it there is.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from podvisor_common.api import core, v1

from podvisor_controller.vmi.claims import Claims, claimed

Body = dict[str, Any]


def volume_status(vmi: v1.VirtualMachineInstance, claims: Claims) -> list[Body]:
    """An entry for every volume with a claim. Of a claim that is gone, what was said stays."""
    said = _said(vmi)
    entries = []
    for volume in claimed(vmi):
        claim = claims.get(volume.claim_name)
        info = said.get(volume.name) if claim is None else _info(claim)
        if info is not None:
            entries.append({"name": volume.name, "persistentVolumeClaimInfo": info})
    return entries


def has_changed(vmi: v1.VirtualMachineInstance, body: Mapping[str, Any]) -> bool:
    """The status would tell something else of claims once `body` is applied."""
    entries = body.get("volumeStatus", ())
    return _said(vmi) != {entry["name"]: entry["persistentVolumeClaimInfo"] for entry in entries}


def _said(vmi: v1.VirtualMachineInstance) -> dict[str, Body]:
    return {
        entry.name: msgspec.to_builtins(entry.persistent_volume_claim_info)
        for entry in vmi.status.volume_status or ()
        if entry.persistent_volume_claim_info is not None
    }


def _info(claim: core.PersistentVolumeClaim) -> Body:
    """What is known of a claim. The share that its file system needs for itself is not."""
    asked = claim.spec.resources
    info = v1.PersistentVolumeClaimInfo(
        claim_name=claim.metadata.name,
        access_modes=list(claim.spec.access_modes or ()) or None,
        volume_mode=claim.spec.volume_mode,
        capacity=claim.status.capacity or None,
        requests=(asked.requests if asked is not None else None) or None,
    )
    body: Body = msgspec.to_builtins(info)
    return body
