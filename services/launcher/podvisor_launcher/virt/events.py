"""libvirt's event loop, in the one daemon thread that a process needs for it.

Rule for every callback in this package: it runs in that thread and may only hand over to the asyncio loop by
call_soon_threadsafe. libvirt has one loop per process and no way to take it down, so it is started once and for good.
"""

import threading

import libvirt

_started = threading.Lock()


def ensure_event_loop() -> None:
    """Start libvirt's event loop unless it runs. Must be called before the first connection is opened."""
    if not _started.acquire(blocking=False):
        return
    libvirt.virEventRegisterDefaultImpl()
    # Expected errors are raised as exceptions; without this each is also printed on standard error.
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    threading.Thread(target=_run, name="libvirt-events", daemon=True).start()


def _run() -> None:
    while True:
        libvirt.virEventRunDefaultImpl()
