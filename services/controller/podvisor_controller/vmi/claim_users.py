"""Who else uses the claims of an instance, and who waits for one of them: answers from the cache of instances.

Invariant: a look-up costs as much as there are instances that it could matter to. A claim that is only read, as an image
that thousands begin with, has many users and no keeper.
"""

from collections.abc import Iterable

from podvisor_common.api import v1
from podvisor_common.kube.informer import Informer
from podvisor_common.kube.resources import ObjectKey, key_of

from podvisor_controller.vmi.claims import claim_key, claims_kept, claims_used, pluggable

USERS_INDEX = "claim-users"
KEEPERS_INDEX = "claim-keepers"

Instances = Informer[v1.VirtualMachineInstance]


def rivals_of(
    vmis: Instances, vmi: v1.VirtualMachineInstance, volumes: Iterable[v1.Volume]
) -> list[v1.VirtualMachineInstance]:
    """The other instances that cannot have the claim of one of these volumes at the same time as `vmi`, not ended; each once."""
    kept = set(claims_kept(vmi))
    found: dict[ObjectKey, v1.VirtualMachineInstance] = {}
    for volume in volumes:
        key = claim_key(vmi.metadata.namespace, volume.claim_name)
        index = USERS_INDEX if key in kept else KEEPERS_INDEX
        found |= {key_of(other): other for other in vmis.by_index(index, key)}
    found.pop(key_of(vmi), None)
    return list(found.values())


def users_of(vmis: Instances, claim: ObjectKey) -> list[ObjectKey]:
    """The instances to look at when a claim has changed."""
    key = claim_key(claim.namespace, claim.name)
    return [key_of(vmi) for vmi in vmis.by_index(USERS_INDEX, key)]


def freed_for(
    vmis: Instances,
    old: v1.VirtualMachineInstance | None,
    new: v1.VirtualMachineInstance | None,
) -> list[ObjectKey]:
    """The instances that may have waited for a claim which this one had and has no more, to start or to attach it."""
    if old is None:
        return []
    freed = set(claims_used(old)) - set(claims_used(new) if new is not None else ())
    kept = set(claims_kept(old)) if freed else set()
    waiting = (
        vmi
        for key in sorted(freed)
        for vmi in vmis.by_index(USERS_INDEX if key in kept else KEEPERS_INDEX, key)
    )
    return [key_of(vmi) for vmi in waiting if not vmi.status.node_name or pluggable(vmi)]
