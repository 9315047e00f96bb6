"""What is wrong with a machine's interfaces and networks. Pure."""

import ipaddress
import re
from collections.abc import Iterator

from podvisor_common.api import v1
from podvisor_common.api.unsupported import INTERFACE_BINDINGS, NETWORK_TYPES

from podvisor_controller.webhooks.validation_fields import (
    Cause,
    CauseReason,
    invalid,
    is_dns_label,
    quoted,
)

_NAME = re.compile(r"[A-Za-z0-9_-]{1,63}")
_MODELS = ("virtio", "e1000", "e1000e", "igb", "ne2k_pci", "pcnet", "rtl8139")
_MAC = re.compile(
    r"[0-9A-Fa-f]{2}(?P<separator>[:-])[0-9A-Fa-f]{2}(?:(?P=separator)[0-9A-Fa-f]{2}){4}"
)
# The address of the bridge on the pod's side; and the one that a guest takes for none, and makes one up.
_RESERVED_MACS = ("02:00:00:00:00:00", "00:00:00:00:00:00")
_SMALLEST_NETWORK_PREFIX = 30
_MAX_PORT = 65535


def network_causes(
    spec: v1.VirtualMachineInstanceSpec, raw: dict[str, object], path: str
) -> Iterator[Cause]:
    """Checks `networks`, `domain.devices.interfaces` and that they match."""
    networks = spec.networks or []
    interfaces = spec.domain.devices.interfaces or []
    yield from _network_list_causes(networks, raw, path)
    yield from _pairing_causes(networks, interfaces, path)
    other_networks = {network.name for network in networks if network.pod is None}
    raw_interfaces = _raw_list(_raw_object(_raw_object(raw, "domain"), "devices"), "interfaces")
    for index, interface in enumerate(interfaces):
        field = f"{path}.domain.devices.interfaces[{index}]"
        raw_interface = raw_interfaces[index] if index < len(raw_interfaces) else {}
        yield from _binding_causes(interface, raw_interface, other_networks, field)
        yield from _interface_causes(interface, field)
        yield from _port_causes(interface.ports or [], f"{field}.ports")


def _network_list_causes(
    networks: list[v1.Network], raw: dict[str, object], path: str
) -> Iterator[Cause]:
    raw_networks = _raw_list(raw, "networks")
    pod_network: str | None = None
    for index, network in enumerate(networks):
        field = f"{path}.networks[{index}]"
        item = raw_networks[index] if index < len(raw_networks) else {}
        kinds = [kind for kind in NETWORK_TYPES if item.get(kind) is not None]
        if not kinds:
            yield invalid(field, "should have a network type", CauseReason.REQUIRED)
        elif len(kinds) > 1:
            yield invalid(field, f"should have only one network type, not {' and '.join(kinds)}")
        if network.pod is None:
            continue
        if pod_network is not None:
            text = f"is a second pod network; {pod_network} is the one there can be."
            yield invalid(field, text, CauseReason.DUPLICATE)
        pod_network = field
        if network.pod.vm_network_cidr:
            yield from _cidr_causes(network.pod.vm_network_cidr, f"{field}.pod.vmNetworkCIDR")


def _cidr_causes(cidr: str, field: str) -> Iterator[Cause]:
    try:
        network = ipaddress.IPv4Network(cidr, strict=False)
    except ValueError:
        yield invalid(field, f"{quoted(cidr)} is not an IPv4 network such as 10.0.2.0/24.")
        return
    if network.prefixlen > _SMALLEST_NETWORK_PREFIX:
        yield invalid(
            field, f"{quoted(cidr)} is too small: it needs two addresses, so at most /30."
        )
    first = network.network_address
    if first.is_unspecified or first.is_loopback or first.is_multicast or first.is_reserved:
        yield invalid(field, f"{quoted(cidr)} holds no addresses that a guest can have.")


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


def mac_address_fault(mac: str) -> str:
    """Why that cannot be the address of an interface; empty when it can."""
    if not _MAC.fullmatch(mac):
        return f"{quoted(mac)}: malformed MAC address."
    if int(mac[:2], 16) & 1:
        return f"{quoted(mac)} is a multicast MAC address."
    if mac.lower().replace("-", ":") in _RESERVED_MACS:
        return f"{quoted(mac)} is a reserved MAC address."
    return ""


def _binding_causes(
    interface: v1.Interface, raw: dict[str, object], other_networks: set[str], field: str
) -> Iterator[Cause]:
    bindings = [name for name in INTERFACE_BINDINGS if raw.get(name) is not None]
    if not bindings:
        yield invalid(
            field, "must have a binding, for example masquerade: {}", CauseReason.REQUIRED
        )
    elif len(bindings) > 1:
        yield invalid(field, f"must have only one binding, not {' and '.join(bindings)}.")
    elif interface.masquerade is not None and interface.name in other_networks:
        yield invalid(f"{field}.masquerade", "is only implemented with the pod network")


def _interface_causes(interface: v1.Interface, field: str) -> Iterator[Cause]:
    if interface.model and interface.model not in _MODELS:
        yield invalid(
            f"{field}.model",
            f"{quoted(interface.model)} is not supported, must be one of: {', '.join(_MODELS)}",
            CauseReason.NOT_SUPPORTED,
        )
    mac = interface.mac_address
    if not mac:
        return
    if fault := mac_address_fault(mac):
        yield invalid(f"{field}.macAddress", fault)


def _port_causes(ports: list[v1.Port], base: str) -> Iterator[Cause]:
    names: set[str] = set()
    numbers: set[tuple[str, int]] = set()
    for index, port in enumerate(ports):
        field = f"{base}[{index}]"
        protocol = port.protocol or "TCP"
        if not 0 < port.port <= _MAX_PORT:
            yield invalid(f"{field}.port", f"{port.port} must be between 1 and {_MAX_PORT}.")
        if protocol not in ("TCP", "UDP"):
            text = f"{quoted(protocol)} must be TCP or UDP."
            yield invalid(f"{field}.protocol", text, CauseReason.NOT_SUPPORTED)
        if (protocol, port.port) in numbers:
            yield invalid(field, f"repeats {protocol} port {port.port}.", CauseReason.DUPLICATE)
        numbers.add((protocol, port.port))
        if not port.name:
            continue
        if not is_dns_label(port.name):
            yield invalid(f"{field}.name", f"{quoted(port.name)} is not a valid name of a port.")
        elif port.name in names:
            yield invalid(
                f"{field}.name", f"{quoted(port.name)} is used twice.", CauseReason.DUPLICATE
            )
        names.add(port.name)


def _raw_object(raw: object, key: str) -> dict[str, object]:
    value = raw.get(key) if isinstance(raw, dict) else None
    return value if isinstance(value, dict) else {}


def _raw_list(raw: dict[str, object], key: str) -> list[dict[str, object]]:
    """The list under a key, with an empty object for whatever is none."""
    value = raw.get(key)
    if not isinstance(value, list):
        return []
    return [item if isinstance(item, dict) else {} for item in value]
