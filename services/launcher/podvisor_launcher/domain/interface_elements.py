"""`<interface>` and what it holds: https://libvirt.org/formatdomain.html#network-interfaces. Form only, as in elements.py."""

from podvisor_launcher.domain.place_elements import Address, Alias, Boot
from podvisor_launcher.domain.xml import attribute, child, children, element


@element("mac")
class Mac:
    """A hardware address."""

    address: str = attribute()


@element("target")
class TapTarget:
    """The tap device behind an interface."""

    dev: str | None = attribute(default=None)
    managed: bool | None = attribute(default=None)


@element("model")
class Model:
    """The model of a device."""

    type: str = attribute()


@element("driver")
class InterfaceDriver:
    """How packets pass between the guest and the node."""

    queues: int | None = attribute(default=None)


@element("mtu")
class Mtu:
    """Largest packet of an interface, in bytes."""

    size: int = attribute()


@element("rom")
class Rom:
    """The option ROM of a device."""

    enabled: bool = attribute()


@element("link")
class Link:
    """Whether the guest sees a carrier: `up` or `down`."""

    state: str = attribute()


@element("acpi")
class Acpi:
    """The number by which firmware tells the guest of a device."""

    index: int | None = attribute(default=None)


@element("backend")
class Backend:
    """The process that carries the guest's connections."""

    type: str | None = attribute(default=None)
    log_file: str | None = attribute("logFile", default=None)


@element("source")
class HostInterface:
    """The interface whose addresses the guest takes."""

    dev: str | None = attribute(default=None)


@element("range")
class PortRange:
    """Ports, the last one included; `end` is None for a single one."""

    start: int = attribute()
    end: int | None = attribute(default=None)


@element("portForward")
class PortForward:
    """Ports of one protocol that reach the guest; all of them without ranges."""

    proto: str = attribute()
    ranges: tuple[PortRange, ...] = children()


@element("interface")
class Interface:
    """A network device."""

    type: str = attribute()
    mac: Mac | None = child(default=None)
    source: HostInterface | None = child(default=None)
    target: TapTarget | None = child(default=None)
    model: Model | None = child(default=None)
    driver: InterfaceDriver | None = child(default=None)
    backend: Backend | None = child(default=None)
    port_forwards: tuple[PortForward, ...] = children()
    mtu: Mtu | None = child(default=None)
    rom: Rom | None = child(default=None)
    link: Link | None = child(default=None)
    acpi: Acpi | None = child(default=None)
    boot: Boot | None = child(default=None)
    alias: Alias | None = child(default=None)
    address: Address | None = child(default=None)
