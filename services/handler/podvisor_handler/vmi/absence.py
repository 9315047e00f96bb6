"""When a launcher's report proves that nobody has a device which it does not name.

Invariant: pure. What is not proven is taken to be in use: what a guest that runs has, is not taken from under it.
"""

from podvisor.domain.v1 import domain_pb2


def proves_absence(report: domain_pb2.DomainReport | None, generation: int) -> bool:
    """Whether neither guest nor launcher has a device that `report` does not name, and none is to get it, as of the
    `generation` of the manifest that does not ask for it."""
    if report is None or report.reason == domain_pb2.DOMAIN_REASON_LIBVIRT_UNREACHABLE:
        return False
    if report.state == domain_pb2.DOMAIN_STATE_NONE:
        return True
    # Before the guest was started nobody has anything.
    if report.state == domain_pb2.DOMAIN_STATE_WAITING and not report.disks:
        return True
    runs = report.state in (domain_pb2.DOMAIN_STATE_RUNNING, domain_pb2.DOMAIN_STATE_PAUSED)
    return runs and report.accepted_generation >= generation and report.devices_settled
