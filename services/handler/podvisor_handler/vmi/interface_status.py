"""What the status tells of a guest's network devices and of the addresses that reach it.

Invariant: pure. What the handler wired itself it says from its own knowledge; of a launcher's report only what nobody else can
know is believed, within bounds, for the devices of the manifest alone. What Multus says of the pod decides nothing: anybody may write it
who may write to pods.
"""

from collections.abc import Mapping

import msgspec
from podvisor.domain.v1 import domain_pb2
from podvisor_common.api import core, v1
from podvisor_common.api.base import ApiStruct
from podvisor_common.api.v1.names import MULTUS_STATUS_ANNOTATION, InfoSource, InterfaceState

from podvisor_handler.network.attachments import Bridge
from podvisor_handler.network.facts import Attached
from podvisor_handler.vmi.guest_interfaces import with_guests_words
from podvisor_handler.vmi.interfaces import interface_mac, interfaces_of, may_be_held
from podvisor_handler.vmi.plan import Observed


class _NetworkStatus(ApiStruct, frozen=True):
    """What Multus says of one network of a pod."""

    interface: str = ""


_decode_networks = msgspec.json.Decoder(list[_NetworkStatus]).decode


def interface_statuses(now: Observed) -> list[v1.NetworkInterfaceStatus] | None:
    """The network devices with the addresses that reach them, in the manifest's order, and those that only the guest knows. None
    when there is none."""
    wanted = interfaces_of(now.vmi)
    if not wanted:
        return None
    report = now.launcher.report
    if now.network is None or report is None:
        return now.vmi.status.interfaces
    told = _told_by_multus(now.pod)
    statuses = [
        _status(now.vmi, interface, now.network.of(interface.name), report, told)
        for interface in wanted
    ]
    known = [status for status in statuses if status is not None]
    return with_guests_words(now, now.network, known) or None


def _status(
    vmi: v1.VirtualMachineInstance,
    interface: v1.Interface,
    attached: Attached | None,
    report: domain_pb2.DomainReport,
    told: frozenset[str],
) -> v1.NetworkInterfaceStatus | None:
    if attached is None:
        return None
    reported = {each.name: each for each in report.interfaces}
    if interface.state == InterfaceState.ABSENT:
        # Once it is not told any more, the rest of it is taken away.
        is_in_domain = may_be_held(vmi, interface, report)
        if not is_in_domain:
            return None
    else:
        is_in_domain = _is_in_domain(interface, report, reported)
    sources = [InfoSource.DOMAIN] if is_in_domain else []
    if attached.attachment.pod_interface in told:
        sources.append(InfoSource.MULTUS_STATUS)
    addresses = _reaching(attached)
    return v1.NetworkInterfaceStatus(
        name=interface.name,
        mac=interface_mac(vmi, interface, attached),
        ip_address=addresses[0] if addresses else "",
        ip_addresses=addresses or None,
        pod_interface_name=attached.pod_interface,
        info_source=", ".join(sources),
        queue_count=attached.attachment.queues if is_in_domain else None,
        link_state=_link_state(interface, reported.get(interface.name)) if is_in_domain else "",
    )


def _reaching(attached: Attached) -> list[str]:
    """The addresses by which others reach the guest: of those that a bridge takes from the pod it is told those of IPv4 alone."""
    is_bridged = isinstance(attached.attachment.binding, Bridge)
    addresses = attached.addresses4 if is_bridged else attached.addresses
    return [address.split("/")[0] for address in addresses]


def _is_in_domain(
    interface: v1.Interface,
    report: domain_pb2.DomainReport,
    reported: Mapping[str, domain_pb2.InterfaceReport],
) -> bool:
    if report.state not in (domain_pb2.DOMAIN_STATE_RUNNING, domain_pb2.DOMAIN_STATE_PAUSED):
        return False
    # A launcher that says nothing of interfaces is of an earlier release, in which all of them were fixed.
    if not reported:
        return True
    known = reported.get(interface.name)
    return known is not None and known.attachment != domain_pb2.INTERFACE_ATTACHMENT_AWAITED


def _link_state(interface: v1.Interface, report: domain_pb2.InterfaceReport | None) -> str:
    """One of an earlier release tells neither queues nor the link."""
    is_told = report is not None and report.queues > 0
    is_up = (
        report.link_up if report is not None and is_told else interface.state != InterfaceState.DOWN
    )
    return "up" if is_up else "down"


def _told_by_multus(pod: core.Pod | None) -> frozenset[str]:
    """The pod's interfaces that Multus says it has given it; none where it says nothing, or somebody else wrote what is no list."""
    text = pod.metadata.annotation(MULTUS_STATUS_ANNOTATION) if pod is not None else None
    try:
        return frozenset(network.interface for network in _decode_networks(text or "[]"))
    except msgspec.DecodeError:
        return frozenset()
