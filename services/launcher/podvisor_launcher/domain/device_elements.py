"""Devices that are neither disks nor interfaces: https://libvirt.org/formatdomain.html#devices.

Pure form, as elements.py. peripherals.py decides.
"""

from podvisor_launcher.domain.place_elements import Address, Alias
from podvisor_launcher.domain.xml import attribute, child, element, text


@element("backend")
class RngBackend:
    """Where random numbers come from."""

    model: str = attribute()
    path: str = text()


@element("rng")
class Rng:
    """A source of random numbers."""

    model: str = attribute()
    backend: RngBackend = child()
    address: Address | None = child(default=None)


@element("watchdog")
class Watchdog:
    """A timer that the guest has to reset."""

    model: str = attribute()
    action: str | None = attribute(default=None)
    alias: Alias | None = child(default=None)
    address: Address | None = child(default=None)


@element("sound")
class Sound:
    """A sound card."""

    model: str = attribute()
    alias: Alias | None = child(default=None)
    address: Address | None = child(default=None)


@element("input")
class Input:
    """A pointing device or a keyboard."""

    type: str = attribute()
    bus: str | None = attribute(default=None)
    model: str | None = attribute(default=None)
    alias: Alias | None = child(default=None)
    address: Address | None = child(default=None)


@element("stats")
class BalloonStats:
    """How often the guest is asked about its memory, in seconds."""

    period: int = attribute()


@element("memballoon")
class MemoryBalloon:
    """The memory balloon; libvirt adds one unless told not to."""

    model: str = attribute()
    stats: BalloonStats | None = child(default=None)
    address: Address | None = child(default=None)


@element("panic")
class Panic:
    """A device by which the guest tells of its panic."""

    model: str | None = attribute(default=None)
    address: Address | None = child(default=None)


@element("backend")
class TpmBackend:
    """What a TPM is made of."""

    type: str = attribute()
    version: str | None = attribute(default=None)


@element("tpm")
class Tpm:
    """A trusted platform module."""

    model: str | None = attribute(default=None)
    backend: TpmBackend = child()
