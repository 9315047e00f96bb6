"""Hyper-V's interfaces in <features>: https://libvirt.org/formatdomain.html#hypervisor-features.

Pure form, as elements.py. The states are `on` and `off`.
"""

from podvisor_launcher.domain.xml import attribute, child, element


@element("direct")
class Direct:
    """Whether a timer's expiry comes as an interrupt."""

    state: str = attribute()


@element("relaxed")
class Relaxed:
    """No watchdog on ticks."""

    state: str = attribute()


@element("vapic")
class Vapic:
    """Interrupts by way of memory."""

    state: str = attribute()


@element("spinlocks")
class Spinlocks:
    """Locks that tell when they have waited for so many tries."""

    state: str = attribute()
    retries: int | None = attribute(default=None)


@element("vpindex")
class Vpindex:
    """Numbers of processors."""

    state: str = attribute()


@element("runtime")
class Runtime:
    """For how long a processor ran."""

    state: str = attribute()


@element("synic")
class Synic:
    """Interrupts by messages."""

    state: str = attribute()


@element("stimer")
class Stimer:
    """Timers; with `direct` their expiry comes as an interrupt."""

    state: str = attribute()
    direct: Direct | None = child(default=None)


@element("reset")
class Reset:
    """The guest resets itself by it."""

    state: str = attribute()


@element("vendor_id")
class VendorId:
    """The name that the hypervisor shows."""

    state: str = attribute()
    value: str | None = attribute(default=None)


@element("frequencies")
class Frequencies:
    """Frequencies of clocks."""

    state: str = attribute()


@element("reenlightenment")
class Reenlightenment:
    """News of changed frequencies."""

    state: str = attribute()


@element("tlbflush")
class TlbFlush:
    """Flushing of other processors' translation buffers."""

    state: str = attribute()


@element("ipi")
class Ipi:
    """Interrupts between processors."""

    state: str = attribute()


@element("evmcs")
class Evmcs:
    """Control structures of nested guests."""

    state: str = attribute()


@element("hyperv")
class Hyperv:
    """The interfaces that the guest finds: by `mode` `passthrough` all that the node has, else those named."""

    mode: str | None = attribute(default=None)
    relaxed: Relaxed | None = child(default=None)
    vapic: Vapic | None = child(default=None)
    spinlocks: Spinlocks | None = child(default=None)
    vpindex: Vpindex | None = child(default=None)
    runtime: Runtime | None = child(default=None)
    synic: Synic | None = child(default=None)
    stimer: Stimer | None = child(default=None)
    reset: Reset | None = child(default=None)
    vendor_id: VendorId | None = child(default=None)
    frequencies: Frequencies | None = child(default=None)
    reenlightenment: Reenlightenment | None = child(default=None)
    tlbflush: TlbFlush | None = child(default=None)
    ipi: Ipi | None = child(default=None)
    evmcs: Evmcs | None = child(default=None)
