"""What the status of a VirtualMachineInstanceReplicaSet says. Pure.

Invariant: nobody else writes this status, so it is always computed whole; two equal situations give equal statuses.
"""

from podvisor_common.api import meta, v1

from podvisor_controller.replicaset.plan import Observed, is_ready
from podvisor_controller.sets.conditions import conditions_of_set
from podvisor_controller.sets.selectors import text_of


def status_of(now: Observed) -> v1.VirtualMachineInstanceReplicaSetStatus:
    """The whole status."""
    spec, active = now.replica_set.spec, now.active
    # What cannot be done does not matter any more when nobody wants it.
    failure = None if spec.paused or now.is_settled else now.failure
    return v1.VirtualMachineInstanceReplicaSetStatus(
        replicas=len(active),
        ready_replicas=sum(is_ready(vmi) for vmi in active),
        label_selector=text_of(spec.selector),
        conditions=conditions_of_set(
            now.replica_set.status.conditions,
            is_paused=spec.paused,
            failure=failure,
            now=meta.format_time(now.at),
        ),
    )
