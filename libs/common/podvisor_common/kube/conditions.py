"""Conditions of a status: a list kept as a map by type. Pure.

Invariant: a condition's transition time moves only when its status changes, and the order of the list never does,
so that an unchanged state gives an equal list.
"""

from collections.abc import Sequence

import msgspec

from podvisor_common.api.meta import Condition


def set_condition(
    conditions: Sequence[Condition] | None,
    type_: str,
    status: str,
    reason: str,
    message: str,
    now: str,
) -> list[Condition]:
    """The conditions with that one set; a new one comes last. `now` is RFC 3339, the transition time if there is one."""
    wanted = Condition(
        type=type_, status=status, reason=reason, message=message, last_transition_time=now
    )
    result: list[Condition] = []
    is_known = False
    for old in conditions or ():
        if old.type != type_:
            result.append(old)
            continue
        is_known = True
        since = old.last_transition_time if old.status == status else None
        result.append(
            msgspec.structs.replace(
                old,
                status=status,
                reason=reason,
                message=message,
                last_transition_time=since or now,
            )
        )
    return result if is_known else [*result, wanted]
