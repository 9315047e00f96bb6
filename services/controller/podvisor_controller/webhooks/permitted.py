"""What the cluster's settings decide about whether a machine is admitted. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Permitted:
    """What a machine may have here that it may not have in every cluster."""

    # The feature gates that are on.
    feature_gates: frozenset[str] = frozenset()
    # Whether a guest may take the address of its pod by a bridge.
    bridge_on_pod_network: bool = True


# Of a cluster that says nothing.
BY_DEFAULT = Permitted()
