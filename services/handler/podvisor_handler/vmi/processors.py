"""The processors of a guest. Pure."""

from decimal import ROUND_CEILING

from podvisor_common.api import v1
from podvisor_common.api.quantity import parse_quantity


def cpu_topology(domain: v1.Domain) -> tuple[int, int, int]:
    """Sockets, cores and threads of the guest: as given, else as many sockets as processors are requested."""
    cpu = domain.cpu or v1.CPU()
    sockets = cpu.sockets
    if sockets is None and cpu.cores is None and cpu.threads is None:
        sockets = _processors_requested(domain.resources)
    return sockets or 1, cpu.cores or 1, cpu.threads or 1


def _processors_requested(resources: v1.ResourceRequirements | None) -> int:
    if resources is None:
        return 1
    amount = (resources.limits or {}).get("cpu") or (resources.requests or {}).get("cpu")
    if amount is None:
        return 1
    return max(1, int(parse_quantity(amount).to_integral_value(ROUND_CEILING)))
