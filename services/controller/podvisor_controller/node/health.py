"""What a node's state says about the guests on it. Pure.

Invariant: only a node that somebody has fenced (out-of-service taint) or deleted proves that its guests are gone.
A node that merely does not answer proves nothing, and a silent handler says even less. One that answers is not out of service,
whatever its taints say: the taint has its pods evicted, and its handler tells how that ends.
"""

from enum import Enum

from podvisor_common.api import core, meta

OUT_OF_SERVICE_TAINT = "node.kubernetes.io/out-of-service"


class NodeHealth(Enum):
    """How far a node can be trusted to look after its guests."""

    WELL = "well"
    UNATTENDED = "unattended"  # the node answers, its virt-handler does not
    UNRESPONSIVE = "unresponsive"
    FENCED = "fenced"

    @property
    def is_silent(self) -> bool:
        """Nobody there tells of the guests, who may run all the same."""
        return self in (NodeHealth.UNATTENDED, NodeHealth.UNRESPONSIVE)


def does_not_answer(node: core.Node) -> bool:
    """The node controller has waited in vain for the kubelet."""
    ready = meta.find_condition(node.status.conditions, "Ready")
    return ready is not None and ready.status == "Unknown"


def health_of(
    node: core.Node | None, *, attended: bool = True, patient: bool = False
) -> NodeHealth:
    """The health of a node; None stands for one that no longer exists.

    `attended`: its handler is heard of. `patient`: that it does not answer is too new to count.
    """
    if node is None:
        return NodeHealth.FENCED
    ready = meta.find_condition(node.status.conditions, "Ready")
    answers = ready is not None and ready.is_true
    if not answers and any(t.key == OUT_OF_SERVICE_TAINT for t in node.spec.taints or ()):
        return NodeHealth.FENCED
    if does_not_answer(node) and not patient:
        return NodeHealth.UNRESPONSIVE
    return NodeHealth.WELL if attended else NodeHealth.UNATTENDED
