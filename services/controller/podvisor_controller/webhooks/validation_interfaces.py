"""What is wrong with the interfaces of a machine, each by itself and against other devices. Pure."""

import ipaddress
import re
from collections.abc import Iterator, Sequence

from podvisor_common import pci_addresses
from podvisor_common.api import v1
from podvisor_common.api.v1 import names

from podvisor_controller.webhooks.validation_fields import (
    Cause,
    CauseReason,
    has_control,
    invalid,
    is_dns_label,
    quoted,
    word_causes,
)

_MODELS = ("virtio", "e1000", "e1000e", "igb", "ne2k_pci", "pcnet", "rtl8139")
_STATES = tuple(names.InterfaceState)
_MAC = re.compile(
    r"[0-9A-Fa-f]{2}(?P<separator>[:-])[0-9A-Fa-f]{2}(?:(?P=separator)[0-9A-Fa-f]{2}){4}"
)
# The address of the bridge on the pod's side; and the one that a guest takes for none, and makes one up.
_RESERVED_MACS = ("02:00:00:00:00:00", "00:00:00:00:00:00")
_MOST_ACPI_INDEX = 16383
_MAX_PORT = 65535
# Numbers of DHCP options that a site may give a meaning to, and what one option holds.
_SITE_OPTIONS = range(224, 255)
_MOST_OPTION_BYTES = 255
_MOST_TIME_SERVERS = _MOST_OPTION_BYTES // 4


def interface_causes(spec: v1.VirtualMachineInstanceSpec, path: str) -> Iterator[Cause]:
    """Checks everything about `domain.devices.interfaces` but their bindings and networks."""
    addresses = {
        disk.disk.pci_address.lower(): f"{path}.domain.devices.disks[{index}].disk.pciAddress"
        for index, disk in reversed([*enumerate(spec.domain.devices.disks or ())])
        if disk.disk is not None and disk.disk.pci_address
    }
    macs: dict[str, str] = {}
    indexes: dict[int, str] = {}
    for index, interface in enumerate(spec.domain.devices.interfaces or ()):
        field = f"{path}.domain.devices.interfaces[{index}]"
        yield from word_causes(interface.state, f"{field}.state", _STATES)
        if interface.model and interface.model not in _MODELS:
            yield invalid(
                f"{field}.model",
                f"{quoted(interface.model)} is not supported, must be one of: {', '.join(_MODELS)}",
                CauseReason.NOT_SUPPORTED,
            )
        if has_control(interface.tag):
            yield invalid(f"{field}.tag", "must not have control characters.")
        yield from _mac_causes(interface.mac_address, macs, f"{field}.macAddress")
        yield from _pci_causes(interface.pci_address, addresses, f"{field}.pciAddress")
        yield from _acpi_causes(interface, spec.architecture, indexes, f"{field}.acpiIndex")
        yield from _port_causes(interface.ports or [], f"{field}.ports")
        yield from _dhcp_causes(interface, f"{field}.dhcpOptions")


def mac_address_fault(mac: str) -> str:
    """Why that cannot be the address of an interface; empty when it can."""
    if not _MAC.fullmatch(mac):
        return f"{quoted(mac)}: malformed MAC address."
    if int(mac[:2], 16) & 1:
        return f"{quoted(mac)} is a multicast MAC address."
    if _normal(mac) in _RESERVED_MACS:
        return f"{quoted(mac)} is a reserved MAC address."
    return ""


def _normal(mac: str) -> str:
    return mac.lower().replace("-", ":")


def _mac_causes(mac: str, first_use: dict[str, str], field: str) -> Iterator[Cause]:
    """The address is one, and no other interface's. `first_use` gets to know it."""
    if not mac:
        return
    other = first_use.setdefault(_normal(mac), field)
    if fault := mac_address_fault(mac):
        yield invalid(field, fault)
    elif other != field:
        yield invalid(field, f"{quoted(mac)} is that of {other}.", CauseReason.DUPLICATE)


def _pci_causes(address: str, first_use: dict[str, str], field: str) -> Iterator[Cause]:
    """The address is one, and no other device's. `first_use` gets to know it."""
    if not address:
        return
    other = first_use.setdefault(address.lower(), field)
    if pci_addresses.bus_of(address) is None:
        yield invalid(field, f"{quoted(address)} cannot be had: it must be {pci_addresses.RANGE}.")
    elif other != field:
        yield invalid(field, f"{quoted(address)} is that of {other}.", CauseReason.DUPLICATE)


def _acpi_causes(
    interface: v1.Interface, architecture: str, first_use: dict[int, str], field: str
) -> Iterator[Cause]:
    number = interface.acpi_index
    if number is None:
        return
    other = first_use.setdefault(number, field)
    if not 0 < number <= _MOST_ACPI_INDEX:
        yield invalid(field, f"{number} must be between 1 and {_MOST_ACPI_INDEX}.")
    elif architecture not in ("", "amd64"):
        text = f"cannot be given to machines of architecture {architecture}, only of amd64."
        yield invalid(field, text, CauseReason.NOT_SUPPORTED)
    elif other != field:
        yield invalid(field, f"{number} is that of {other}.", CauseReason.DUPLICATE)


def _port_causes(ports: list[v1.Port], base: str) -> Iterator[Cause]:
    known: set[str] = set()
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
        elif port.name in known:
            yield invalid(
                f"{field}.name", f"{quoted(port.name)} is used twice.", CauseReason.DUPLICATE
            )
        known.add(port.name)


def _dhcp_causes(interface: v1.Interface, field: str) -> Iterator[Cause]:
    options = interface.dhcp_options
    if options is None:
        return
    if interface.passt_binding is not None:
        text = "is not supported with passtBinding, where passt answers DHCP by itself."
        yield invalid(field, text, CauseReason.NOT_SUPPORTED)
    yield from _option_causes(options.boot_file_name, f"{field}.bootFileName")
    yield from _option_causes(options.tftp_server_name, f"{field}.tftpServerName")
    yield from _time_server_causes(options.ntp_servers or (), f"{field}.ntpServers")
    used: set[int] = set()
    for index, private in enumerate(options.private_options or ()):
        at = f"{field}.privateOptions[{index}]"
        number = private.option
        if number not in _SITE_OPTIONS:
            text = f"{number} must be between {_SITE_OPTIONS[0]} and {_SITE_OPTIONS[-1]}."
            yield invalid(f"{at}.option", text)
        elif number in used:
            yield invalid(f"{at}.option", f"{number} is used twice.", CauseReason.DUPLICATE)
        used.add(number)
        if not private.value:
            yield invalid(f"{at}.value", "is empty.", CauseReason.REQUIRED)
        yield from _option_causes(private.value, f"{at}.value")


def _time_server_causes(servers: Sequence[str], field: str) -> Iterator[Cause]:
    if len(servers) > _MOST_TIME_SERVERS:
        text = f"has {len(servers)} servers, of which an option holds {_MOST_TIME_SERVERS}."
        yield invalid(field, text)
    for index, server in enumerate(servers):
        try:
            ipaddress.IPv4Address(server)
        except ValueError:
            text = f"{quoted(server)} must be an IPv4 address, such as 10.0.0.1."
            yield invalid(f"{field}[{index}]", text)


def _option_causes(text: str, field: str) -> Iterator[Cause]:
    """A text that is the value of a DHCP option."""
    if has_control(text):
        yield invalid(field, "must not have control characters.")
    elif len(text.encode()) > _MOST_OPTION_BYTES:
        yield invalid(field, f"must be at most {_MOST_OPTION_BYTES} bytes long.")
