"""What keeps network devices from a guest that runs, or with it, as sentences for a person.

Invariant: pure. A launcher's words, which are untrusted, are bounded and told of the manifest's own interfaces alone.
"""

from collections.abc import Iterator

from podvisor.domain.v1 import domain_pb2
from podvisor_common.api import core, meta, v1
from podvisor_common.api.v1.names import (
    MULTUS_NETWORKS_ANNOTATION,
    ConditionType,
    EventReason,
    Reason,
)
from podvisor_common.network_selections import UnreadableNetworks, read_networks

from podvisor_handler.network.attachments import Attachment
from podvisor_handler.vmi.interfaces import interfaces_of
from podvisor_handler.vmi.plan import Observed, Problem
from podvisor_handler.vmi.problems import printable

NETWORK_NOT_READY = "NetworkNotReady"
# Multus takes a moment to bring an interface; nobody needs to know of that.
MISSING_IS_TOLD_AFTER_S = 10.0
_STATES = (domain_pb2.DOMAIN_STATE_RUNNING, domain_pb2.DOMAIN_STATE_PAUSED)


def interface_problem(now: Observed) -> Problem | None:
    """Why a guest that runs has not got, or not lost, what its manifest says of interfaces; None where nobody says so."""
    report = now.launcher.report
    if report is None or report.state not in _STATES:
        return None
    told = list(_told_by_launcher(now.vmi, report))
    missing = list(_missing(now))
    if not told and not missing:
        return None
    reason = Reason.HOT_PLUG_NETWORK_INTERFACE_ERROR if told else NETWORK_NOT_READY
    return Problem(reason, printable(" ".join([*told, *missing])))


def untold_for_s(now: Observed) -> float | None:
    """Until it is to be told that one more interface has not come, in seconds; None where it is of all, or where all have."""
    missing = now.network.missing if now.network is not None else ()
    return min((left_s for each in missing if (left_s := _patience_s(now, each)) > 0), default=None)


def _patience_s(now: Observed, attachment: Attachment) -> float:
    """For how long nothing is said yet of an interface that is missing, in seconds; 0 where it is to be told. What the status tells
    already is so still: a handler that has just started has not seen for how long."""
    known = meta.find_condition(now.vmi.status.conditions, ConditionType.SYNCHRONIZED)
    if known is not None and _lack(attachment) in known.message:
        return 0.0
    missing_for_s = now.network_missing_for_s.get(attachment.network, 0.0)
    return max(0.0, MISSING_IS_TOLD_AFTER_S - missing_for_s)


def _told_by_launcher(
    vmi: v1.VirtualMachineInstance, report: domain_pb2.DomainReport
) -> Iterator[str]:
    reported = {interface.name: interface for interface in report.interfaces}
    for interface in interfaces_of(vmi):
        if interface.name in reported and (words := printable(reported[interface.name].message)):
            yield words


def _missing(now: Observed) -> Iterator[str]:
    if now.network is None:
        return
    networks = {network.name: network for network in now.vmi.spec.networks or ()}
    asked = _asked_of_multus(now.pod)
    for attachment in now.network.missing:
        network = networks.get(attachment.network)
        if network is None or network.multus is None or _patience_s(now, attachment) > 0:
            continue
        if attachment.pod_interface not in asked:
            yield _unasked(attachment)
        else:
            definition = network.multus.definition(now.vmi.metadata.namespace)
            yield _awaited(attachment, "/".join(definition))


def _asked_of_multus(pod: core.Pod | None) -> frozenset[str]:
    """The interfaces that the pod asks Multus for; none where what somebody wrote there cannot be read."""
    text = pod.metadata.annotation(MULTUS_NETWORKS_ANNOTATION) if pod is not None else None
    try:
        return frozenset(str(network.get("interface", "")) for network in read_networks(text or ""))
    except UnreadableNetworks:
        return frozenset()


def _lack(attachment: Attachment) -> str:
    """How each sentence of a missing interface begins, whatever the cause."""
    return (
        f'Interface "{attachment.network}": the pod has no interface {attachment.pod_interface} yet'
    )


def _unasked(attachment: Attachment) -> str:
    return (
        f"{_lack(attachment)}, and does not ask for it: its annotation {MULTUS_NETWORKS_ANNOTATION} does not name it, or is no list of"
        f" networks. The events of the VirtualMachineInstance ({EventReason.FAILED_POD_PATCH}) tell what keeps virt-controller from writing it there."
    )


def _awaited(attachment: Attachment, definition: str) -> str:
    return (
        f"{_lack(attachment)}, which Multus makes of NetworkAttachmentDefinition {definition}. See that the"
        " definition is there, and that Multus' dynamic networks controller runs in the cluster; without that, the guest gets the interface with its next start."
    )
