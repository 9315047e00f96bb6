"""What the machine needs next, and what is to be said of it meanwhile.

Invariant: plan() reads only its argument and returns a value. It never waits, retries or talks to anything; machine.py does
what it says. Time is CLOCK_BOOTTIME in milliseconds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from operator import itemgetter

from podvisor_launcher.lifecycle.device_changes import DeviceChange
from podvisor_launcher.lifecycle.record import End, EndReason, Record, Start, Stop
from podvisor_launcher.lifecycle.situation import (
    DiskTrouble,
    Situation,
    StartFailure,
    State,
    Status,
    Why,
)
from podvisor_launcher.virt.guest import Absent, Active, Crash, Guest, Inactive, Off, Paused

POWER_BUTTON_INTERVAL_MS = 3_000  # a guest that is still booting misses the first press
LOOK_FOR_ROOM_MS = 2_000  # nobody tells when a full disk has room again
LOOK_AGAIN_MS = 1_000  # a libvirt that refused to answer sends no event when it would
UNREACHABLE_AFTER_MS = 3_000  # libvirt's own restart takes less and is nobody's concern
QEMU_END_WITHIN_MS = 1_000  # the supervisor's note of it comes within a few milliseconds
MAX_START_ATTEMPTS = 5
START_RETRY_MS = 1_000  # doubled with every attempt

EXIT_CLEAN = 0
EXIT_FAILED = 10
# A guest that had to be destroyed at the end of its grace period did not do as it was asked, so its pod counts as failed;
# one that a client chose to destroy did nothing wrong.
_CLEAN = {EndReason.SHUTDOWN, EndReason.DESTROYED, EndReason.NEVER_STARTED}

NO_SPACE = "The node has no space left for the machine's files; it goes on when there is."

_PASSING = {Paused.STARTING, Paused.ENDING}  # over in a moment, by themselves


@dataclass(frozen=True, slots=True)
class PrepareDisks:
    """Make the disks of the specification."""


@dataclass(frozen=True, slots=True)
class StartGuest:
    """Define the domain and start it."""


@dataclass(frozen=True, slots=True)
class NoteStarted:
    """Record that the guest runs."""


@dataclass(frozen=True, slots=True)
class ResumeGuest:
    """Let a paused guest run, so that it can shut down."""


@dataclass(frozen=True, slots=True)
class LetGoOn:
    """Let a guest run again that a disk's error had stopped."""


@dataclass(frozen=True, slots=True)
class GrowDisk:
    """Make a disk of the guest as large as its volume."""

    disk: str


@dataclass(frozen=True, slots=True)
class ChangeDevice:
    """Give the guest a disk, medium or interface, or take it, or change it."""

    change: DeviceChange


@dataclass(frozen=True, slots=True)
class PressPowerButton:
    """Ask the guest to shut down."""


@dataclass(frozen=True, slots=True)
class DestroyGuest:
    """End the guest, recording why first."""

    reason: EndReason


@dataclass(frozen=True, slots=True)
class RecordEnd:
    """The guest has ended for good."""

    end: End


@dataclass(frozen=True, slots=True)
class Leave:
    """Nothing is left to do: the launcher may end with this code once somebody knows."""

    exit_code: int


Action = (
    PrepareDisks
    | StartGuest
    | NoteStarted
    | ResumeGuest
    | LetGoOn
    | GrowDisk
    | ChangeDevice
    | PressPowerButton
    | DestroyGuest
    | RecordEnd
    | Leave
)


@dataclass(frozen=True, slots=True)
class Plan:
    """One step: what to say now, what to do, and when to look again if nothing happens before.

    `status` is None where whatever could be said of the guest would be a guess; then nothing is reported.
    """

    status: Status | None
    action: Action | None = None
    wake_ms: int | None = None


def plan(now: Situation) -> Plan:
    """The next step from `now`. Called again after every action, event, request, and at `wake_ms`."""
    end = now.record.end
    if end is not None:
        return Plan(
            Status(State.ENDED, end.reason, end.message),
            Leave(EXIT_CLEAN if end.reason in _CLEAN else EXIT_FAILED),
        )
    if now.guest is None:
        return _without_libvirt(now)
    if isinstance(now.guest, Active):
        return _running(now, now.guest)
    if now.record.start is Start.DONE or _ran_unseen(now.record, now.guest):
        return _gone(now, now.guest)
    return _not_started(now)


def _without_libvirt(now: Situation) -> Plan:
    """QEMU needs no libvirt: a guest that ran still runs, as far as anyone can know."""
    look_again_ms = now.now_ms + LOOK_AGAIN_MS
    since_ms = now.unreachable_since_ms if now.unreachable_since_ms is not None else now.now_ms
    is_away = now.now_ms - since_ms >= UNREACHABLE_AFTER_MS
    if now.record.start is Start.DONE:
        last = _last_status(now)
        if is_away:
            state = last.state if last is not None else State.RUNNING
            last = Status(state, Why.LIBVIRT_UNREACHABLE, "libvirt does not answer.")
        return Plan(last, wake_ms=look_again_ms)
    if now.record.start is Start.ATTEMPTED:
        return Plan(Status(State.PREPARING), wake_ms=look_again_ms)
    step = _not_started(now)
    if not isinstance(step.action, StartGuest):
        return step
    if is_away:
        return Plan(
            Status(State.WAITING, Why.LIBVIRT_UNREACHABLE, "libvirt does not answer; tried again."),
            wake_ms=look_again_ms,
        )
    return Plan(Status(State.PREPARING), wake_ms=look_again_ms)


def _running(now: Situation, guest: Active) -> Plan:
    if guest.paused in _PASSING and now.record.start is not Start.DONE:
        # Not a guest that was seen running: a libvirt that was interrupted in the middle of a start kills its QEMU.
        return Plan(Status(State.PREPARING), wake_ms=now.now_ms + START_RETRY_MS)
    status = _status_of(guest, now.trouble)
    if now.record.start is not Start.DONE:
        return Plan(status, NoteStarted())
    if now.record.destroy is not None:
        return Plan(status, DestroyGuest(now.record.destroy))
    if now.record.stop is not None:
        return _stopping(now, guest, status, now.record.stop)
    if guest.paused in _PASSING:
        return Plan(status)
    if guest.paused is Paused.IO_ERROR:
        return _and_devices(now, _starved(now, status))
    if guest.paused is None and now.now_ms < now.settled_ms:
        return Plan(None, wake_ms=now.settled_ms)  # it may stop again at once
    return _and_devices(now, Plan(status))


def _starved(now: Situation, status: Status) -> Plan:
    """QEMU stops a guest whose request fails, and makes that request again when the guest is let go on."""
    if now.trouble is not None and not now.trouble.has_room:
        return Plan(status, wake_ms=max(now.resume_ms, now.now_ms + LOOK_FOR_ROOM_MS))
    if now.now_ms < now.resume_ms:
        return Plan(status, wake_ms=now.resume_ms)
    return Plan(status, LetGoOn())


def _and_devices(now: Situation, step: Plan) -> Plan:
    """The devices of a guest that runs can wait for everything else."""
    if step.action is not None:
        return step
    due: list[tuple[int, Action]] = []
    if now.device_change is not None:
        due.append((now.device_change.due_ms, ChangeDevice(now.device_change)))
    if now.growth is not None:
        due.append((now.growth.retry_ms, GrowDisk(now.growth.disk)))
    if not due:
        return step
    due_ms, action = min(due, key=itemgetter(0))
    if due_ms <= now.now_ms:
        return replace(step, action=action)
    return replace(step, wake_ms=due_ms if step.wake_ms is None else min(step.wake_ms, due_ms))


def _stopping(now: Situation, guest: Active, status: Status, stop: Stop) -> Plan:
    if now.now_ms >= stop.deadline_ms:
        return Plan(status, DestroyGuest(EndReason.GRACE_PERIOD_EXPIRED))
    if guest.paused in _PASSING:
        return Plan(status, wake_ms=stop.deadline_ms)
    next_press_ms = (
        now.now_ms
        if now.button_pressed_ms is None
        else now.button_pressed_ms + POWER_BUTTON_INTERVAL_MS
    )
    if now.now_ms < next_press_ms:
        return Plan(status, wake_ms=min(next_press_ms, stop.deadline_ms))
    return Plan(status, ResumeGuest() if guest.paused else PressPowerButton())


def _last_status(now: Situation) -> Status | None:
    return _status_of(now.last_active, now.trouble) if now.last_active is not None else None


def _status_of(guest: Active, trouble: DiskTrouble | None) -> Status:
    if guest.paused is None or guest.paused in _PASSING:
        return Status(State.RUNNING)
    if guest.paused is Paused.BY_USER:
        return Status(State.PAUSED, Why.PAUSED_BY_USER)
    if guest.paused is Paused.IO_ERROR:
        return Status(State.PAUSED, Why.IO_ERROR, _message_of(trouble))
    return Status(State.PAUSED)


def _message_of(trouble: DiskTrouble | None) -> str:
    """The same as long as it is the same trouble, however often it is tried again."""
    if trouble is not None and trouble.no_space:
        if not trouble.volume:
            return NO_SPACE
        return f'Volume "{trouble.volume}" has no space left; the guest goes on when there is.'
    which = f'Volume "{trouble.volume}"' if trouble is not None and trouble.volume else "A disk"
    return f"{which} returned an I/O error; the guest goes on when its storage works again."


def _ran_unseen(record: Record, guest: Guest) -> bool:
    """The guest ran and ended between the request to start it and the moment somebody looked. A crash proves nothing: that is
    how libvirt calls its own killing of a domain in whose start it was interrupted."""
    return record.start is Start.ATTEMPTED and (
        guest in _EXPLAINED or (record.crash is not None and not isinstance(guest, Active))
    )


def _gone(now: Situation, guest: Absent | Inactive) -> Plan:
    """The guest has ended: as libvirt says, or else as QEMU's own end tells."""
    record = now.record
    if record.destroy is not None and guest != Inactive(Off.SHUTDOWN):
        return _ended(now, End(record.destroy, _DESTROY_MESSAGES[record.destroy]))
    if record.crash is not None:
        return _ended(now, End(EndReason.CRASHED, _CRASH_MESSAGES[record.crash]))
    if guest in _EXPLAINED:
        return _ended(now, _EXPLAINED[guest])
    note_due_ms = (now.gone_since_ms or now.now_ms) + QEMU_END_WITHIN_MS
    if now.qemu_end is not None:
        if now.qemu_end.is_orderly and guest == Inactive(Off.CRASHED) and now.now_ms < note_due_ms:
            # A libvirt that was restarted says so of a shutdown that it missed; of a crash, its event may be under way.
            return Plan(_last_status(now), wake_ms=note_due_ms)
        if now.qemu_end.is_orderly:
            return _ended(now, _EXPLAINED[Inactive(Off.SHUTDOWN)])
        return _ended(now, End(EndReason.CRASHED, str(now.qemu_end)))
    if now.now_ms < note_due_ms:
        return Plan(_last_status(now), wake_ms=note_due_ms)
    is_absent = isinstance(guest, Absent)
    message = "libvirt lost the domain." if is_absent else "The guest crashed or QEMU died."
    return _ended(now, End(EndReason.CRASHED, message))


_EXPLAINED: Mapping[Guest, End] = {
    Inactive(Off.SHUTDOWN): End(EndReason.SHUTDOWN, "The guest shut down."),
    Inactive(Off.DESTROYED): End(EndReason.DESTROYED, "The guest was destroyed."),
}
_CRASH_MESSAGES = {
    Crash.PANIC: "The guest panicked.",
    Crash.WATCHDOG: "The guest did not reset its watchdog in time, which powered it off.",
}
_DESTROY_MESSAGES = {
    EndReason.GRACE_PERIOD_EXPIRED: "The guest did not shut down within its grace period.",
    EndReason.DESTROYED: "The guest was destroyed by request.",
}


def _ended(now: Situation, end: End) -> Plan:
    return Plan(Status(State.ENDED, end.reason, end.message), RecordEnd(end))


def _not_started(now: Situation) -> Plan:
    if now.record.stop is not None or now.record.destroy is not None:
        return _ended(
            now,
            End(EndReason.NEVER_STARTED, "The pod was told to end before the guest was started."),
        )
    if not now.has_spec:
        return Plan(Status(State.NONE))
    if now.blocked is not None:
        waiting = Status(State.WAITING, now.blocked.reason, now.blocked.message)
        if now.now_ms < now.blocked.retry_ms:
            return Plan(waiting, wake_ms=now.blocked.retry_ms)
        return Plan(waiting, PrepareDisks())
    if not now.disks_ready:
        return Plan(Status(State.PREPARING), PrepareDisks())
    if now.start_failure is not None:
        return _after_failure(now, now.start_failure)
    return Plan(Status(State.PREPARING), StartGuest())


def _after_failure(now: Situation, failure: StartFailure) -> Plan:
    if failure.final:
        return _ended(now, End(EndReason.REJECTED, failure.message))
    if failure.attempts >= MAX_START_ATTEMPTS:
        return _ended(now, End(EndReason.START_FAILED, failure.message))
    waiting = Status(State.WAITING, failure.why, failure.message)
    if now.now_ms < failure.retry_ms:
        return Plan(waiting, wake_ms=failure.retry_ms)
    return Plan(waiting, StartGuest())
