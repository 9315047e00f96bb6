"""What a claim is to be like that is made from what was kept of one. Pure.

Invariant: of the old claim's specification only what says how its content is stored: with what tied it to its volume, or to its
cluster, the new one would never be provisioned.
"""

from typing import Any

from podvisor_common.api.quantity import Quantity, QuantityError, parse_quantity
from podvisor_common.api.snapshot import VolumeBackup
from podvisor_common.kube.resources import VOLUME_SNAPSHOTS

_KEPT = ("accessModes", "resources", "storageClassName", "volumeMode")


def spec_of_restored(backup: VolumeBackup, restore_size: Quantity | None) -> dict[str, Any]:
    """The specification of a claim with the content that was kept, which needs `restore_size`."""
    kept = backup.persistent_volume_claim.get("spec") or {}
    spec = {key: kept[key] for key in _KEPT if key in kept}
    resources = spec.get("resources") or {}
    requests = dict(resources.get("requests") or {})
    requests["storage"] = _larger(requests.get("storage"), restore_size)
    return spec | {
        "resources": resources | {"requests": requests},
        "dataSource": {
            "apiGroup": VOLUME_SNAPSHOTS.group,
            "kind": VOLUME_SNAPSHOTS.kind,
            "name": backup.volume_snapshot_name,
        },
    }


def _larger(asked: Quantity | None, needed: Quantity | None) -> Quantity:
    """The larger one, in the words in which it was said."""
    given = [size for size in (asked, needed) if size is not None]
    try:
        return max(given, key=parse_quantity, default="0")
    except QuantityError:
        return given[0]
