"""Situations of a machine, in short: the guest, its record, and what else was observed."""

from dataclasses import replace

from podvisor_launcher.lifecycle.hotplug_plan import Change, DiskChange
from podvisor_launcher.lifecycle.plan import (
    QEMU_END_WITHIN_MS,
    Plan,
)
from podvisor_launcher.lifecycle.record import QemuEnd, Record, Start, Stop
from podvisor_launcher.lifecycle.situation import (
    Blocked,
    DiskTrouble,
    Situation,
    StartFailure,
    Status,
    Why,
)
from podvisor_launcher.virt.guest import Absent, Active, Guest, Paused

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


def told(step: Plan) -> Status:
    assert step.status is not None
    return step.status
