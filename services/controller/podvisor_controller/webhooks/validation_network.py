"""What is wrong with a machine's networks, and with how its interfaces lead to them. Pure.

What an interface is by itself, validation_interfaces.py looks at.
"""

import ipaddress
import re
from collections.abc import Iterator, Mapping

from podvisor_common.api import v1
from podvisor_common.api.unsupported import INTERFACE_BINDINGS, NETWORK_TYPES
from podvisor_common.api.v1 import names
from podvisor_common.network_selections import UnreadableNetworks, read_networks

from podvisor_controller.webhooks.permitted import Permitted
from podvisor_controller.webhooks.validation_fields import (
    Cause,
    CauseReason,
    invalid,
    is_dns_label,
    is_dns_subdomain,
    quoted,
    raw_at,
)
from podvisor_controller.webhooks.validation_interfaces import interface_causes

_NAME = re.compile(r"[A-Za-z0-9_-]{1,63}")
# Both ends of the link between pod and guest need an address, beside those of the network and of all in it.
_MOST_PREFIX = {4: 30, 6: 126}
_EXAMPLES = {4: "10.0.2.0/24", 6: "fd10:0:2::/120"}

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def network_causes(
    spec: v1.VirtualMachineInstanceSpec, raw: dict[str, object], path: str, permitted: Permitted
) -> Iterator[Cause]:
    """Checks `networks`, `domain.devices.interfaces` and that they match."""
    networks = spec.networks or []
    interfaces = spec.domain.devices.interfaces or []
    for index, network in enumerate(networks):
        yield from _network_causes(network, raw_at(raw, "networks", index), path, index)
    yield from _default_causes(networks, path)
    yield from _pairing_causes(networks, interfaces, path)
    by_name = {network.name: network for network in networks}
    for index, interface in enumerate(interfaces):
        field = f"{path}.domain.devices.interfaces[{index}]"
        raw_interface = raw_at(raw, "domain", "devices", "interfaces", index)
        bindings = [name for name in INTERFACE_BINDINGS if raw_interface.get(name) is not None]
        yield from _binding_causes(bindings, field)
        if (found := by_name.get(interface.name)) is not None and len(bindings) == 1:
            yield from _leads_causes(interface, found, field, permitted)
    yield from interface_causes(spec, path)


def asked_network_causes(
    annotations: Mapping[str, str], spec: v1.VirtualMachineInstanceSpec, field: str
) -> Iterator[Cause]:
    """Checks that the networks which an annotation asks of Multus can be asked for together with those of the machine."""
    key = names.MULTUS_NETWORKS_ANNOTATION
    if not any(network.multus is not None for network in spec.networks or ()):
        return
    try:
        read_networks(annotations.get(key, ""))
    except UnreadableNetworks as error:
        yield invalid(f"{field}[{key}]", f"is no list of networks: {error}.")


def _network_causes(
    network: v1.Network, raw: dict[str, object], path: str, index: int
) -> Iterator[Cause]:
    field = f"{path}.networks[{index}]"
    kinds = [kind for kind in NETWORK_TYPES if raw.get(kind) is not None]
    if not kinds:
        yield invalid(field, "should have a network type", CauseReason.REQUIRED)
    elif len(kinds) > 1:
        yield invalid(field, f"should have only one network type, not {' and '.join(kinds)}")
    if network.pod is not None:
        yield from _cidr_causes(network.pod.vm_network_cidr, f"{field}.pod.vmNetworkCIDR", 4)
        v6 = network.pod.vm_ipv6_network_cidr
        yield from _cidr_causes(v6, f"{field}.pod.vmIPv6NetworkCIDR", 6)
    if network.multus is not None:
        name_field = f"{field}.multus.networkName"
        yield from _definition_causes(network.multus.network_name, name_field)


def _cidr_causes(cidr: str, field: str, version: int) -> Iterator[Cause]:
    if not cidr:
        return
    try:
        network = _network_of(cidr, version)
    except ValueError:
        text = f"{quoted(cidr)} is not an IPv{version} network such as {_EXAMPLES[version]}."
        yield invalid(field, text)
        return
    most = _MOST_PREFIX[version]
    if network.prefixlen > most:
        text = f"{quoted(cidr)} is too small: it needs two addresses, so at most /{most}."
        yield invalid(field, text)
    first = network.network_address
    is_elsewhere = version == 6 and first.is_link_local
    if (
        first.is_unspecified
        or first.is_loopback
        or first.is_multicast
        or first.is_reserved
        or is_elsewhere
    ):
        yield invalid(field, f"{quoted(cidr)} holds no addresses that a guest can have.")


def _network_of(cidr: str, version: int) -> Network:
    if version == 4:
        return ipaddress.IPv4Network(cidr, strict=False)
    return ipaddress.IPv6Network(cidr, strict=False)


def _definition_causes(name: str, field: str) -> Iterator[Cause]:
    """The name of a NetworkAttachmentDefinition, after that of its namespace or alone."""
    namespace, slash, last = name.rpartition("/")
    if not name:
        text = (
            "is empty: it must name a NetworkAttachmentDefinition, as `name` or `namespace/name`."
        )
        yield invalid(field, text, CauseReason.REQUIRED)
    elif not is_dns_subdomain(last) or (slash and not is_dns_label(namespace)):
        text = f"{quoted(name)} is not the name of a NetworkAttachmentDefinition: it must be `name` or `namespace/name`."
        yield invalid(field, text)


def _default_causes(networks: list[v1.Network], path: str) -> Iterator[Cause]:
    """There is one pod network at most, or one network of Multus that takes its place."""
    pods = [i for i, network in enumerate(networks) if network.pod is not None]
    defaults = [i for i, n in enumerate(networks) if n.pod is None and n.is_primary]
    for index in pods[1:]:
        text = f"is a second pod network; {path}.networks[{pods[0]}] is the one there can be."
        yield invalid(f"{path}.networks[{index}]", text, CauseReason.DUPLICATE)
    for index in defaults[1:]:
        text = (
            f"is true for a second network; {path}.networks[{defaults[0]}] is the one there can be."
        )
        field = f"{path}.networks[{index}].multus.default"
        yield invalid(field, text, CauseReason.DUPLICATE)
    if pods and defaults:
        text = (
            f"is true: the network takes the place of the pod network, so {path}.networks[{pods[0]}], which is that, cannot be"
            " there as well."
        )
        yield invalid(f"{path}.networks[{defaults[0]}].multus.default", text)


def _pairing_causes(
    networks: list[v1.Network], interfaces: list[v1.Interface], path: str
) -> Iterator[Cause]:
    """Each interface leads to the network of its name and each network has an interface."""
    base = f"{path}.domain.devices.interfaces"
    network_names = {network.name for network in networks}
    seen: set[str] = set()
    for index, interface in enumerate(interfaces):
        field = f"{base}[{index}].name"
        if interface.name in seen:
            text = f"{quoted(interface.name)}: only one interface can be connected to one network."
            yield invalid(field, text, CauseReason.DUPLICATE)
        elif not _NAME.fullmatch(interface.name):
            yield invalid(
                field,
                f"{quoted(interface.name)} can only contain alphabetical characters, numbers,"
                " dashes (-) or underscores (_)",
            )
        elif interface.name not in network_names:
            text = f"{quoted(interface.name)} not found: there is no network of that name."
            yield invalid(field, text, CauseReason.NOT_FOUND)
        seen.add(interface.name)
    listed: set[str] = set()
    for index, network in enumerate(networks):
        field = f"{path}.networks[{index}].name"
        if network.name in listed:
            text = f"{quoted(network.name)}: names of networks must differ."
            yield invalid(field, text, CauseReason.DUPLICATE)
        elif network.name not in seen:
            text = f"{quoted(network.name)} not found: there is no interface of that name."
            yield invalid(field, text, CauseReason.NOT_FOUND)
        listed.add(network.name)


def _binding_causes(bindings: list[str], field: str) -> Iterator[Cause]:
    if not bindings:
        text = "must have a binding, for example masquerade: {}"
        yield invalid(field, text, CauseReason.REQUIRED)
    elif len(bindings) > 1:
        yield invalid(field, f"must have only one binding, not {' and '.join(bindings)}.")


def _leads_causes(
    interface: v1.Interface, network: v1.Network, field: str, permitted: Permitted
) -> Iterator[Cause]:
    """The binding is one for that network, and the interface can be in that state there."""
    for name, binding in (
        ("masquerade", interface.masquerade),
        ("passtBinding", interface.passt_binding),
    ):
        if binding is not None and network.pod is None:
            yield invalid(f"{field}.{name}", "is only implemented with the pod network")
    is_bridge = interface.bridge is not None
    if is_bridge and network.pod is not None and not permitted.bridge_on_pod_network:
        text = (
            "cannot be used with the pod network: spec.configuration.network.permitBridgeInterfaceOnPodNetwork of the KubeVirt"
            " resource is false. Use masquerade: {}"
        )
        yield invalid(f"{field}.bridge", text)
    if interface.state != names.InterfaceState.ABSENT:
        return
    if not is_bridge:
        yield invalid(f"{field}.state", "is absent, which is supported only for binding bridge.")
    elif network.is_primary:
        text = "is absent, which is not supported on the pod's own network."
        yield invalid(f"{field}.state", text)
