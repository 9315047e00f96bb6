"""The networks of Multus that a launcher pod asks for, when it is made and later on. Pure.

Invariant: only the entries that are ours are written, after those of others, which stay as they are: people ask for networks of the pod
by an annotation of the instance, meshes by writing to every pod.
"""

import re

from podvisor_common.api import core, v1
from podvisor_common.api.v1 import names
from podvisor_common.launcher_pod import secondary_interface_name
from podvisor_common.network_selections import (
    Selection,
    UnreadableNetworks,
    read_networks,
    written_networks,
)

_OURS = re.compile(r"pod[0-9a-f]{11}")


def networks_asked_for(vmi: v1.VirtualMachineInstance) -> list[v1.Network]:
    """The networks of Multus that the pod is to have. One is among them until the guest has let go of it."""
    interfaces = {i.name: i for i in vmi.spec.domain.devices.interfaces or ()}
    found = []
    for network in vmi.spec.networks or ():
        interface = interfaces.get(network.name)
        if network.multus is None or interface is None:
            continue
        is_absent = interface.state == names.InterfaceState.ABSENT
        if not is_absent or network.name in vmi.attached_interfaces:
            found.append(network)
    return found


def network_annotations(vmi: v1.VirtualMachineInstance) -> dict[str, str]:
    """The annotations that ask Multus for an instance's networks, beside those that it asks for itself by the same annotation; none where
    it has no network but the pod's. What cannot be read stays alone, for Multus to refuse."""
    found = {}
    for network in networks_asked_for(vmi):
        if network.multus is not None and network.is_primary:
            found[names.MULTUS_DEFAULT_NETWORK_ANNOTATION] = network.multus.network_name
    text = (vmi.metadata.annotations or {}).get(names.MULTUS_NETWORKS_ANNOTATION, "")
    try:
        others = _of_others(read_networks(text))
    except UnreadableNetworks:
        return found
    if wanted := _selections(vmi):
        found[names.MULTUS_NETWORKS_ANNOTATION] = written_networks([*others, *wanted])
    return found


def changed_networks(vmi: v1.VirtualMachineInstance, pod: core.Pod) -> dict[str, str | None] | None:
    """What to write to the annotations of the instance's pod, so that it asks for the networks that the instance has by now; None where
    it does. UnreadableNetworks where somebody else has written what is no list of networks."""
    wanted = _selections(vmi)
    try:
        asked = read_networks(pod.metadata.annotation(names.MULTUS_NETWORKS_ANNOTATION) or "")
    except UnreadableNetworks:
        if not wanted:
            return None
        raise
    others = _of_others(asked)
    ours = [entry for entry in asked if entry not in others]
    if sorted(ours, key=_interface_of) == sorted(wanted, key=_interface_of):
        return None
    entries = [*others, *wanted]
    return {names.MULTUS_NETWORKS_ANNOTATION: written_networks(entries) if entries else None}


def _selections(vmi: v1.VirtualMachineInstance) -> list[Selection]:
    """The networks beside the pod's own, in Multus' words."""
    macs = {i.name: i.mac_address for i in vmi.spec.domain.devices.interfaces or ()}
    return [
        _selection(vmi.metadata.namespace, network, macs[network.name])
        for network in networks_asked_for(vmi)
        if not network.is_primary
    ]


def _selection(namespace: str, network: v1.Network, mac: str) -> Selection:
    """One network in Multus' words. A definition that names no namespace is in that of the pod."""
    assert network.multus is not None
    of, name = network.multus.definition(namespace)
    selection = {
        "name": name,
        "namespace": of,
        "interface": secondary_interface_name(network.name),
    }
    return selection | ({"mac": mac.lower().replace("-", ":")} if mac else {})


def _of_others(entries: list[Selection]) -> list[Selection]:
    return [entry for entry in entries if _OURS.fullmatch(_interface_of(entry)) is None]


def _interface_of(entry: Selection) -> str:
    return str(entry.get("interface", ""))
