"""Every decision of the machine, as a table: a situation in words, what was observed, what is said and done."""

from dataclasses import replace
from operator import itemgetter

import pytest
from podvisor_launcher.lifecycle.hotplug_plan import Change, DiskChange
from podvisor_launcher.lifecycle.plan import (
    LOOK_FOR_ROOM_MS,
    NO_SPACE,
    POWER_BUTTON_INTERVAL_MS,
    UNREACHABLE_AFTER_MS,
    ChangeDevice,
    DestroyGuest,
    GrowDisk,
    LetGoOn,
    NoteStarted,
    Plan,
    PrepareDisks,
    PressPowerButton,
    ResumeGuest,
    StartGuest,
    plan,
)
from podvisor_launcher.lifecycle.record import EndReason
from podvisor_launcher.lifecycle.situation import (
    DiskTrouble,
    PendingGrowth,
    Situation,
    State,
    Status,
    Why,
)
from podvisor_launcher.virt.guest import Active, Inactive, Off, Paused

from tests.unit.launcher.observations import (
    ATTEMPTED,
    BROKEN,
    FULL,
    FULL_BEFORE,
    NOW,
    PLUG,
    RUNNING,
    STARTED,
    STARVED,
    blocked,
    failure,
    now,
    ready,
    specified,
    stop,
    told,
)

STEPS = [
    ("nothing was applied yet", now(), State.NONE, None),
    ("a specification came", specified(), State.PREPARING, PrepareDisks()),
    ("the disks are there", ready(), State.PREPARING, StartGuest()),
    ("a Secret is missing", specified(blocked=blocked(500)), State.WAITING, None),
    ("the Secret may be there now", specified(blocked=blocked(0)), State.WAITING, PrepareDisks()),
    ("the guest came up", ready(RUNNING, ATTEMPTED), State.RUNNING, NoteStarted()),
    (
        "the guest came up paused",
        ready(Active(Paused.BY_USER), ATTEMPTED),
        State.PAUSED,
        NoteStarted(),
    ),
    ("a restarted launcher finds its guest", specified(RUNNING, STARTED), State.RUNNING, None),
    ("it was paused", ready(Active(Paused.BY_USER), STARTED), State.PAUSED, None),
    ("a disk was full", ready(STARVED, STARTED, trouble=FULL_BEFORE), State.PAUSED, LetGoOn()),
    ("a disk did not work", ready(STARVED, STARTED, trouble=BROKEN), State.PAUSED, LetGoOn()),
    ("nobody knows which disk", ready(STARVED, STARTED), State.PAUSED, LetGoOn()),
    (
        "it was let go on and may stop again at once",
        ready(RUNNING, STARTED, settled_ms=NOW + 1),
        None,
        None,
    ),
    (
        "it was let go on and is to end",
        ready(RUNNING, replace(STARTED, stop=stop()), settled_ms=NOW + 1),
        State.RUNNING,
        PressPowerButton(),
    ),
    ("it was let go on and runs", ready(RUNNING, STARTED, settled_ms=NOW), State.RUNNING, None),
    (
        "a disk can come",
        ready(RUNNING, STARTED, device_change=PLUG, growth=PendingGrowth("data", NOW + 1)),
        State.RUNNING,
        ChangeDevice(PLUG),
    ),
    (
        "a disk can come and the guest is to end",
        ready(RUNNING, replace(STARTED, stop=stop()), device_change=PLUG),
        State.RUNNING,
        PressPowerButton(),
    ),
    (
        "a volume has grown",
        ready(RUNNING, STARTED, growth=PendingGrowth("data", NOW)),
        State.RUNNING,
        GrowDisk("data"),
    ),
    (
        "a volume has grown and its disk could not",
        ready(RUNNING, STARTED, growth=PendingGrowth("data", NOW + 1)),
        State.RUNNING,
        None,
    ),
    (
        "the volume of a full disk has grown",
        ready(STARVED, STARTED, trouble=FULL, growth=PendingGrowth("data", NOW)),
        State.PAUSED,
        GrowDisk("data"),
    ),
    (
        "a volume has grown, and the guest is ending",
        ready(Active(Paused.ENDING), STARTED, growth=PendingGrowth("data", NOW)),
        State.RUNNING,
        None,
    ),
    ("a disk is full", ready(STARVED, STARTED, trouble=FULL), State.PAUSED, None),
    (
        "a disk was full a moment ago",
        ready(STARVED, STARTED, resume_ms=NOW + 9),
        State.PAUSED,
        None,
    ),
    (
        "a disk is full, and the guest is to end",
        ready(STARVED, replace(STARTED, stop=stop()), trouble=FULL),
        State.PAUSED,
        ResumeGuest(),
    ),
    (
        "the start failed, too early for another",
        ready(start_failure=failure(1, 500)),
        State.WAITING,
        None,
    ),
    (
        "the start failed, time for another",
        ready(start_failure=failure()),
        State.WAITING,
        StartGuest(),
    ),
    (
        "the start was attempted and nothing is known of it",
        ready(Inactive(Off.UNKNOWN), ATTEMPTED),
        State.PREPARING,
        StartGuest(),
    ),
    (
        "asked to shut down",
        ready(RUNNING, replace(STARTED, stop=stop())),
        State.RUNNING,
        PressPowerButton(),
    ),
    (
        "the button was pressed just now",
        ready(RUNNING, replace(STARTED, stop=stop()), button_pressed_ms=NOW - 1),
        State.RUNNING,
        None,
    ),
    (
        "the guest did not hear the button",
        ready(
            RUNNING, replace(STARTED, stop=stop()), button_pressed_ms=NOW - POWER_BUTTON_INTERVAL_MS
        ),
        State.RUNNING,
        PressPowerButton(),
    ),
    (
        "a paused guest must run to shut down",
        ready(Active(Paused.BY_USER), replace(STARTED, stop=stop())),
        State.PAUSED,
        ResumeGuest(),
    ),
    (
        "the grace period is over",
        ready(RUNNING, replace(STARTED, stop=stop(0))),
        State.RUNNING,
        DestroyGuest(EndReason.GRACE_PERIOD_EXPIRED),
    ),
    (
        "a client wants it gone",
        ready(RUNNING, replace(STARTED, destroy=EndReason.DESTROYED)),
        State.RUNNING,
        DestroyGuest(EndReason.DESTROYED),
    ),
    (
        "libvirt is away, the guest is not",
        specified(None, STARTED, last_active=RUNNING),
        State.RUNNING,
        None,
    ),
    ("libvirt has not said yet how the guest is", specified(None, STARTED), None, None),
    (
        "libvirt is away from a paused guest",
        specified(None, STARTED, last_active=Active(Paused.BY_USER)),
        State.PAUSED,
        None,
    ),
    ("libvirt is away during the start", specified(None, ATTEMPTED), State.PREPARING, None),
    (
        "libvirt starts it right now",
        ready(Active(Paused.STARTING), ATTEMPTED),
        State.PREPARING,
        None,
    ),
    (
        "libvirt is killing what it could not start",
        ready(Active(Paused.ENDING), ATTEMPTED),
        State.PREPARING,
        None,
    ),
    (
        "the guest is shutting down by itself",
        ready(Active(Paused.ENDING), STARTED),
        State.RUNNING,
        None,
    ),
    (
        "it has shut down as asked, QEMU is still there",
        ready(Active(Paused.ENDING), replace(STARTED, stop=stop())),
        State.RUNNING,
        None,
    ),
    (
        "QEMU does not go",
        ready(Active(Paused.ENDING), replace(STARTED, stop=stop(0))),
        State.RUNNING,
        DestroyGuest(EndReason.GRACE_PERIOD_EXPIRED),
    ),
    (
        "libvirt was interrupted in the start and has killed it",
        ready(Inactive(Off.CRASHED), ATTEMPTED),
        State.PREPARING,
        StartGuest(),
    ),
    ("disks need no libvirt", specified(None), State.PREPARING, PrepareDisks()),
    (
        "libvirt has been away for a moment",
        ready(None, unreachable_since_ms=NOW - 1),
        State.PREPARING,
        None,
    ),
    (
        "libvirt has been away for long",
        ready(None, unreachable_since_ms=NOW - UNREACHABLE_AFTER_MS),
        State.WAITING,
        None,
    ),
]


@pytest.mark.parametrize(
    ("situation", "observed", "state", "action"), STEPS, ids=map(itemgetter(0), STEPS)
)
def test_a_step(situation: str, observed: Situation, state: State | None, action: object) -> None:
    step = plan(observed)
    assert (step.status.state if step.status else None, step.action) == (state, action)


@pytest.mark.parametrize(
    ("last", "state"),
    [
        (Active(), State.RUNNING),
        (Active(Paused.BY_USER), State.PAUSED),
        (None, State.RUNNING),
    ],
)
def test_a_guest_whose_libvirt_is_away_for_long_is_what_it_was_and_so_is_told(
    last: Active | None, state: State
) -> None:
    away = specified(
        None, STARTED, last_active=last, unreachable_since_ms=NOW - UNREACHABLE_AFTER_MS
    )
    step = plan(away)
    assert (told(step).state, told(step).reason) == (state, Why.LIBVIRT_UNREACHABLE)
    assert step.action is None
    assert step.wake_ms is not None


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        (FULL, 'Volume "data" has no space left; the guest goes on when there is.'),
        (FULL_BEFORE, 'Volume "data" has no space left; the guest goes on when there is.'),
        (
            BROKEN,
            'Volume "data" returned an I/O error; the guest goes on when its storage works again.',
        ),
        (DiskTrouble("", no_space=True, has_room=False), NO_SPACE),
        (None, "A disk returned an I/O error; the guest goes on when its storage works again."),
    ],
)
def test_the_disk_that_stopped_the_guest_is_named_in_quiet_words(
    trouble: DiskTrouble | None, message: str
) -> None:
    for resume_ms in (0, NOW + 1, NOW + 2):
        status = told(plan(ready(STARVED, STARTED, trouble=trouble, resume_ms=resume_ms)))
        assert status == Status(State.PAUSED, Why.IO_ERROR, message)
    away = specified(None, STARTED, last_active=STARVED, trouble=trouble)
    assert told(plan(away)).message == message


def test_a_disk_in_use_is_waited_for_without_an_end() -> None:
    in_use = replace(failure(0, 500), why=Why.INVALID_DISK)
    assert told(plan(ready(start_failure=in_use))).reason is Why.INVALID_DISK
    again = plan(ready(start_failure=replace(in_use, retry_ms=NOW)))
    assert (told(again).reason, again.action) == (Why.INVALID_DISK, StartGuest())


def test_it_wakes_for_whatever_is_due_first() -> None:
    record = replace(STARTED, stop=stop(1_000))
    assert plan(ready(RUNNING, record, button_pressed_ms=NOW)).wake_ms == NOW + 1_000
    record = replace(STARTED, stop=stop(60_000))
    assert (
        plan(ready(RUNNING, record, button_pressed_ms=NOW)).wake_ms
        == NOW + POWER_BUTTON_INTERVAL_MS
    )
    assert plan(specified(blocked=blocked(700))).wake_ms == NOW + 700
    assert plan(ready(start_failure=failure(1, 900))).wake_ms == NOW + 900
    assert plan(ready(STARVED, STARTED, resume_ms=NOW + 800)).wake_ms == NOW + 800
    assert plan(ready(STARVED, STARTED, trouble=FULL)).wake_ms == NOW + LOOK_FOR_ROOM_MS
    growth = PendingGrowth("data", NOW + 600)
    assert plan(ready(RUNNING, STARTED, growth=growth)).wake_ms == NOW + 600
    assert plan(ready(STARVED, STARTED, resume_ms=NOW + 5, growth=growth)).wake_ms == NOW + 5
    change = DiskChange("data", Change.UNPLUG, NOW + 300)
    assert plan(ready(RUNNING, STARTED, device_change=change, growth=growth)).wake_ms == NOW + 300
    assert plan(ready(RUNNING, STARTED, settled_ms=NOW + 70)).wake_ms == NOW + 70


def test_no_step_without_a_way_on() -> None:
    """What neither acts nor sets a time must be woken by an event: only states that others end may do so."""
    waits_for_others = {State.NONE, State.RUNNING, State.PAUSED}
    for _, observed, _, _ in STEPS:
        step: Plan = plan(observed)
        if step.action is None and step.wake_ms is None:
            assert told(step).state in waits_for_others
            assert observed.guest is not None
