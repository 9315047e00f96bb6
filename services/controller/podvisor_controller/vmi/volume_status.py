"""What the controller says of an instance's volumes in its status: the claims behind them, and the pods that hold those which
may come and go. Pure.

Invariant: an entry holds the name, the claim and the pod alone. The rest of it is the handler's, whatever of it there is.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from podvisor_common.api import core, v1

from podvisor_controller.vmi.claims import Claims, claimed, leaving, pluggable

Body = dict[str, Any]

_CLAIM, _POD = "persistentVolumeClaimInfo", "hotplugVolume"
_NO_PODS: Mapping[str, v1.HotplugVolumeStatus] = {}


def volume_status(
    vmi: v1.VirtualMachineInstance,
    claims: Claims,
    pods: Mapping[str, v1.HotplugVolumeStatus] = _NO_PODS,
) -> list[Body]:
    """An entry for every volume with a claim, and for those that have left the manifest and are still had by one of `pods`, which
    are by volume. Of a claim that is gone, what was said stays."""
    said, told = _said(vmi), {name: {_POD: msgspec.to_builtins(pod)} for name, pod in pods.items()}
    left = {entry.name: said[entry.name] for entry in leaving(vmi) if entry.name in told}
    parts: dict[str, Body] = {}
    for volume in (*claimed(vmi), *pluggable(vmi)):
        claim = claims.get(volume.claim_name)
        known = said.get(volume.name, {}).get(_CLAIM)
        info = known if claim is None else _info(claim)
        parts[volume.name] = {} if info is None else {_CLAIM: info}
    # What holds a claim still is more than what is to hold another.
    parts |= left
    entries = [{"name": name, **part, **told.get(name, {})} for name, part in parts.items()]
    return [entry for entry in entries if len(entry) > 1]


def has_changed(vmi: v1.VirtualMachineInstance, body: Mapping[str, Any]) -> bool:
    """The status would tell something else of claims once `body` is applied."""
    entries = body.get("volumeStatus", ())
    said = {entry["name"]: {k: v for k, v in entry.items() if k != "name"} for entry in entries}
    return _said(vmi) != said


def _said(vmi: v1.VirtualMachineInstance) -> dict[str, Body]:
    """The controller's part of each entry that has one."""
    found: dict[str, Body] = {}
    for entry in vmi.status.volume_status or ():
        body: Body = msgspec.to_builtins(entry)
        if ours := {key: body[key] for key in (_CLAIM, _POD) if key in body}:
            found[entry.name] = ours
    return found


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
