"""Conditions: order and transition times."""

from podvisor_common.api.meta import Condition
from podvisor_common.kube.conditions import set_condition

READY = Condition(type="Ready", status="True", reason="Up", last_transition_time="t1")
PAUSED = Condition(type="Paused", status="False", last_transition_time="t2", last_probe_time="t3")


def test_same_state_gives_an_equal_list() -> None:
    assert set_condition([READY, PAUSED], "Ready", "True", "Up", "", "t9") == [READY, PAUSED]


def test_transition_time_moves_with_the_status_only() -> None:
    [changed, other] = set_condition([READY, PAUSED], "Ready", "True", "Settled", "fine", "t9")
    assert (changed.reason, changed.message, changed.last_transition_time) == (
        "Settled",
        "fine",
        "t1",
    )
    assert other is PAUSED
    [changed, _] = set_condition([READY, PAUSED], "Ready", "False", "Down", "", "t9")
    assert (changed.status, changed.last_transition_time) == ("False", "t9")


def test_new_condition_comes_last_and_other_fields_stay() -> None:
    conditions = set_condition(None, "Paused", "False", "", "", "t1")
    conditions = set_condition([*conditions, READY], "Synchronized", "True", "Ok", "", "t2")
    assert [condition.type for condition in conditions] == ["Paused", "Ready", "Synchronized"]
    [paused] = set_condition([PAUSED], "Paused", "True", "", "", "t9")
    assert paused.last_probe_time == "t3"
