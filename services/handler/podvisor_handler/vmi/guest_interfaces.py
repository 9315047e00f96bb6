"""What a guest's agent tells of its network devices, brought together with what the handler knows of them.

Invariant: pure. A guest says here what it likes. It names its devices and, where podvisor does not translate or carry them, their
addresses; what the network gave stays, and first, for the guest speaks under nothing else. What it adds is bounded.
"""

import ipaddress
from collections.abc import Mapping, Sequence

import msgspec
from podvisor_common.api import v1
from podvisor_common.api.v1.names import ConditionType, InfoSource
from podvisor_common.guest_interfaces import ADDRESSES_LIMIT, GuestInterface, guest_interfaces

from podvisor_handler.network.attachments import Bridge
from podvisor_handler.network.facts import PodNetwork
from podvisor_handler.vmi.plan import Observed

_SEPARATOR = ", "


def with_guests_words(
    now: Observed, network: PodNetwork, known: Sequence[v1.NetworkInterfaceStatus]
) -> list[v1.NetworkInterfaceStatus]:
    """The `known` interfaces with what the agent tells of each, found by its hardware address, and after them those that only the
    guest knows. Of two devices with one hardware address the first is it: on top of it there may be VLANs and bridges."""
    told = _told(now)
    own: dict[str, GuestInterface] = {}
    for device in told:
        own.setdefault(device.mac, device)
    found = {status.name: own.get(status.mac) for status in known if status.mac}
    merged = [_merged(status, found.get(status.name), network) for status in known]
    return [*merged, *_others(told, found)]


def is_connected(now: Observed) -> bool:
    """Whether the guest has an agent that has opened its channel, as far as is known."""
    report = now.launcher.report
    if report is None or not report.HasField("guest_agent"):
        conditions = now.vmi.status.conditions or ()
        return any(each.type == ConditionType.AGENT_CONNECTED for each in conditions)
    return report.guest_agent.connected


def _told(now: Observed) -> tuple[GuestInterface, ...]:
    """What the agent said last: before a launcher that has just started has had its answer, that is in the status. An answer without
    any device is one."""
    report = now.launcher.report
    if report is not None and report.guest_agent.answered:
        told = report.guest_agent.interfaces
        return guest_interfaces((each.name, each.mac, each.addresses) for each in told)
    if not is_connected(now):
        return ()
    return guest_interfaces(
        (each.interface_name, each.mac, each.ip_addresses or ())
        for each in now.vmi.status.interfaces or ()
        if InfoSource.GUEST_AGENT in each.info_source.split(_SEPARATOR)
    )


def _merged(
    status: v1.NetworkInterfaceStatus, device: GuestInterface | None, network: PodNetwork
) -> v1.NetworkInterfaceStatus:
    if device is None:
        return status
    addresses = status.ip_addresses or []
    attached = network.of(status.name)
    if attached is not None and isinstance(attached.attachment.binding, Bridge):
        addresses = _addresses(addresses, device.addresses)
    sources = [source for source in status.info_source.split(_SEPARATOR) if source]
    return msgspec.structs.replace(
        status,
        interface_name=device.name,
        ip_address=addresses[0] if addresses else "",
        ip_addresses=addresses or None,
        info_source=_SEPARATOR.join([*sources, InfoSource.GUEST_AGENT]),
    )


def _others(
    told: Sequence[GuestInterface], found: Mapping[str, GuestInterface | None]
) -> list[v1.NetworkInterfaceStatus]:
    """What no interface of the manifest is: whatever the guest made by itself."""
    taken = [device for device in found.values() if device is not None]
    return [
        v1.NetworkInterfaceStatus(
            ip_address=addresses[0] if addresses else "",
            ip_addresses=addresses or None,
            mac=device.mac,
            interface_name=device.name,
            info_source=InfoSource.GUEST_AGENT,
        )
        for device in told
        if not any(device is each for each in taken)
        for addresses in [_in_order(device.addresses)]
    ]


def _addresses(known: list[str], told: Sequence[str]) -> list[str]:
    """What is known, then the guest's others: of those there are no more than make up what a device may have."""
    others = [address for address in _in_order(told) if address not in known]
    return [*known, *others][: max(len(known), ADDRESSES_LIMIT)]


def _in_order(addresses: Sequence[str]) -> list[str]:
    """By which others reach the guest first, and of those IPv4."""

    def rank(address: str) -> tuple[bool, int]:
        parsed = ipaddress.ip_address(address)
        return parsed.is_link_local, parsed.version

    return sorted(addresses, key=rank)
