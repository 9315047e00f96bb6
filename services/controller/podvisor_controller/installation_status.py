"""What the KubeVirt object says of the installation: whether machines can run, and what is missing.

Pure: settings and the handlers' DaemonSet in, a status out. A controller that leads is at work itself, so it speaks of
the handlers and of the cluster only.
"""

from podvisor_common.api import core, v1
from podvisor_common.kube.conditions import set_condition

HANDLER = "virt-handler"
DEPLOYING, DEPLOYED = "Deploying", "Deployed"

# Status, reason, message.
Verdict = tuple[bool, str, str]

_READY_REASON, _READY = "AllComponentsReady", "All components are ready."


def status_of(
    kubevirt: v1.KubeVirt,
    *,
    version: str,
    architecture: str,
    handlers: core.DaemonSet | None,
    now: str,
) -> v1.KubeVirtStatus:
    """The status the object should have."""
    available = _available(handlers)
    conditions = kubevirt.status.conditions
    for type_, (holds, reason, message) in (
        ("Available", available),
        ("Created", (True, "AllResourcesCreated", "All resources were created.")),
        ("Progressing", _progressing(handlers)),
        ("Degraded", _degraded(handlers)),
    ):
        conditions = set_condition(conditions, type_, str(holds), reason, message, now)
    was_deployed = kubevirt.status.phase == DEPLOYED
    return v1.KubeVirtStatus(
        phase=DEPLOYED if was_deployed or available[0] else DEPLOYING,
        conditions=conditions,
        observed_generation=kubevirt.metadata.generation,
        operator_version=version,
        observed_kube_virt_version=version,
        default_architecture=architecture,
    )


def _available(handlers: core.DaemonSet | None) -> Verdict:
    """Whether there is a node that can run machines."""
    if handlers is None:
        return False, "HandlersMissing", f"There is no DaemonSet {HANDLER}: no node runs machines."
    status = handlers.status
    if status.number_available > 0:
        return True, _READY_REASON, _READY
    if status.desired_number_scheduled == 0:
        return False, "NoNodes", f"No node is selected for {HANDLER}: none runs machines."
    return False, "HandlersNotReady", _ready_on(status)


def _progressing(handlers: core.DaemonSet | None) -> Verdict:
    if handlers is None:
        return False, _READY_REASON, _READY
    status, wanted = handlers.status, handlers.status.desired_number_scheduled
    is_seen = status.observed_generation >= (handlers.metadata.generation or 0)
    if is_seen and status.updated_number_scheduled >= wanted:
        return False, _READY_REASON, _READY
    updated = status.updated_number_scheduled if is_seen else 0
    return True, "HandlersRollingOut", f"{HANDLER} is up to date on {updated} of {wanted} nodes."


def _degraded(handlers: core.DaemonSet | None) -> Verdict:
    if handlers is None:
        return True, "HandlersMissing", f"There is no DaemonSet {HANDLER}."
    if handlers.status.number_available < handlers.status.desired_number_scheduled:
        return True, "HandlersNotReady", _ready_on(handlers.status)
    return False, _READY_REASON, _READY


def _ready_on(status: core.DaemonSetStatus) -> str:
    return f"{HANDLER} is ready on {status.number_available} of {status.desired_number_scheduled} nodes."
