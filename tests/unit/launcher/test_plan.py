"""Every decision of the machine, as a table: a situation in words, what was observed, what is said and done."""

from dataclasses import replace
from operator import itemgetter

import pytest
from podvisor_launcher.lifecycle.hotplug_plan import Change, DiskChange
from podvisor_launcher.lifecycle.plan import (
    EXIT_CLEAN,
    EXIT_FAILED,
    LOOK_FOR_ROOM_MS,
    MAX_START_ATTEMPTS,
    NO_SPACE,
    POWER_BUTTON_INTERVAL_MS,
    QEMU_END_WITHIN_MS,
    UNREACHABLE_AFTER_MS,
    ChangeDisk,
    DestroyGuest,
    GrowDisk,
    Leave,
    LetGoOn,
    NoteStarted,
    Plan,
    PrepareDisks,
    PressPowerButton,
    RecordEnd,
    ResumeGuest,
    StartGuest,
    plan,
)
from podvisor_launcher.lifecycle.record import End, EndReason, QemuEnd, Record, Start, Stop
from podvisor_launcher.lifecycle.situation import (
    Blocked,
    DiskTrouble,
    PendingGrowth,
    Situation,
    StartFailure,
    State,
    Status,
    Why,
)
from podvisor_launcher.virt.guest import Absent, Active, Guest, Inactive, Off, Paused

NOW = 1_000_000
RUNNING = Active()
STARVED = Active(Paused.IO_ERROR)
FULL = DiskTrouble("data", no_space=True, has_room=False)
FULL_BEFORE = DiskTrouble("data", no_space=True, has_room=True)
BROKEN = DiskTrouble("data", no_space=False, has_room=True)
PLUG = DiskChange("data", Change.PLUG)
ABSENT = Absent()
NEW = Record()
STARTED = Record(start=Start.DONE)
ATTEMPTED = Record(start=Start.ATTEMPTED)


def stop(in_ms: int = 30_000) -> Stop:
    return Stop(NOW + in_ms, by_container=False)


def now(guest: Guest | None = ABSENT, record: Record = NEW, **facts: object) -> Situation:
    return replace(Situation(now_ms=NOW, record=record, guest=guest), **facts)  # type: ignore[arg-type]


def specified(guest: Guest | None = ABSENT, record: Record = NEW, **facts: object) -> Situation:
    return now(guest, record, has_spec=True, **facts)


def ready(guest: Guest | None = ABSENT, record: Record = NEW, **facts: object) -> Situation:
    return specified(guest, record, disks_ready=True, **facts)


def gone(guest: Guest, qemu_end: QemuEnd | None) -> Situation:
    """The started guest is there no more, for so long that a note of QEMU's end would be there."""
    since_ms = NOW - QEMU_END_WITHIN_MS
    return ready(guest, STARTED, qemu_end=qemu_end, gone_since_ms=since_ms)


def failure(attempts: int = 1, retry_in_ms: int = 0, final: bool = False) -> StartFailure:
    return StartFailure("QEMU said no", attempts, NOW + retry_in_ms, final)


def blocked(retry_in_ms: int) -> Blocked:
    return Blocked(Why.MISSING_SECRET, "no Secret", NOW + retry_in_ms)


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
        ready(RUNNING, STARTED, disk_change=PLUG, growth=PendingGrowth("data", NOW + 1)),
        State.RUNNING,
        ChangeDisk(PLUG),
    ),
    (
        "a disk can come and the guest is to end",
        ready(RUNNING, replace(STARTED, stop=stop()), disk_change=PLUG),
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


def told(step: Plan) -> Status:
    assert step.status is not None
    return step.status


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
    assert plan(ready(RUNNING, STARTED, disk_change=change, growth=growth)).wake_ms == NOW + 300
    assert plan(ready(RUNNING, STARTED, settled_ms=NOW + 70)).wake_ms == NOW + 70


def test_no_step_without_a_way_on() -> None:
    """What neither acts nor sets a time must be woken by an event: only states that others end may do so."""
    waits_for_others = {State.NONE, State.RUNNING, State.PAUSED}
    for _, observed, _, _ in STEPS:
        step: Plan = plan(observed)
        if step.action is None and step.wake_ms is None:
            assert told(step).state in waits_for_others
            assert observed.guest is not None
