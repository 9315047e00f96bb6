"""Which PersistentVolumeClaims an instance uses, what it does with them, and who goes first. Pure.

Invariant: a claim that one instance writes to is never handed to another beside it, unless both say that their disks
are shareable. Of two that have no pod yet the older goes first, so that there is always one that may go.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from podvisor_common.api import core, v1
from podvisor_common.kube.resources import ObjectKey

Claims = Mapping[str, core.PersistentVolumeClaim]
# By what claims are being exported.
Exports = Mapping[str, ObjectKey]


@dataclass(frozen=True, slots=True)
class Rival:
    """Another instance, not ended, that uses a claim of this one's."""

    vmi: v1.VirtualMachineInstance
    has_pod: bool
    is_getting_pod: bool = False  # one was asked for, and the answer is not known yet
    held: frozenset[str] = frozenset()  # claims that other pods hold for its guest


def carried(vmi: v1.VirtualMachineInstance) -> list[v1.Volume]:
    """The volumes that the launcher pod holds itself. Those that may come and go have a pod of their own."""
    return [volume for volume in vmi.spec.volumes or () if not volume.is_hotpluggable]


def claimed(vmi: v1.VirtualMachineInstance) -> list[v1.Volume]:
    """Those of them with a claim."""
    return [volume for volume in carried(vmi) if volume.claim_name]


def pluggable(vmi: v1.VirtualMachineInstance) -> list[v1.Volume]:
    """The volumes that may come and go while the guest runs."""
    return [volume for volume in vmi.spec.volumes or () if volume.is_hotpluggable]


def leaving(vmi: v1.VirtualMachineInstance) -> list[v1.VolumeStatus]:
    """What is known of volumes that are not in the manifest any more, or there with another claim, and which a pod holds still."""
    wanted = {volume.name: volume.claim_name for volume in pluggable(vmi)}
    return [
        entry
        for entry in vmi.status.volume_status or ()
        if entry.hotplug_volume is not None and wanted.get(entry.name) != claim_of(entry)
    ]


def told_claims(vmi: v1.VirtualMachineInstance) -> set[str]:
    """The claims that the guest may have by pods of their own, as the status says, whatever there is of those pods."""
    entries = vmi.status.volume_status or ()
    return {claim_of(entry) for entry in entries if entry.hotplug_volume is not None}


def is_only_read(vmi: v1.VirtualMachineInstance, volume: v1.Volume) -> bool:
    """The guest never writes to what is behind the volume."""
    claim = volume.persistent_volume_claim
    if volume.ephemeral is not None or (claim is not None and claim.read_only):
        return True
    disk = _disk_of(vmi, volume)
    if disk is None:
        return False
    if disk.cdrom is not None:
        return disk.cdrom.readonly is not False
    target = disk.disk or disk.lun
    return target is not None and target.readonly


def claim_key(namespace: str, claim: str) -> str:
    """What the indexes below have a claim under."""
    return f"{namespace}/{claim}"


def claims_used(vmi: v1.VirtualMachineInstance) -> list[str]:
    """The index of instances by the claims they use, until they have ended."""
    if vmi.is_final:
        return []
    namespace = vmi.metadata.namespace
    names = {volume.claim_name for volume in vmi.spec.volumes or ()}
    names |= {claim_of(entry) for entry in leaving(vmi)}
    return [claim_key(namespace, name) for name in names if name]


def claims_kept(vmi: v1.VirtualMachineInstance) -> list[str]:
    """The index of instances by the claims that they write to and share with nobody, until they have ended.

    What was done with a claim is not known any more once its volume has left the manifest.
    """
    if vmi.is_final:
        return []
    namespace = vmi.metadata.namespace
    kept = [v.claim_name for v in vmi.spec.volumes or () if v.claim_name and keeps(vmi, v)]
    left = [name for entry in leaving(vmi) if (name := claim_of(entry))]
    return [claim_key(namespace, name) for name in dict.fromkeys([*kept, *left])]


def missing(vmi: v1.VirtualMachineInstance, claims: Claims) -> str:
    """Which claims are not there for a new pod, for a person; empty when all are."""
    sentences = []
    for volume in claimed(vmi):
        claim, name = claims.get(volume.claim_name), claim_title(vmi, volume)
        if claim is None:
            sentences.append(
                f'{name} does not exist. Volume "{volume.name}" needs it; the machine starts when it is created.'
            )
        elif claim.metadata.is_being_deleted:
            sentences.append(
                f'{name} is being deleted. Volume "{volume.name}" needs it; the machine starts when it is created anew.'
            )
    return " ".join(sentences)


def unbound(vmi: v1.VirtualMachineInstance, claims: Claims) -> str:
    """Which claims have no volume yet, for a person; empty when all have."""
    return " ".join(
        f'{claim_title(vmi, volume)} of volume "{volume.name}" is not bound yet.'
        for volume in claimed(vmi)
        if volume.claim_name in claims and not claims[volume.claim_name].is_bound
    )


def in_use(vmi: v1.VirtualMachineInstance, rivals: Iterable[Rival]) -> str:
    """Which claim another instance has that goes before this one, for a person; empty when there is none."""
    for rival in rivals:
        if not _goes_first(rival, vmi):
            continue
        for volume in claimed(vmi):
            if conflicts(vmi, volume, rival):
                return f"{conflict_told(vmi, volume, rival)} The machine starts when that one has ended."
    return ""


def exported(vmi: v1.VirtualMachineInstance, exports: Exports) -> str:
    """Which claim that this one would write to is being exported, for a person; empty when none is."""
    for volume in claimed(vmi):
        if why := export_told(vmi, volume, exports):
            return f"{why} The machine starts when that has ended."
    return ""


def export_told(vmi: v1.VirtualMachineInstance, volume: v1.Volume, exports: Exports) -> str:
    """That the volume's claim is being exported, for a person; empty when it is not, or is only read."""
    export = exports.get(volume.claim_name)
    if export is None or is_only_read(vmi, volume):
        return ""
    return (
        f'{claim_title(vmi, volume)} of volume "{volume.name}" is being exported by VirtualMachineExport {export}, and must'
        f" not be written to meanwhile (to end that: kubectl delete vmexport {export.name} --namespace {export.namespace})."
    )


def conflicts(vmi: v1.VirtualMachineInstance, volume: v1.Volume, rival: Rival) -> bool:
    """Whether the volume's claim is the rival's as well, and one of the two writes to it."""
    taken = claims_used(rival.vmi) if keeps(vmi, volume) else claims_kept(rival.vmi)
    return claim_key(vmi.metadata.namespace, volume.claim_name) in taken


def conflict_told(vmi: v1.VirtualMachineInstance, volume: v1.Volume, rival: Rival) -> str:
    """That, for a person."""
    other = f"{rival.vmi.metadata.namespace}/{rival.vmi.metadata.name}"
    return (
        f'{claim_title(vmi, volume)} of volume "{volume.name}" is in use by VirtualMachineInstance {other}, and it must not be'
        " written to by one while the other has it."
    )


def _goes_first(rival: Rival, vmi: v1.VirtualMachineInstance) -> bool:
    other = rival.vmi
    if rival.has_pod or rival.is_getting_pod or other.status.node_name:
        return True
    return not other.metadata.is_being_deleted and age(other) < age(vmi)


def claim_of(entry: v1.VolumeStatus) -> str:
    """The claim behind a volume, as the status says; empty when it does not."""
    info = entry.persistent_volume_claim_info
    return info.claim_name if info is not None else ""


def age(vmi: v1.VirtualMachineInstance) -> tuple[str, str]:
    """Orders instances by age; those of one second by their uid."""
    return vmi.metadata.creation_timestamp or "", vmi.metadata.uid


def keeps(vmi: v1.VirtualMachineInstance, volume: v1.Volume) -> bool:
    """The guest writes to the volume and nobody else may have it. Files, unlike an image, are for anybody."""
    disk = _disk_of(vmi, volume)
    if disk is None and any(
        shared.name == volume.name for shared in vmi.spec.domain.devices.filesystems or ()
    ):
        return False
    return not is_only_read(vmi, volume) and not (disk is not None and disk.shareable)


def _disk_of(vmi: v1.VirtualMachineInstance, volume: v1.Volume) -> v1.Disk | None:
    disks = vmi.spec.domain.devices.disks or ()
    return next((disk for disk in disks if disk.name == volume.name), None)


def claim_title(vmi: v1.VirtualMachineInstance, volume: v1.Volume) -> str:
    """The claim of a volume, for a person."""
    return f"PVC {vmi.metadata.namespace}/{volume.claim_name}"
