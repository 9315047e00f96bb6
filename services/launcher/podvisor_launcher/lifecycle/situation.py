"""What the machine's next step depends on, and how its state is told. Times are CLOCK_BOOTTIME in milliseconds."""

from dataclasses import dataclass
from enum import StrEnum

from podvisor_launcher.lifecycle.device_changes import DeviceChange
from podvisor_launcher.lifecycle.record import EndReason, QemuEnd, Record
from podvisor_launcher.virt.guest import Active, Guest


class State(StrEnum):
    """What the machine is doing, as reports name it."""

    NONE = "none"
    PREPARING = "preparing"
    WAITING = "waiting"
    RUNNING = "running"
    PAUSED = "paused"
    ENDED = "ended"


class Why(StrEnum):
    """Reasons of states other than ENDED, which has EndReason."""

    NOTHING = "nothing"
    INVALID_DISK = "invalid-disk"
    MISSING_SECRET = "missing-secret"
    PAUSED_BY_USER = "paused-by-user"
    IO_ERROR = "io-error"
    LIBVIRT_UNREACHABLE = "libvirt-unreachable"
    START_FAILED = "start-failed"
    NO_SPACE = "no-space"


@dataclass(frozen=True, slots=True)
class Status:
    """The machine's state in a reader's terms."""

    state: State
    reason: Why | EndReason = Why.NOTHING
    message: str = ""


@dataclass(frozen=True, slots=True)
class Blocked:
    """Something the specification needs could not be made; worth another try at `retry_ms`."""

    reason: Why
    message: str
    retry_ms: int


@dataclass(frozen=True, slots=True)
class StartFailure:
    """libvirt did not start the domain. `final` when trying again cannot help."""

    message: str
    attempts: int
    retry_ms: int
    final: bool
    why: Why = Why.START_FAILED


@dataclass(frozen=True, slots=True)
class DiskTrouble:
    """What a disk's error that has stopped the guest is about."""

    volume: str  # name in the manifest; empty when nobody can tell
    no_space: bool
    has_room: bool  # there is space by now, or it was not about space


@dataclass(frozen=True, slots=True)
class PendingGrowth:
    """The volume behind a disk has grown; worth a try at `retry_ms`."""

    disk: str
    retry_ms: int


@dataclass(frozen=True, slots=True)
class Situation:
    """Everything a decision depends on."""

    now_ms: int
    record: Record
    guest: Guest | None  # None while libvirt does not answer
    has_spec: bool = False
    disks_ready: bool = False
    blocked: Blocked | None = None
    start_failure: StartFailure | None = None
    unreachable_since_ms: int | None = None
    button_pressed_ms: int | None = None
    last_active: Active | None = None  # what this launcher last heard of the guest from libvirt
    qemu_end: QemuEnd | None = (
        None  # the supervisor's note; read where the guest has ended and libvirt cannot say how
    )
    gone_since_ms: int | None = None  # since when libvirt says that there is no guest
    trouble: DiskTrouble | None = None  # asked where a disk's error keeps the guest from running
    resume_ms: int = 0  # when such a guest may be let go on again
    settled_ms: int = 0  # from when on it counts as running after that
    growth: PendingGrowth | None = None
    device_change: DeviceChange | None = None  # of disks and interfaces that come and go
