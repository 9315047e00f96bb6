"""What the eviction of a launcher pod means for its guest.

Invariant: pure. Only a guest that somebody shall bring elsewhere stands in the way of an eviction; where there is no guest,
or none any more, nothing does, so that a node can always be drained of what has ended.
"""

from dataclasses import dataclass

from podvisor_common.api import core, v1
from podvisor_common.api.v1.names import EvictionStrategy

from podvisor_controller.vmi.observed import has_ended


@dataclass(frozen=True, slots=True)
class Evacuation:
    """The eviction is refused: the guest is to leave the node first."""

    node_name: str
    is_requested: bool  # the status says so already
    message: str


def evacuation_of(
    pod: core.Pod, vmi: v1.VirtualMachineInstance, cluster_strategy: str
) -> Evacuation | None:
    """Why the pod must not be evicted yet, None when it may be. `cluster_strategy` is that of instances that name none."""
    if _is_ending(pod, vmi) or not _carries(pod, vmi):
        return None
    if (vmi.spec.eviction_strategy or cluster_strategy) != EvictionStrategy.EXTERNAL:
        return None
    node_name = pod.spec.node_name
    is_requested = vmi.status.evacuation_node_name == node_name
    name = f'"{vmi.metadata.namespace}/{vmi.metadata.name}"'
    message = f"Eviction triggered evacuation of VMI {name}"
    if is_requested:
        message = f"Evacuation in progress: {message}"
    return Evacuation(node_name, is_requested, message)


def _is_ending(pod: core.Pod, vmi: v1.VirtualMachineInstance) -> bool:
    """Nobody can bring the guest elsewhere any more."""
    return (
        has_ended(pod)
        or pod.metadata.is_being_deleted
        or vmi.is_final
        or vmi.metadata.is_being_deleted
    )


def _carries(pod: core.Pod, vmi: v1.VirtualMachineInstance) -> bool:
    """The pod is the instance's and has a node. Whoever may create pods can write an owner: the status knows better."""
    owner, known = pod.metadata.controller_reference(), vmi.status.active_pods
    is_owned = owner is not None and owner.uid == vmi.metadata.uid
    return bool(pod.spec.node_name) and is_owned and (not known or pod.metadata.uid in known)
