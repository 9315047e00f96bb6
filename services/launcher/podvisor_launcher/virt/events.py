"""libvirt's event loop, in the one daemon thread that a process needs for it.

Rule for every callback in this package: it runs in that thread and may only hand over to the asyncio loop by
call_soon_threadsafe. libvirt has one loop per process and no way to take it down, so it is started once and for good.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress

import libvirt

from podvisor_launcher.virt.guest import Crash

_started = threading.Lock()


def ensure_event_loop() -> None:
    """Start libvirt's event loop unless it runs. Must be called before the first connection is opened."""
    if not _started.acquire(blocking=False):
        return
    libvirt.virEventRegisterDefaultImpl()
    # Expected errors are raised as exceptions; without this each is also printed on standard error.
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    threading.Thread(target=_run, name="libvirt-events", daemon=True).start()


def told(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> Callable[..., None]:
    """What to register with libvirt to have `callback` called in `loop`, whatever libvirt says."""

    def hand_over(*_event: object) -> None:
        with suppress(RuntimeError):  # the loop is closed: this process is about to end
            loop.call_soon_threadsafe(callback)

    return hand_over


def told_of_crashes(
    loop: asyncio.AbstractEventLoop,
    crash_in: Callable[..., Crash | None],
    on_crash: Callable[[Crash], None],
    on_change: Callable[[], None],
) -> Callable[..., None]:
    """What to register to have `on_crash` called where libvirt's words are of one, and `on_change` in any case, after it."""

    def hand_over(_connection: object, _domain: object, *event: object) -> None:
        crash = crash_in(*event[:-1])  # the last is what was registered with it
        with suppress(RuntimeError):
            if crash is not None:
                loop.call_soon_threadsafe(on_crash, crash)
            loop.call_soon_threadsafe(on_change)

    return hand_over


def _run() -> None:
    while True:
        libvirt.virEventRunDefaultImpl()
