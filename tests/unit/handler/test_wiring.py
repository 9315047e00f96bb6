"""When it is looked again for an interface that a pod has not got yet."""

from datetime import UTC, datetime

import pytest
from podvisor_handler.network.attachments import Bridge
from podvisor_handler.network.facts import PodNetwork
from podvisor_handler.vmi.wiring import Wiring

from tests.unit.handler.networks import attached, wired

AT = datetime(2026, 1, 2, tzinfo=UTC)
BLUE = attached("blue", Bridge(), is_secondary=True, may_come_later=True)
RED = attached("red", Bridge(), is_secondary=True, may_come_later=True)
ALL = wired(attached(), BLUE)
WITHOUT_BLUE = wired(attached(), missing=(BLUE.attachment,))
WITHOUT_RED = wired(attached(), BLUE, missing=(RED.attachment,))


class Clock:
    """Monotonic seconds, as the test says."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def look(wiring: Wiring, clock: Clock, network: PodNetwork, told: str = "") -> float:
    """Looks when it is due; how long that took."""
    pause_s = wiring.next_look_s
    assert pause_s is not None
    assert pause_s == 0 or not wiring.is_due(told)
    clock.now_s += pause_s
    assert wiring.is_due(told)
    wiring.note(network, AT, told)
    return pause_s


def test_it_is_looked_ever_more_seldom() -> None:
    clock = Clock()
    wiring = Wiring(clock)
    wiring.note(WITHOUT_BLUE, AT, "")
    pauses_s = [look(wiring, clock, WITHOUT_BLUE) for _ in range(40)]
    assert 2 <= pauses_s[0] <= 3
    assert all(20 <= pause_s <= 30 for pause_s in pauses_s[4:])
    assert wiring.missing_for_s == {"blue": pytest.approx(sum(pauses_s))}


def test_an_interface_that_is_there_is_not_looked_for() -> None:
    clock = Clock()
    wiring = Wiring(clock)
    assert (wiring.next_look_s, wiring.is_due("news")) == (None, False)
    wiring.note(WITHOUT_BLUE, AT, "")
    look(wiring, clock, ALL)
    assert (wiring.next_look_s, wiring.missing_for_s) == (None, {})
    assert not wiring.is_due("news")
    assert wiring.network == ALL


def test_it_is_looked_at_once_when_multus_says_something_new() -> None:
    clock = Clock()
    wiring = Wiring(clock)
    wiring.note(WITHOUT_BLUE, AT, "[]")
    for _ in range(10):
        look(wiring, clock, WITHOUT_BLUE, "[]")
    assert not wiring.is_due("[]")
    assert wiring.is_due('[{"interface": "blue"}]')
    wiring.note(WITHOUT_BLUE, AT, '[{"interface": "blue"}]')
    assert not wiring.is_due('[{"interface": "blue"}]')
    assert look(wiring, clock, WITHOUT_BLUE, '[{"interface": "blue"}]') <= 3


def test_another_interface_is_waited_for_anew() -> None:
    clock = Clock()
    wiring = Wiring(clock)
    wiring.note(WITHOUT_BLUE, AT, "")
    for _ in range(10):
        look(wiring, clock, WITHOUT_BLUE)
    wiring.note(WITHOUT_RED, AT, "")
    assert wiring.missing_for_s == {"red": 0}
    assert look(wiring, clock, WITHOUT_RED) <= 3


def test_each_interface_has_its_own_time() -> None:
    clock = Clock()
    wiring = Wiring(clock)
    wiring.note(WITHOUT_BLUE, AT, "")
    clock.now_s += 600
    wiring.note(wired(attached(), missing=(BLUE.attachment, RED.attachment)), AT, "")
    clock.now_s += 4
    assert wiring.missing_for_s == {"blue": 604, "red": 4}
    wiring.note(WITHOUT_RED, AT, "")
    assert wiring.missing_for_s == {"red": 4}
    wiring.note(wired(attached(), missing=(BLUE.attachment, RED.attachment)), AT, "")
    assert wiring.missing_for_s == {"blue": 0, "red": 4}


def test_the_moment_of_the_first_wiring_stays() -> None:
    wiring = Wiring(Clock())
    wiring.note(WITHOUT_BLUE, AT, "")
    wiring.note(ALL, AT.replace(hour=1), "")
    assert wiring.ready_at == AT
