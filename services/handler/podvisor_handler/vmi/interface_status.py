"""What the status tells of a guest's network devices and of the addresses that reach it.

Invariant: pure. What the handler wired itself it says from its own knowledge; of a launcher's report only what nobody else can
know is believed, within bounds, for the devices of the manifest alone.
"""

from podvisor.domain.v1 import domain_pb2
from podvisor_common.api import v1
from podvisor_common.api.v1.names import InfoSource, InterfaceState

from podvisor_handler.network.facts import Attached
from podvisor_handler.vmi.guest_interfaces import with_guests_words
from podvisor_handler.vmi.interfaces import interface_mac, interfaces_of
from podvisor_handler.vmi.plan import Observed


def interface_statuses(now: Observed) -> list[v1.NetworkInterfaceStatus] | None:
    """The network devices with the addresses that reach them, in the manifest's order, and those that only the guest knows. None
    when there is none."""
    wanted = interfaces_of(now.vmi)
    if not wanted:
        return None
    if now.network is None:
        return now.vmi.status.interfaces
    reported = {each.name: each for each in _reports(now)}
    statuses = [
        _status(now.vmi, interface, now.network.of(interface.name), reported, _has_domain(now))
        for interface in wanted
    ]
    known = [status for status in statuses if status is not None]
    return with_guests_words(now, now.network, known) or None


def _status(
    vmi: v1.VirtualMachineInstance,
    interface: v1.Interface,
    attached: Attached | None,
    reported: dict[str, domain_pb2.InterfaceReport],
    has_domain: bool,
) -> v1.NetworkInterfaceStatus | None:
    if attached is None:
        return None
    report = reported.get(interface.name)
    # A launcher that says nothing of interfaces is of an earlier release, in which all of them were fixed.
    is_in_domain = has_domain and (
        not reported
        or (report is not None and report.attachment != domain_pb2.INTERFACE_ATTACHMENT_AWAITED)
    )
    if interface.state == InterfaceState.ABSENT and not is_in_domain:
        return None
    sources = [InfoSource.DOMAIN] if is_in_domain else []
    if attached.attachment.pod_interface is not None:
        sources.append(InfoSource.MULTUS_STATUS)
    addresses = [address.split("/")[0] for address in attached.addresses]
    return v1.NetworkInterfaceStatus(
        name=interface.name,
        mac=interface_mac(vmi, interface, attached),
        ip_address=addresses[0] if addresses else "",
        ip_addresses=addresses or None,
        pod_interface_name=attached.pod_interface,
        info_source=", ".join(sources),
        queue_count=attached.attachment.queues if is_in_domain else None,
        link_state=_link_state(interface, report) if is_in_domain else "",
    )


def _link_state(interface: v1.Interface, report: domain_pb2.InterfaceReport | None) -> str:
    """One of an earlier release tells neither queues nor the link."""
    is_told = report is not None and report.queues > 0
    is_up = (
        report.link_up if report is not None and is_told else interface.state != InterfaceState.DOWN
    )
    return "up" if is_up else "down"


def _reports(now: Observed) -> list[domain_pb2.InterfaceReport]:
    report = now.launcher.report
    return list(report.interfaces) if report is not None else []


def _has_domain(now: Observed) -> bool:
    report = now.launcher.report
    return report is not None and report.state in (
        domain_pb2.DOMAIN_STATE_RUNNING,
        domain_pb2.DOMAIN_STATE_PAUSED,
    )
