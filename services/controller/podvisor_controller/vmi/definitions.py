"""The NetworkAttachmentDefinitions that an instance needs, and which of them are not there. Pure.

Invariant: only what is known not to be there keeps a machine from starting.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

from podvisor_common.api import v1
from podvisor_common.kube.resources import ObjectKey

from podvisor_controller.vmi.pod_networks import networks_asked_for


class Absence(Enum):
    """Why a definition is not there."""

    DEFINITION = "it does not exist"
    KIND = "the cluster knows no such kind"


@dataclass(frozen=True, slots=True)
class Definitions:
    """What was found out about an instance's definitions."""

    absent: Mapping[ObjectKey, Absence] = field(default_factory=dict)
    ask_again_at: datetime | None = None  # none before; None where none is absent


ALL_THERE = Definitions()


def definitions_needed(vmi: v1.VirtualMachineInstance) -> dict[str, ObjectKey]:
    """The definitions of an instance's networks, by the networks' names. One in place of the pod's own that names no namespace is not
    among them: where that is looked for is a setting of Multus."""
    return {
        network.name: ObjectKey(*network.multus.definition(vmi.metadata.namespace))
        for network in networks_asked_for(vmi)
        if network.multus is not None
        and not (network.is_primary and "/" not in network.multus.network_name)
    }


def undefined(vmi: v1.VirtualMachineInstance, definitions: Definitions) -> str:
    """Which definitions are not there for a new pod, for a person; empty when all are."""
    return " ".join(
        _told(name, key, definitions.absent[key])
        for name, key in definitions_needed(vmi).items()
        if key in definitions.absent
    )


def _told(network: str, key: ObjectKey, absence: Absence) -> str:
    if absence is Absence.KIND:
        return (
            f'Network "{network}" needs NetworkAttachmentDefinition {key}, and this cluster knows no such kind: Multus is not'
            " installed. The machine starts when both are there."
        )
    return (
        f'NetworkAttachmentDefinition {key} does not exist. Network "{network}" needs it; the machine starts when it is'
        " created."
    )
