"""By what clones can be looked up, and which clone an object was made for. Pure."""

from podvisor_common.api.clone import VirtualMachineClone
from podvisor_common.api.clone import names as clone_names
from podvisor_common.api.clone.names import ClonePhase
from podvisor_common.api.meta import ObjectMeta
from podvisor_common.kube.resources import ObjectKey

from podvisor_controller.clone.manifests import target_name

CLONE_SOURCE_INDEX = "source"
CLONE_TARGET_INDEX = "target"


def source_key(kind: str, key: ObjectKey) -> str:
    """The value of CLONE_SOURCE_INDEX for a source."""
    return f"{kind} {key}"


def by_clone_source(clone: VirtualMachineClone) -> list[str]:
    """The index of clones that are not over by their source."""
    if clone.status.phase in (ClonePhase.SUCCEEDED, ClonePhase.FAILED):
        return []
    source = clone.spec.source
    return [source_key(source.kind, ObjectKey(clone.metadata.namespace, source.name))]


def by_clone_target(clone: VirtualMachineClone) -> list[str]:
    """The index of clones by the machine that they make."""
    return [str(ObjectKey(clone.metadata.namespace, target_name(clone)))]


def clone_of(metadata: ObjectMeta) -> ObjectKey | None:
    """The key of the clone that a snapshot or a restore was made for."""
    owner = metadata.controller_reference()
    if owner is None or owner.kind != clone_names.CLONE:
        return None
    return ObjectKey(metadata.namespace, owner.name)
