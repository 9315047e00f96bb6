"""Restores as they are observed, for the tests of what is decided about them."""

from typing import Any

import msgspec
from podvisor_common.api import core
from podvisor_common.api.snapshot import VirtualMachineRestore, VirtualMachineSnapshotContent, names
from podvisor_controller.restore.observed import Observed

from tests.unit.controller.api_server import Json
from tests.unit.controller.builders import NOW, VM_UID, claim_body, stamp, vm, vm_body, vmi
from tests.unit.controller.restores import RESTORE_UID, restore
from tests.unit.controller.snapshots import DATA, on_claims, snapshot, volume_snapshot

MARK = f"back-{RESTORE_UID}"
MADE = f"restore-{RESTORE_UID}-data"
TOLD = [{"volumeName": "data", "persistentVolumeClaim": MADE, "volumeSnapshotName": DATA}]
READY = snapshot(status={"readyToUse": True, "sourceUID": VM_UID, "phase": "Succeeded"})
READY_DATA = volume_snapshot(readyToUse=True)
DELETED = {"deletionTimestamp": stamp(1)}
RUNNING = {"target": vm("Always"), "instance": vmi(owned=True)}
MARKED = vm("Halted", metadata={"annotations": {names.LAST_RESTORE_ANNOTATION: MARK}})
LEAVING = {"data": msgspec.convert(claim_body("data"), core.PersistentVolumeClaim)}


def kept(**spec: Any) -> Json:
    """A machine with a claim, as a content has it."""
    body = vm_body("Always", spec=on_claims("data") | spec)
    return {"metadata": body["metadata"], "spec": body["spec"]}


def content(
    claim: Json | None = None,
    *,
    metadata: Json | None = None,
    is_ready: bool = True,
    **of_machine: Any,
) -> VirtualMachineSnapshotContent:
    """What was kept: such a machine, and its claim."""
    claim = claim or claim_body("data")
    backup = {
        "volumeName": "data",
        "persistentVolumeClaim": {key: claim[key] for key in ("metadata", "spec")},
        "volumeSnapshotName": DATA,
    }
    source = {"virtualMachine": kept(**of_machine)}
    body = {
        "metadata": {"name": "c"} | (metadata or {}),
        "spec": {"source": source, "volumeBackups": [backup]},
        "status": {"readyToUse": is_ready},
    }
    return msgspec.convert(body, VirtualMachineSnapshotContent)


def content_of_two() -> VirtualMachineSnapshotContent:
    """What was kept of a machine with two volumes."""
    one = content()
    [backup] = one.spec.volume_backups or []
    claim = {"metadata": {"name": "logs"}, "spec": {}}
    logs = msgspec.structs.replace(
        backup, volume_name="logs", persistent_volume_claim=claim, volume_snapshot_name="logs"
    )
    spec = msgspec.structs.replace(one.spec, volume_backups=[backup, logs])
    return msgspec.structs.replace(one, spec=spec)


def made(name: str = MADE, **changes: Any) -> core.PersistentVolumeClaim:
    """A claim that the restore has made."""
    annotations = {names.LAST_RESTORE_ANNOTATION: MARK}
    body = claim_body(name, annotations=annotations, **changes)
    return msgspec.convert(body, core.PersistentVolumeClaim)


def observed(**changes: Any) -> Observed:
    """A restore that can begin, of a machine that is stopped."""
    given = {
        "restore": restore(),
        "at": NOW,
        "target": vm("Halted"),
        "snapshot": READY,
        "content": content(),
        "volume_snapshots": {DATA: volume_snapshot(readyToUse=True)},
    }
    return Observed(**given | changes)  # type: ignore[arg-type]


def begun(**changes: Any) -> Observed:
    """One that has locked its target and said what there will be."""
    told = restore(status={"restores": TOLD}, **changes.pop("spec", {}))
    locked = vm("Halted", spec=on_claims("data"), status={"restoreInProgress": "back"})
    return observed(**{"restore": told, "target": locked} | changes)


def in_place(*more: Json, **spec: Any) -> VirtualMachineRestore:
    """One that has told that it takes the place of claims."""
    told = [TOLD[0] | {"persistentVolumeClaim": "data"}, *more]
    return restore(volumeRestorePolicy="InPlace", status={"restores": told}, **spec)


def both_in_place() -> VirtualMachineRestore:
    """One that has told so of both volumes of `content_of_two`."""
    return in_place(
        {"volumeName": "logs", "persistentVolumeClaim": "logs", "volumeSnapshotName": "logs"}
    )


IN_PLACE = in_place()
