"""How a machine ends: as a table of what was observed and the reason, and that an end is final."""

from dataclasses import replace
from operator import itemgetter

import pytest
from podvisor_launcher.lifecycle.plan import (
    EXIT_CLEAN,
    EXIT_FAILED,
    MAX_START_ATTEMPTS,
    QEMU_END_WITHIN_MS,
    Leave,
    Plan,
    RecordEnd,
    plan,
)
from podvisor_launcher.lifecycle.record import End, EndReason, QemuEnd, Record
from podvisor_launcher.lifecycle.situation import (
    Situation,
    State,
)
from podvisor_launcher.virt.guest import Absent, Active, Crash, Inactive, Off, Paused

from tests.unit.launcher.observations import (
    ATTEMPTED,
    NOW,
    RUNNING,
    STARTED,
    blocked,
    failure,
    gone,
    now,
    ready,
    specified,
    stop,
    told,
)

PANICKED = replace(STARTED, crash=Crash.PANIC)
ENDS = [
    ("the guest shut itself down", ready(Inactive(Off.SHUTDOWN), STARTED), EndReason.SHUTDOWN),
    ("QEMU was killed", gone(Inactive(Off.CRASHED), QemuEnd(-1, 9)), EndReason.CRASHED),
    ("QEMU failed", gone(Inactive(Off.CRASHED), QemuEnd(1, 0)), EndReason.CRASHED),
    (
        "it shut down while libvirt was being restarted",
        gone(Inactive(Off.CRASHED), QemuEnd(0, 0)),
        EndReason.SHUTDOWN,
    ),
    (
        "it panicked, and libvirt asked its QEMU to end",
        replace(gone(Inactive(Off.CRASHED), QemuEnd(0, 0)), record=PANICKED),
        EndReason.CRASHED,
    ),
    (
        "its watchdog powered it off",
        replace(
            gone(Inactive(Off.CRASHED), QemuEnd(0, 0)),
            record=replace(STARTED, crash=Crash.WATCHDOG),
        ),
        EndReason.CRASHED,
    ),
    (
        "it panicked, and libvirt was restarted then",
        replace(gone(Inactive(Off.UNKNOWN), QemuEnd(0, 0)), record=PANICKED),
        EndReason.CRASHED,
    ),
    (
        "it panicked before anybody saw it run",
        ready(Inactive(Off.CRASHED), replace(ATTEMPTED, crash=Crash.PANIC)),
        EndReason.CRASHED,
    ),
    (
        "it panicked and a client destroyed it",
        ready(
            Inactive(Off.DESTROYED),
            replace(PANICKED, destroy=EndReason.DESTROYED),
        ),
        EndReason.DESTROYED,
    ),
    (
        "it shut down while nobody looked",
        gone(Inactive(Off.UNKNOWN), QemuEnd(0, 0)),
        EndReason.SHUTDOWN,
    ),
    ("nobody knows how QEMU ended", gone(Inactive(Off.CRASHED), None), EndReason.CRASHED),
    ("somebody undefined the domain", gone(Absent(), None), EndReason.CRASHED),
    ("virsh destroy", ready(Inactive(Off.DESTROYED), STARTED), EndReason.DESTROYED),
    (
        "destroyed at the end of the grace period",
        ready(Inactive(Off.DESTROYED), replace(STARTED, destroy=EndReason.GRACE_PERIOD_EXPIRED)),
        EndReason.GRACE_PERIOD_EXPIRED,
    ),
    (
        "it obeyed in the last moment",
        ready(Inactive(Off.SHUTDOWN), replace(STARTED, destroy=EndReason.GRACE_PERIOD_EXPIRED)),
        EndReason.SHUTDOWN,
    ),
    (
        "a client destroyed it",
        ready(Inactive(Off.DESTROYED), replace(STARTED, destroy=EndReason.DESTROYED)),
        EndReason.DESTROYED,
    ),
    (
        "it ran and ended while the launcher was away",
        ready(Inactive(Off.SHUTDOWN), ATTEMPTED),
        EndReason.SHUTDOWN,
    ),
    (
        "told to end before any specification",
        now(record=Record(stop=stop())),
        EndReason.NEVER_STARTED,
    ),
    ("told to end before the start", ready(record=Record(stop=stop())), EndReason.NEVER_STARTED),
    (
        "told to end while a Secret is missing",
        specified(record=Record(stop=stop()), blocked=blocked(500)),
        EndReason.NEVER_STARTED,
    ),
    (
        "told to end while libvirt is away",
        specified(None, Record(stop=stop())),
        EndReason.NEVER_STARTED,
    ),
    (
        "destroyed before the start",
        ready(record=Record(destroy=EndReason.DESTROYED)),
        EndReason.NEVER_STARTED,
    ),
    ("libvirt refused the domain", ready(start_failure=failure(final=True)), EndReason.REJECTED),
    (
        "it failed to start once too often",
        ready(Inactive(Off.FAILED), ATTEMPTED, start_failure=failure(MAX_START_ATTEMPTS)),
        EndReason.START_FAILED,
    ),
]


def test_the_note_of_how_qemu_ended_is_waited_for() -> None:
    observed = ready(Inactive(Off.CRASHED), STARTED, gone_since_ms=NOW - 1)
    due_ms = NOW - 1 + QEMU_END_WITHIN_MS
    assert plan(observed) == Plan(None, wake_ms=due_ms)
    for last in (Active(), Active(Paused.BY_USER)):
        assert plan(replace(observed, last_active=last)) == Plan(
            told(plan(ready(last, STARTED))), wake_ms=due_ms
        )


def test_word_of_a_crash_is_waited_for_where_libvirt_may_have_missed_a_shutdown() -> None:
    observed = ready(Inactive(Off.CRASHED), STARTED, qemu_end=QemuEnd(0, 0), gone_since_ms=NOW - 1)
    assert plan(observed) == Plan(None, wake_ms=NOW - 1 + QEMU_END_WITHIN_MS)
    step = plan(replace(observed, record=PANICKED))
    assert told(step).message == "The guest panicked."


@pytest.mark.parametrize(("situation", "observed", "reason"), ENDS, ids=map(itemgetter(0), ENDS))
def test_an_end(situation: str, observed: Situation, reason: EndReason) -> None:
    step = plan(observed)
    assert told(step).state is State.ENDED
    assert isinstance(step.action, RecordEnd)
    assert step.action.end.reason is reason
    assert step.action.end.message


@pytest.mark.parametrize(
    ("reason", "exit_code"),
    [
        (EndReason.SHUTDOWN, EXIT_CLEAN),
        (EndReason.DESTROYED, EXIT_CLEAN),
        (EndReason.NEVER_STARTED, EXIT_CLEAN),
        (EndReason.CRASHED, EXIT_FAILED),
        (EndReason.GRACE_PERIOD_EXPIRED, EXIT_FAILED),
        (EndReason.REJECTED, EXIT_FAILED),
        (EndReason.START_FAILED, EXIT_FAILED),
    ],
)
def test_an_end_is_final(reason: EndReason, exit_code: int) -> None:
    record = replace(STARTED, end=End(reason, "over"), stop=stop())
    for guest in (None, Absent(), Inactive(Off.UNKNOWN), RUNNING):
        step = plan(ready(guest, record))
        assert (told(step).state, told(step).reason) == (State.ENDED, reason)
        assert step.action == Leave(exit_code)
