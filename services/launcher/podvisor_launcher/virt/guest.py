"""What libvirt says of the one domain, as values without libvirt's numbers."""

from dataclasses import dataclass
from enum import Enum

import libvirt


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

_OFF = {
    libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN: Off.SHUTDOWN,
    libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED: Off.DESTROYED,
    libvirt.VIR_DOMAIN_SHUTOFF_CRASHED: Off.CRASHED,
    libvirt.VIR_DOMAIN_SHUTOFF_DAEMON: Off.CRASHED,  # libvirt came back and found no QEMU
    libvirt.VIR_DOMAIN_SHUTOFF_FAILED: Off.FAILED,
}
_PAUSED = {
    libvirt.VIR_DOMAIN_PAUSED_USER: Paused.BY_USER,
    libvirt.VIR_DOMAIN_PAUSED_IOERROR: Paused.IO_ERROR,
}


def guest_of(state: int, reason: int) -> Guest:
    """The value of libvirt's (state, reason) pair."""
    if state == libvirt.VIR_DOMAIN_SHUTOFF:
        return Inactive(_OFF.get(reason, Off.UNKNOWN))
    if state == libvirt.VIR_DOMAIN_CRASHED:
        return Inactive(Off.CRASHED)
    if state == libvirt.VIR_DOMAIN_PAUSED:
        return Active(_PAUSED.get(reason, Paused.OTHER))
    if state == libvirt.VIR_DOMAIN_PMSUSPENDED:
        return Active(Paused.OTHER)
    return Active()
