"""What a node's state says about the guests on it. Pure.

Invariant: only a node that somebody has fenced (out-of-service taint) or deleted proves that its guests are gone.
A node that merely does not answer proves nothing.
"""

from enum import Enum

from podvisor_common.api import core, meta

OUT_OF_SERVICE_TAINT = "node.kubernetes.io/out-of-service"


class NodeHealth(Enum):
    """How far a node can be trusted to look after its guests."""

    WELL = "well"
    UNRESPONSIVE = "unresponsive"
    FENCED = "fenced"


def health_of(node: core.Node | None) -> NodeHealth:
    """The health of a node; None stands for one that no longer exists."""
    if node is None or any(t.key == OUT_OF_SERVICE_TAINT for t in node.spec.taints or ()):
        return NodeHealth.FENCED
    ready = meta.find_condition(node.status.conditions, "Ready")
    if ready is not None and ready.status == "Unknown":
        return NodeHealth.UNRESPONSIVE
    return NodeHealth.WELL
