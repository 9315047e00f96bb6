"""When a handler counts as silent, on a clock of the test's own."""

import pytest
from podvisor_common.api import core, meta
from podvisor_controller.node.attendance import (
    CONFIRMED_AFTER_S,
    OVERDUE_AFTER_S,
    UNRESPONSIVE_AFTER_S,
    Attendance,
)


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def node(heartbeat: str | None = "2026-01-01T00:00:00Z", *, ready: str = "True") -> core.Node:
    annotations = None if heartbeat is None else {"kubevirt.io/heartbeat": heartbeat}
    condition = meta.Condition(type="Ready", status=ready)
    return core.Node(
        metadata=meta.ObjectMeta(name="n1", annotations=annotations),
        status=core.NodeStatus(conditions=(condition,)),
    )


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def attendance(clock: Clock) -> Attendance:
    one = Attendance(clock)
    one.saw(node())
    return one


def fallen_silent(attendance: Attendance, clock: Clock) -> Attendance:
    """The same after both fresh reads have shown the old heartbeat."""
    clock.now_s += OVERDUE_AFTER_S
    attendance.saw_freshly(node())
    clock.now_s += CONFIRMED_AFTER_S
    attendance.saw_freshly(node())
    assert not attendance.is_attended("n1")
    return attendance


def test_two_fresh_reads_make_a_handler_silent(attendance: Attendance, clock: Clock) -> None:
    assert attendance.look_again_in_s("n1") == OVERDUE_AFTER_S
    clock.now_s += OVERDUE_AFTER_S
    assert attendance.is_attended("n1")
    attendance.saw_freshly(node())
    assert attendance.is_attended("n1")
    assert attendance.look_again_in_s("n1") == CONFIRMED_AFTER_S
    clock.now_s += CONFIRMED_AFTER_S
    attendance.saw_freshly(node())
    assert not attendance.is_attended("n1")
    assert attendance.look_again_in_s("n1") is None


def test_a_heartbeat_ends_it(attendance: Attendance, clock: Clock) -> None:
    fallen_silent(attendance, clock)
    attendance.saw(node())
    assert not attendance.is_attended("n1")
    attendance.saw(node("2026-01-01T01:00:00Z"))
    assert attendance.is_attended("n1")
    assert attendance.look_again_in_s("n1") == OVERDUE_AFTER_S


@pytest.mark.parametrize("written", ["2019-01-01T00:00:00Z", "2099-01-01T00:00:00Z", "nonsense"])
def test_the_nodes_clock_does_not_count(attendance: Attendance, clock: Clock, written: str) -> None:
    clock.now_s += OVERDUE_AFTER_S
    attendance.saw_freshly(node(written))
    clock.now_s += CONFIRMED_AFTER_S
    attendance.saw_freshly(node(written))
    assert attendance.is_attended("n1")


def test_an_api_server_that_was_away_proves_nothing(attendance: Attendance, clock: Clock) -> None:
    """Handlers could not beat meanwhile, and get time to do so when it is back."""
    clock.now_s += OVERDUE_AFTER_S
    attendance.saw_freshly(node())
    clock.now_s += CONFIRMED_AFTER_S
    attendance.nobody_was_heard("n1")
    clock.now_s += 600.0
    attendance.saw_freshly(node())
    assert attendance.is_attended("n1")
    assert attendance.look_again_in_s("n1") == CONFIRMED_AFTER_S


def test_a_node_without_a_handler_is_not_asked_about(clock: Clock) -> None:
    attendance = Attendance(clock)
    attendance.saw(node(None))
    assert attendance.look_again_in_s("n1") is None
    assert attendance.is_attended("n1")


def test_a_node_that_is_gone_is_forgotten(attendance: Attendance, clock: Clock) -> None:
    fallen_silent(attendance, clock).forget("n1")
    assert attendance.is_attended("n1")
    assert attendance.look_again_in_s("n1") is None


def test_patience_with_a_node_runs_out_and_is_new_each_time(
    attendance: Attendance, clock: Clock
) -> None:
    assert attendance.patience_left_s("n1") == 0.0
    attendance.saw(node(ready="Unknown"))
    clock.now_s += 5.0
    attendance.saw(node(ready="Unknown"))
    assert attendance.patience_left_s("n1") == UNRESPONSIVE_AFTER_S - 5.0
    clock.now_s += UNRESPONSIVE_AFTER_S
    assert attendance.patience_left_s("n1") == 0.0
    attendance.saw(node(ready="True"))
    attendance.saw(node(ready="Unknown"))
    assert attendance.patience_left_s("n1") == UNRESPONSIVE_AFTER_S
