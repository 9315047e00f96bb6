"""What the scheduler says of a pod that it finds no node for. Pure."""

from datetime import datetime, timedelta

from podvisor_common.api import core, meta
from podvisor_common.api.v1.names import ConditionType

# It often finds a node a moment after it found none; that is not worth telling.
UNSCHEDULABLE_PATIENCE = timedelta(seconds=1.5)


def complaint(pod: core.Pod) -> meta.Condition | None:
    """The scheduler's, of a pod that has no node."""
    if pod.spec.node_name:
        return None
    condition = meta.find_condition(pod.status.conditions, ConditionType.POD_SCHEDULED)
    return condition if condition is not None and condition.status == "False" else None


def patience_left(condition: meta.Condition, at: datetime) -> timedelta:
    """For how long a complaint is not to be told yet; zero or less when it is."""
    since = condition.last_transition_time
    began = meta.parse_time(since) if since else at
    return min(began + UNSCHEDULABLE_PATIENCE - at, UNSCHEDULABLE_PATIENCE)
