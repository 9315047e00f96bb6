"""What the controller keeps of the launcher pods, those that hold volumes, and the claims of the whole cluster, which is what it reads of them.

Invariant: pure; what is left out here means nothing to anything in this service.
"""

import sys
from functools import lru_cache

from msgspec.structs import replace
from podvisor_common.api import core
from podvisor_common.api.export.names import EXPORT
from podvisor_common.api.meta import ObjectMeta, OwnerReference
from podvisor_common.api.quantity import Quantity
from podvisor_common.api.snapshot import names as snapshot_names
from podvisor_common.api.v1 import names
from podvisor_common.api.v1.names import ConditionType

from podvisor_controller.export.pod import ANNOTATIONS as EXPORT_ANNOTATIONS
from podvisor_controller.export.pod import export_of_pod

_OF_OTHERS = frozenset({ConditionType.POD_SCHEDULED, names.UNPAUSED_CONDITION})
_GATES = (core.PodReadinessGate(names.UNPAUSED_CONDITION),)
_OF_EXPORTERS = _OF_OTHERS | {"Ready"}
_RESTORE_MARKS = (snapshot_names.RESTORE_NAME_ANNOTATION, snapshot_names.LAST_RESTORE_ANNOTATION)


def outline(pod: core.Pod) -> core.Pod:
    """The pod without what the controller does not read: half of its memory."""
    containers = tuple(_container(c.name, c.image) for c in pod.spec.containers or ())
    is_exporter = export_of_pod(pod) is not None
    kept = _OF_EXPORTERS if is_exporter else _OF_OTHERS
    conditions = tuple(c for c in pod.status.conditions or () if c.type in kept)
    held = _exported(pod.metadata) if is_exporter else _held(pod.metadata)
    gates = _GATES if _GATES[0] in (pod.spec.readiness_gates or ()) else None
    return replace(
        pod,
        metadata=replace(pod.metadata, **held),
        spec=core.PodSpec(
            node_name=pod.spec.node_name, readiness_gates=gates, containers=containers
        ),
        status=replace(pod.status, conditions=conditions),
    )


def _exported(metadata: ObjectMeta) -> dict[str, dict[str, str] | None]:
    """Of labels and annotations, what tells how a pod serves which claims."""
    annotations = metadata.annotations or {}
    kept = {key: text for key, text in annotations.items() if key in EXPORT_ANNOTATIONS}
    return {"labels": None, "annotations": kept}


def _held(metadata: ObjectMeta) -> dict[str, dict[str, str] | None]:
    """Of labels and annotations, what tells of the volume that a pod holds, or of the networks that a launcher pod asks for."""
    volume, claim = (
        metadata.label(names.HELD_VOLUME_LABEL),
        metadata.annotation(names.HELD_CLAIM_ANNOTATION),
    )
    if volume is None or claim is None or metadata.label(names.APP_LABEL) == names.LAUNCHER_APP:
        networks = metadata.annotation(names.MULTUS_NETWORKS_ANNOTATION)
        asked = {names.MULTUS_NETWORKS_ANNOTATION: networks} if networks is not None else None
        return {"labels": None, "annotations": asked}
    return {
        "labels": {names.HELD_VOLUME_LABEL: volume},
        "annotations": {names.HELD_CLAIM_ANNOTATION: claim},
    }


def claim_outline(claim: core.PersistentVolumeClaim) -> core.PersistentVolumeClaim:
    """A claim without what the controller does not read. Most claims of a cluster are alike, and share what is alike."""
    old = claim.metadata
    metadata = ObjectMeta(
        name=old.name,
        namespace=sys.intern(old.namespace),
        uid=old.uid,
        resource_version=old.resource_version,
        deletion_timestamp=old.deletion_timestamp,
        annotations=_restore_marks(old),
        owner_references=_owners_of(old),
    )
    spec, status = claim.spec, claim.status
    requests = spec.resources.requests if spec.resources is not None else None
    return core.PersistentVolumeClaim(
        metadata=metadata,
        spec=_claim_spec(
            spec.access_modes,
            spec.volume_mode,
            spec.storage_class_name,
            (requests or {}).get("storage"),
        ),
        status=_claim_status(status.phase, (status.capacity or {}).get("storage")),
    )


def _restore_marks(metadata: ObjectMeta) -> dict[str, str] | None:
    """What says of a claim that a restore made it."""
    marks = {key: metadata.annotation(key) for key in _RESTORE_MARKS}
    return {key: value for key, value in marks.items() if value is not None} or None


def _owners_of(metadata: ObjectMeta) -> tuple[OwnerReference, ...] | None:
    """Those of a claim that a restore made, or the export that it was made for; of no other owner is anything asked."""
    if metadata.annotation(snapshot_names.LAST_RESTORE_ANNOTATION) is not None:
        return metadata.owner_references
    owner = metadata.controller_reference()
    return (owner,) if owner is not None and owner.kind == EXPORT else None


@lru_cache(maxsize=256)
def _claim_spec(
    access_modes: tuple[str, ...] | None,
    volume_mode: str,
    storage_class: str | None,
    asked: Quantity | None,
) -> core.PersistentVolumeClaimSpec:
    requests = {"storage": asked} if asked is not None else None
    resources = core.ResourceRequirements(requests=requests) if requests else None
    return core.PersistentVolumeClaimSpec(
        access_modes=access_modes,
        volume_mode=volume_mode,
        storage_class_name=storage_class,
        resources=resources,
    )


@lru_cache(maxsize=256)
def _claim_status(phase: str, capacity: Quantity | None) -> core.PersistentVolumeClaimStatus:
    got = {"storage": capacity} if capacity is not None else None
    return core.PersistentVolumeClaimStatus(phase=phase, capacity=got)


@lru_cache(maxsize=256)
def _container(name: str, image: str) -> core.Container:
    """The same value for the same words: all machines of a release have the same containers."""
    return core.Container(name=name, image=image)
