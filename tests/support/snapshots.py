"""Snapshots of machines, restores and clones for tests."""

from collections.abc import Callable
from typing import Any

from tests.support.cluster import Cluster, Json


def snapshot_of(machine: str, name: str, **spec: str) -> Json:
    """A VirtualMachineSnapshot."""
    return {
        "apiVersion": "snapshot.kubevirt.io/v1beta1",
        "kind": "VirtualMachineSnapshot",
        "metadata": {"name": name},
        "spec": {"source": reference(machine), **spec},
    }


def restore_to(machine: str, name: str, snapshot: str, **spec: Any) -> Json:
    """A VirtualMachineRestore."""
    return {
        "apiVersion": "snapshot.kubevirt.io/v1beta1",
        "kind": "VirtualMachineRestore",
        "metadata": {"name": name},
        "spec": {"target": reference(machine), "virtualMachineSnapshotName": snapshot, **spec},
    }


def clone_of(source: Json, name: str, target: str | None = None, **spec: Any) -> Json:
    """A VirtualMachineClone."""
    given = {"target": reference(target)} if target is not None else {}
    return {
        "apiVersion": "clone.kubevirt.io/v1beta1",
        "kind": "VirtualMachineClone",
        "metadata": {"name": name},
        "spec": {"source": source, **given, **spec},
    }


def reference(machine: str) -> Json:
    """A reference to a machine."""
    return {"apiGroup": "kubevirt.io", "kind": "VirtualMachine", "name": machine}


def says(field: str, value: object) -> Callable[[Json | None], bool]:
    """A condition for Cluster.until: the status has that value."""
    return lambda state: bool((state or {}).get("status", {}).get(field) == value)


async def taken(cluster: Cluster, machine: str, name: str, **spec: str) -> Json:
    """Take a snapshot and wait until a machine could be restored from it."""
    await cluster.apply(snapshot_of(machine, name, **spec))
    state = await cluster.until(
        "vmsnapshot", name, says("readyToUse", True), within_s=40, what="ready to use"
    )
    assert state is not None
    return state


async def restored(cluster: Cluster, machine: str, name: str, snapshot: str, **spec: Any) -> Json:
    """Restore a machine and wait until that is complete."""
    await cluster.apply(restore_to(machine, name, snapshot, **spec))
    state = await cluster.until(
        "vmrestore", name, says("complete", True), within_s=60, what="complete"
    )
    assert state is not None
    return state


async def is_free(cluster: Cluster, machine: str) -> None:
    """The machine is not locked any more."""

    def holds(state: Json | None) -> bool:
        metadata, status = (state or {}).get("metadata", {}), (state or {}).get("status", {})
        finalizers = metadata.get("finalizers", [])
        protected = "snapshot.kubevirt.io/snapshot-source-protection" in finalizers
        return "snapshotInProgress" not in status and not protected

    await cluster.until("vm", machine, holds, within_s=10, what="free")
