"""Of which volumes of a machine a snapshot can have the content. Pure.

Invariant: a volume whose content is not kept does not stand in the way of a snapshot: it is named among those that are left out.
"""

from collections.abc import Callable, Sequence

from podvisor_common.api import core, v1
from podvisor_common.kube.resources import ObjectKey

from podvisor_controller.snapshot.classes import SnapshotClasses
from podvisor_controller.vmi.claims import claim_key

MACHINES_INDEX = "claim-machines"

FindClaim = Callable[[str], core.PersistentVolumeClaim | None]


def backed(volumes: Sequence[v1.Volume] | None) -> list[v1.Volume]:
    """The volumes whose content is in a claim of the machine's own: a copy over a claim is gone when its guest stops."""
    return [volume for volume in volumes or () if volume.claim_name and volume.ephemeral is None]


def volumes_of(vm: v1.VirtualMachine) -> list[v1.Volume]:
    """Those of the machine."""
    return backed(vm.spec.template.spec.volumes)


def claims_of(vm: v1.VirtualMachine) -> list[str]:
    """The index of machines by their claims."""
    return [claim_key(vm.metadata.namespace, volume.claim_name) for volume in volumes_of(vm)]


def to_keep(
    vm: v1.VirtualMachine, find_claim: FindClaim, classes: SnapshotClasses
) -> list[v1.Volume]:
    """The volumes of the machine that a VolumeSnapshot is to be made of."""
    return [
        volume
        for volume in volumes_of(vm)
        if (claim := find_claim(volume.claim_name)) is not None
        and classes.find(claim.spec.storage_class_name)
    ]


def hindrance(vm: v1.VirtualMachine, find_claim: FindClaim, classes: SnapshotClasses) -> str:
    """Why there can be no snapshot of the machine's claims yet, for a person; empty when there can."""
    sentences = []
    for volume in volumes_of(vm):
        claim, name = find_claim(volume.claim_name), f'PersistentVolumeClaim "{volume.claim_name}"'
        if claim is None:
            sentences.append(f'Volume "{volume.name}": {name} does not exist.')
        elif not classes.find(claim.spec.storage_class_name):
            continue
        elif claim.metadata.is_being_deleted:
            sentences.append(f'Volume "{volume.name}": {name} is being deleted.')
        elif not claim.is_bound:
            sentences.append(f'Volume "{volume.name}": {name} is not bound yet.')
    return " ".join(sentences)


def contention(vm: v1.VirtualMachine, users: Callable[[str], Sequence[ObjectKey]]) -> str:
    """Which claim of the machine, whose own guest does not run, another instance has, for a person; empty when none has."""
    for volume in volumes_of(vm):
        for user in users(volume.claim_name):
            return (
                f'Volume "{volume.name}": PersistentVolumeClaim "{volume.claim_name}" is in use by'
                f" VirtualMachineInstance {user}."
            )
    return ""


def statuses(
    vm: v1.VirtualMachine, find_claim: FindClaim, classes: SnapshotClasses
) -> list[v1.VolumeSnapshotStatus]:
    """What the machine's status says of each of its volumes; the reasons are KubeVirt's."""
    of_claims = {volume.name for volume in volumes_of(vm)}
    return [
        _status(volume, find_claim, classes)
        if volume.name in of_claims
        else _refusal(
            volume, f"Snapshot is not supported for this volumeSource type [{volume.name}]"
        )
        for volume in vm.spec.template.spec.volumes or ()
    ]


def _status(
    volume: v1.Volume, find_claim: FindClaim, classes: SnapshotClasses
) -> v1.VolumeSnapshotStatus:
    claim = find_claim(volume.claim_name)
    if claim is None:
        return _refusal(volume, "PVC not found")
    name = claim.spec.storage_class_name or ""
    if classes.find(name):
        return v1.VolumeSnapshotStatus(name=volume.name, enabled=True)
    return _refusal(
        volume,
        "No VolumeSnapshotClass: Volume snapshots are not configured for this StorageClass"
        f" [{name}] [{volume.name}]",
    )


def _refusal(volume: v1.Volume, reason: str) -> v1.VolumeSnapshotStatus:
    return v1.VolumeSnapshotStatus(name=volume.name, enabled=False, reason=reason)
