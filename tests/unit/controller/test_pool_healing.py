"""When a pool has a machine made anew because it does not start."""

from typing import Any

import pytest
from podvisor_common.api.v1.names import Reason

from tests.unit.controller.builders import situations, stamp
from tests.unit.controller.pools import pool, pool_observed
from tests.unit.controller.test_pool_plan import machines, proactive, told

HELD_UP = {
    "printableStatus": "ErrImagePull",
    "conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": stamp(120)}],
}
FAILED_TWICE = {"startFailure": {"consecutiveFailCount": 2}, "printableStatus": "CrashLoopBackOff"}


@pytest.mark.parametrize(
    ("autohealing", "status", "expected"),
    situations(
        ("nobody asked", None, HELD_UP, []),
        ("not for so long", {}, HELD_UP, []),
        ("for so long", {"minFailingToStartDuration": "2m"}, HELD_UP, ["delete 0"]),
        ("not so often", {}, FAILED_TWICE, []),
        ("so often", {"startUpFailureThreshold": 2}, FAILED_TWICE, ["delete 0"]),
        (
            "so often, but its guest runs now",
            {"startUpFailureThreshold": 2},
            FAILED_TWICE | {"printableStatus": "Running"},
            [],
        ),
        (
            "a stopped machine has not failed",
            {"minFailingToStartDuration": "1s"},
            HELD_UP | {"printableStatus": "Stopped"},
            [],
        ),
    ),
)
def test_a_machine_that_does_not_start_is_made_anew(
    autohealing: dict[str, Any] | None, status: dict[str, Any], expected: list[str]
) -> None:
    own = machines(pool(), 0, status=status)
    assert told(pool_observed(pool(1, autohealing=autohealing), own, [])) == expected


def test_a_machine_whose_deletion_was_refused_holds_up_no_other() -> None:
    waiting = frozenset({(Reason.FAILED_SCALE_IN, "vm-2")})
    policy = proactive("DescendingOrder")
    own = [*machines(pool(), 0, status=HELD_UP), *machines(pool(), 1, 2)]
    owner = pool(1, scaleInStrategy=policy)
    assert told(pool_observed(owner, own, waiting=waiting)) == ["delete 1"]
    owner = pool(3, autohealing={"minFailingToStartDuration": "2m"})
    assert told(pool_observed(owner, own, waiting=waiting)) == ["delete 0"]
