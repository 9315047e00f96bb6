"""The networks of Multus that a launcher pod asks for, when it is made and later on. Pure.

Invariant: only the entries that are ours are written, where they stand or at the end, and of them only what the instance says: a pool of
hardware addresses adds its own to them. Those of others ask for the same interfaces ever after, under the same names: people ask for
networks of the pod by an annotation of the instance, meshes by writing to every pod.
"""

import re
from collections.abc import Set

from podvisor_common.api import core, v1
from podvisor_common.api.v1 import names
from podvisor_common.launcher_pod import secondary_interface_name
from podvisor_common.network_selections import (
    Selection,
    UnreadableNetworks,
    read_networks,
    written_networks,
)

# As our interfaces are called, and anybody's may be.
_MADE_UP = re.compile(r"pod[0-9a-f]{11}")


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
    try:
        asked = _asked_by_people(vmi)
    except UnreadableNetworks:
        return found
    if (entries := _edited(asked, _selections(vmi), _own_interfaces(vmi))) != asked:
        found[names.MULTUS_NETWORKS_ANNOTATION] = written_networks(entries)
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
    ours = _own_interfaces(vmi) | _former_interfaces(vmi, asked)
    entries = _edited(asked, wanted, ours)
    if entries == asked:
        return None
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


def _asked_by_people(vmi: v1.VirtualMachineInstance) -> list[Selection]:
    """The networks that the instance asks for by the annotation, beside those that it has. UnreadableNetworks."""
    return read_networks(vmi.metadata.annotation(names.MULTUS_NETWORKS_ANNOTATION) or "")


def _own_interfaces(vmi: v1.VirtualMachineInstance) -> frozenset[str]:
    """The pod's interfaces on the networks that the instance has beside the pod's own."""
    return frozenset(
        secondary_interface_name(network.name)
        for network in vmi.spec.networks or ()
        if network.multus is not None and not network.is_primary
    )


def _former_interfaces(vmi: v1.VirtualMachineInstance, asked: list[Selection]) -> frozenset[str]:
    """The pod's interfaces on networks that the instance has no more: called as ours are, and none that people ask for."""
    try:
        theirs = _asked_by_people(vmi)
    except UnreadableNetworks:
        theirs = []
    made_up = {name for name in map(_interface_of, asked) if _MADE_UP.fullmatch(name)}
    return frozenset(made_up).difference(map(_interface_of, theirs))


def _edited(asked: list[Selection], wanted: list[Selection], ours: Set[str]) -> list[Selection]:
    """The entries with those for our interfaces as they are wanted: each where it stands, new ones at the end."""
    left = {_interface_of(entry): entry for entry in wanted}
    entries = []
    have_moved = False
    for place, entry in enumerate(asked):
        interface = _interface_of(entry)
        if interface not in ours:
            entries.append(_named(entry, place) if have_moved else entry)
        elif interface in left:
            entries.append(_renewed(entry, left.pop(interface)))
        else:
            have_moved = True
    return [*entries, *left.values()]


def _renewed(entry: Selection, wanted: Selection) -> Selection:
    """Our entry as it is wanted. What others have added to it stays for as long as it is about the same definition."""
    is_about_it = all(entry.get(key) == wanted[key] for key in ("name", "namespace"))
    return entry | wanted if is_about_it else wanted


def _named(entry: Selection, place: int) -> Selection:
    """The entry with the name of its interface: that which it has, or that which Multus makes of its place."""
    return entry if _interface_of(entry) else entry | {"interface": f"net{place + 1}"}


def _interface_of(entry: Selection) -> str:
    return str(entry.get("interface") or "")
