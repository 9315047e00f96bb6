"""How often a launcher may make the handler do something, on a clock of the test's own."""

import pytest
from podvisor_handler.launchers.pace import Pace


def test_a_burst_passes_and_what_follows_is_spread() -> None:
    pace = Pace(3, 10, clock=lambda: 100.0)
    assert [pace.next_turn_s() > 0 for _ in range(3)] == [False, False, False]
    assert [round(pace.next_turn_s(), 6) for _ in range(3)] == [0.1, 0.2, 0.3]


def test_a_pause_earns_at_most_a_burst() -> None:
    now = 0.0
    pace = Pace(2, 10, clock=lambda: now)
    now += 3600
    waits = [pace.next_turn_s() for _ in range(4)]
    assert waits[1] <= 0
    assert waits[2:] == [pytest.approx(0.1), pytest.approx(0.2)]


def test_a_turn_that_is_not_to_be_had_is_not_taken() -> None:
    now_s = 100.0
    pace = Pace(2, 1.0, clock=lambda: now_s)
    assert [pace.take_turn() for _ in range(4)] == [True, True, False, False]
    now_s += 1
    assert [pace.take_turn() for _ in range(2)] == [True, False]
