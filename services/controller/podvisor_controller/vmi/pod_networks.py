"""The networks of Multus that a launcher pod asks for. Pure."""

from typing import Any

import msgspec
from podvisor_common.api import v1
from podvisor_common.api.v1 import names
from podvisor_common.launcher_pod import secondary_interface_name


def network_annotations(vmi: v1.VirtualMachineInstance) -> dict[str, str]:
    """The annotations that ask Multus for an instance's networks; none where it has no network but the pod's."""
    found = {}
    for network in vmi.spec.networks or ():
        if network.multus is not None and network.multus.default:
            found[names.MULTUS_DEFAULT_NETWORK_ANNOTATION] = network.multus.network_name
    if (text := secondary_networks(vmi)) is not None:
        found[names.MULTUS_NETWORKS_ANNOTATION] = text
    return found


def secondary_networks(vmi: v1.VirtualMachineInstance) -> str | None:
    """The networks beside the pod's own, as Multus reads them: JSON. None where there is none.

    One whose interface is unplugged, or to be, is not among them.
    """
    interfaces = {i.name: i for i in vmi.spec.domain.devices.interfaces or ()}
    wanted = []
    for network in vmi.spec.networks or ():
        interface = interfaces.get(network.name)
        is_absent = interface is None or interface.state == names.InterfaceState.ABSENT
        if network.multus is None or network.multus.default or is_absent:
            continue
        mac = interface.mac_address if interface is not None else ""
        wanted.append(_selection(vmi.metadata.namespace, network, mac))
    return msgspec.json.encode(wanted).decode() if wanted else None


def _selection(namespace: str, network: v1.Network, mac: str) -> dict[str, Any]:
    """One network in Multus' words. A definition that names no namespace is in that of the pod."""
    assert network.multus is not None
    of, _, name = network.multus.network_name.rpartition("/")
    selection = {
        "name": name,
        "namespace": of or namespace,
        "interface": secondary_interface_name(network.name),
    }
    return selection | ({"mac": mac.lower().replace("-", ":")} if mac else {})
