"""The conditions of a set: why its members cannot be made or deleted, and that it is paused. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from podvisor_common.api.meta import Condition, find_condition
from podvisor_common.api.v1.names import ConditionType, Reason
from podvisor_common.kube.conditions import set_condition

_OURS = (ConditionType.REPLICA_PAUSED, ConditionType.REPLICA_FAILURE)
PAUSED = "Controller got paused"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a set's members cannot be made (FailedCreate) or deleted (FailedDelete), in words for its owner."""

    reason: Reason
    message: str


def conditions_of_set(
    known: Sequence[Condition] | None, *, is_paused: bool, failure: Failure | None, now: str
) -> list[Condition] | None:
    """The conditions from those `known`: each of the two is there while it holds. `now` is RFC 3339."""
    result = [condition for condition in known or () if condition.type not in _OURS]
    before = [condition for condition in known or () if condition.type in _OURS]
    if is_paused:
        type_, reason = ConditionType.REPLICA_PAUSED, Reason.REPLICAS_PAUSED
        result += _held(before, type_, reason, PAUSED, now)
    if failure is not None:
        type_ = ConditionType.REPLICA_FAILURE
        result += _held(before, type_, failure.reason, failure.message, now)
    return result or None


def says_paused(conditions: Sequence[Condition] | None) -> bool:
    """Whether the owner of a set has been told that it is paused."""
    paused = find_condition(conditions, ConditionType.REPLICA_PAUSED)
    return paused is not None and paused.is_true


def _held(
    before: Sequence[Condition], type_: str, reason: str, message: str, now: str
) -> list[Condition]:
    of_type = [condition for condition in before if condition.type == type_]
    return set_condition(of_type, type_, "True", reason, message, now)
