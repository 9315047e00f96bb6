"""What an export is of: which claims there are to be served, and why they cannot be served yet. Pure.

Invariant: says nothing of who uses a claim beside the machine that is exported: see users.py.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from podvisor_common.api import core, v1
from podvisor_common.api.export import VirtualMachineExport
from podvisor_common.api.export.names import ConditionType, Reason
from podvisor_common.api.snapshot import VirtualMachineSnapshot, VirtualMachineSnapshotContent
from podvisor_common.kube.resources import ObjectKey

from podvisor_controller.export.identity import restored_claim_name
from podvisor_controller.snapshot.outline import claim_of
from podvisor_controller.snapshot.volumes import volumes_of

SOURCES_INDEX = "export-sources"

FindClaim = Callable[[str], core.PersistentVolumeClaim | None]


@dataclass(frozen=True, slots=True)
class ExportedVolume:
    """A claim that is to be served, and the name that the machine has it by."""

    name: str
    claim: core.PersistentVolumeClaim


@dataclass(frozen=True, slots=True)
class Finding:
    """What a condition says: its status, reason and message."""

    status: bool
    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Source:
    """What there is to be served. `hindrance` is why it cannot be yet, None when it can."""

    volumes: tuple[ExportedVolume, ...] = ()
    hindrance: Finding | None = None
    condition: str = ConditionType.CLAIMS
    finding: Finding = Finding(False, Reason.UNKNOWN)
    machine: str | None = None
    is_empty: bool = False  # and will never be otherwise
    lacking: tuple[
        str, ...
    ] = ()  # claims of a snapshot that are to be made, by the machine's names

    @property
    def is_available(self) -> bool:
        """There is something to serve, and nothing of its own in the way."""
        return self.hindrance is None and bool(self.volumes)


UNKNOWN = Source(hindrance=Finding(False, Reason.INITIALIZING))


def source_key(kind: str, key: ObjectKey) -> str:
    """What the index below has the exports of an object under."""
    return f"{kind} {key}"


def by_source_of_export(export: VirtualMachineExport) -> list[str]:
    """The index of exports by what they are of."""
    source = export.spec.source
    return [source_key(source.kind, ObjectKey(export.metadata.namespace, source.name))]


def of_claim(export: VirtualMachineExport, find: FindClaim) -> Source:
    """A single claim."""
    name = export.spec.source.name
    claim = find(name)
    if claim is None or claim.metadata.is_being_deleted:
        title = f"PersistentVolumeClaim {export.metadata.namespace}/{name}"
        state = "not found" if claim is None else "is being deleted"
        return Source(
            hindrance=Finding(False, Reason.INITIALIZING),
            finding=Finding(False, Reason.CLAIM_NOT_FOUND, f"{title} {state}"),
        )
    return Source((ExportedVolume(name, claim),), finding=_bound([claim]))


def of_machine(
    export: VirtualMachineExport,
    vm: v1.VirtualMachine | None,
    vmi: v1.VirtualMachineInstance | None,
    find: FindClaim,
) -> Source:
    """All claims of a machine's own. `vmi` is the instance of its name."""
    name = export.spec.source.name
    title = f"Virtual Machine {export.metadata.namespace}/{name}"
    if vm is None:
        why = Finding(False, Reason.MACHINE_NOT_FOUND, f"{title} not found")
        return Source(hindrance=why, machine=name)
    wanted = list(dict.fromkeys(volume.claim_name for volume in volumes_of(vm)))
    if not wanted:
        why = Finding(False, Reason.MACHINE_WITHOUT_VOLUMES, f"{title} has no volumes")
        return Source(hindrance=why, machine=name, is_empty=True)
    found = [(one, claim) for one in wanted if (claim := find(one)) is not None]
    volumes = tuple(ExportedVolume(one, claim) for one, claim in found)
    hindrance = None
    if len(found) < len(wanted):
        missing = ", ".join(sorted({*wanted} - {one for one, _ in found}))
        text = f"Not all volumes in the {title} are populated: there is no PersistentVolumeClaim {missing}"
        hindrance = Finding(False, Reason.VOLUMES_NOT_POPULATED, text)
    elif vmi is not None and not vmi.is_final:
        hindrance = Finding(False, Reason.IN_USE, f"{title} is running")
    return Source(volumes, hindrance, finding=_bound([claim for _, claim in found]), machine=name)


def of_snapshot(
    export: VirtualMachineExport,
    snapshot: VirtualMachineSnapshot | None,
    content: VirtualMachineSnapshotContent | None,
    find: FindClaim,
) -> Source:
    """Claims that are made from what a snapshot has of those of its machine."""
    title = f"VirtualMachineSnapshot {export.metadata.namespace}/{export.spec.source.name}"
    if snapshot is None:
        return _no_volumes(Reason.SNAPSHOT_NOT_FOUND, f"{title} not found")
    machine = snapshot.spec.source.name
    if snapshot.status.ready_to_use is not True or content is None:
        why = f"{title} is not ready to use"
        return _no_volumes(Reason.NOT_ALL_CLAIMS_CREATED, why, machine)
    kept = [claim_of(backup)[0] for backup in content.spec.volume_backups or ()]
    if not kept:
        why = f"{title} does not contain any volume snapshots"
        return _no_volumes(Reason.SNAPSHOT_WITHOUT_VOLUMES, why, machine, is_empty=True)
    volumes, lacking = [], []
    for name in kept:
        restored = restored_claim_name(export, name)
        claim = find(restored)
        if claim is None:
            lacking.append(name)
        elif not _is_made_for(export, claim):
            why = f"PersistentVolumeClaim {restored} is in the way of one that is to be made of {title}"
            return _no_volumes(Reason.NOT_ALL_CLAIMS_CREATED, why, machine)
        else:
            volumes.append(ExportedVolume(name, claim))
    if lacking:
        why = "Not all PVCs have been successfully restored"
        source = _no_volumes(Reason.NOT_ALL_CLAIMS_CREATED, why, machine)
        return Source(
            (), source.hindrance, source.condition, source.finding, machine, lacking=tuple(lacking)
        )
    return Source(
        tuple(volumes),
        condition=ConditionType.VOLUMES_CREATED,
        finding=_all_ready(volumes),
        machine=machine,
    )


def _no_volumes(
    reason: str, message: str, machine: str | None = None, *, is_empty: bool = False
) -> Source:
    """A source of a snapshot that has nothing to be served: both conditions say why."""
    why = Finding(False, reason, message)
    condition = ConditionType.VOLUMES_CREATED
    return Source((), why, condition, why, machine, is_empty)


def _is_made_for(export: VirtualMachineExport, claim: core.PersistentVolumeClaim) -> bool:
    owner = claim.metadata.controller_reference()
    return owner is not None and owner.uid == export.metadata.uid


def _bound(claims: Sequence[core.PersistentVolumeClaim]) -> Finding:
    """The worst of what there is to say of claims."""
    phases = {claim.status.phase for claim in claims}
    if phases <= {"Bound"}:
        return Finding(True, Reason.CLAIM_BOUND)
    if phases <= {"Bound", "Pending", ""}:
        return Finding(False, Reason.CLAIM_PENDING)
    return Finding(False, Reason.UNKNOWN)


def _all_ready(volumes: Sequence[ExportedVolume]) -> Finding:
    if all(volume.claim.is_bound for volume in volumes):
        return Finding(True, Reason.ALL_CLAIMS_READY)
    return Finding(False, Reason.NOT_ALL_CLAIMS_READY, "Not all PVCs are ready")
