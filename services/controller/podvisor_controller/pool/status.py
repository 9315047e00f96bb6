"""What the status of a VirtualMachinePool says. Pure.

Invariant: nobody else writes this status, so it is always computed whole; two equal situations give equal statuses.
"""

from podvisor_common.api import meta
from podvisor_common.api.pool import VirtualMachinePoolStatus

from podvisor_controller.pool.observed import Observed
from podvisor_controller.sets.conditions import Failure, conditions_of_set
from podvisor_controller.sets.selectors import text_of


def status_of(now: Observed, failure: Failure | None) -> VirtualMachinePoolStatus:
    """The whole status. `failure` is what the API server refused last, and has not accepted since."""
    pool = now.pool
    return VirtualMachinePoolStatus(
        replicas=len(now.own),
        ready_replicas=now.ready,
        label_selector=text_of(pool.spec.selector),
        conditions=conditions_of_set(
            pool.status.conditions,
            is_paused=pool.spec.paused,
            failure=None if pool.spec.paused else failure,
            now=meta.format_time(now.at),
        ),
    )
