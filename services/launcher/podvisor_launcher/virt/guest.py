"""What libvirt says of the one domain, as values without libvirt's numbers."""

from dataclasses import dataclass
from enum import Enum


class Off(Enum):
    """Why a domain does not run."""

    UNKNOWN = "unknown"  # never started, or ended while libvirt was not looking
    SHUTDOWN = "shutdown"
    DESTROYED = "destroyed"
    CRASHED = "crashed"
    FAILED = "failed"  # the start did not succeed


class Paused(Enum):
    """Why a domain exists and does not run."""

    BY_USER = "by user"
    IO_ERROR = "io error"
    STARTING = "starting"  # libvirt has not let it run yet
    ENDING = "ending"  # the guest has shut down, or libvirt is ending it; QEMU goes in a moment
    OTHER = "other"


class Crash(Enum):
    """What ended a guest that did not end by itself, as libvirt tells it while it happens."""

    PANIC = "panic"  # the guest said so by one of its panic devices
    WATCHDOG = "watchdog"  # the guest did not reset its watchdog, whose action is to power off


class DiskError(Enum):
    """Why a disk does not do what the guest asks of it."""

    NO_SPACE = "no space"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Absent:
    """libvirt knows no such domain."""


@dataclass(frozen=True, slots=True)
class Inactive:
    """The domain is defined and has no QEMU."""

    why: Off


@dataclass(frozen=True, slots=True)
class Active:
    """The domain has a QEMU; `paused` says why its processors stand still, if they do."""

    paused: Paused | None = None


Guest = Absent | Inactive | Active
