"""What libvirt's devices have in common: where they sit, what they are called, when the firmware tries them."""

from podvisor_launcher.domain.xml import attribute, element


@element("address")
class Address:
    """Where a device sits: a PCI slot, or a drive on a controller."""

    type: str = attribute()
    domain: str | None = attribute(default=None)
    bus: str | None = attribute(default=None)
    slot: str | None = attribute(default=None)
    function: str | None = attribute(default=None)
    multifunction: str | None = attribute(default=None)
    controller: str | None = attribute(default=None)
    target: str | None = attribute(default=None)
    unit: str | None = attribute(default=None)


@element("alias")
class Alias:
    """A device's name; those that users choose begin with `ua-`."""

    name: str = attribute()


@element("boot")
class Boot:
    """A device's place in the firmware's boot order."""

    order: int = attribute()
