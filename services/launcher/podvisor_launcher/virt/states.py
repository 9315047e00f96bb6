"""libvirt's numbers for the state of a domain and of its disks, as values."""

from collections.abc import Mapping

import libvirt

from podvisor_launcher.virt.guest import Active, Crash, DiskError, Guest, Inactive, Off, Paused

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
    libvirt.VIR_DOMAIN_PAUSED_STARTING_UP: Paused.STARTING,
}


def guest_of(state: int, reason: int) -> Guest:
    """The value of libvirt's (state, reason) pair."""
    if state == libvirt.VIR_DOMAIN_SHUTOFF:
        return Inactive(_OFF.get(reason, Off.UNKNOWN))
    if state == libvirt.VIR_DOMAIN_CRASHED:
        return Inactive(Off.CRASHED)
    if state == libvirt.VIR_DOMAIN_PAUSED:
        return Active(_PAUSED.get(reason, Paused.OTHER))
    if state == libvirt.VIR_DOMAIN_SHUTDOWN:
        return Active(Paused.ENDING)
    if state == libvirt.VIR_DOMAIN_PMSUSPENDED:
        return Active(Paused.OTHER)
    return Active()


def crash_of(event: int, detail: int) -> Crash | None:
    """What an event of a domain's life tells of its end. A guest that keeps a kernel for its dump goes on after a panic."""
    is_panic = detail == libvirt.VIR_DOMAIN_EVENT_CRASHED_PANICKED
    return Crash.PANIC if event == libvirt.VIR_DOMAIN_EVENT_CRASHED and is_panic else None


def crash_by_watchdog(action: int) -> Crash | None:
    """What an event of a domain's watchdog tells of its end: of all actions, one alone ends the guest."""
    return Crash.WATCHDOG if action == libvirt.VIR_DOMAIN_EVENT_WATCHDOG_POWEROFF else None


def disk_error_of(number: int) -> DiskError:
    """The value of an error that libvirt tells of a disk."""
    is_full = number == libvirt.VIR_DOMAIN_DISK_ERROR_NO_SPACE
    return DiskError.NO_SPACE if is_full else DiskError.OTHER


def sizes_of(statistics: Mapping[str, object]) -> dict[str, int]:
    """Capacities in bytes by the name of the disk; of an empty drive there is none."""
    sizes = {}
    for key, name in statistics.items():
        prefix, _, field = key.rpartition(".")
        if prefix.startswith("block.") and field == "name":
            capacity = statistics.get(f"{prefix}.capacity", 0)
            sizes[str(name)] = capacity if isinstance(capacity, int) else 0
    return sizes
