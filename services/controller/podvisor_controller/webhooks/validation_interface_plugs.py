"""What podvisor itself may change of the interfaces of an instance. Pure.

Invariant: an interface comes or leaves as a whole, and leaves the manifest when the guest has let go of it. Of one that stays, its state
alone is changed, and not once it is `absent`.
"""

from collections.abc import Iterator

from msgspec.structs import replace
from podvisor_common.api import v1
from podvisor_common.api.v1.names import InterfaceState

from podvisor_controller.webhooks.validation_fields import Cause, CauseReason, invalid, quoted

_INTERFACES = "spec.domain.devices.interfaces"

Device = tuple[v1.Interface, v1.Network | None]


def interface_plug_causes(
    new: v1.VirtualMachineInstance, was: v1.VirtualMachineInstance
) -> Iterator[Cause]:
    """Why a change of interfaces and networks is refused; nothing when it is not, or there is none."""
    had, has = _devices(was.spec), _devices(new.spec)
    places = {i.name: n for n, i in enumerate(new.spec.domain.devices.interfaces or ())}
    for name, (interface, network) in had.items():
        if name in has:
            continue
        if not _may_go((interface, network)):
            text = f"must have {quoted(name)}, which is a fixed part of the instance."
            yield invalid(_INTERFACES, text, CauseReason.NOT_SUPPORTED)
        elif interface.state != InterfaceState.ABSENT:
            text = f"must have {quoted(name)}: its state must be absent before it leaves."
            yield invalid(_INTERFACES, text)
        elif name in was.attached_interfaces:
            text = f"must have {quoted(name)}, which the guest has not let go of yet."
            yield invalid(_INTERFACES, text)
    for name, device in has.items():
        field = f"{_INTERFACES}[{places[name]}]"
        known = had.get(name)
        if known is None:
            if not _may_go(device):
                text = (
                    f"{quoted(name)} cannot come to a running guest: that takes binding bridge, and a network beside the"
                    " pod's own."
                )
                yield invalid(field, text, CauseReason.NOT_SUPPORTED)
        elif _without_state(known) != _without_state(device):
            text = f"{quoted(name)} must leave before another interface has its name."
            yield invalid(field, text)
        elif known[0].state == InterfaceState.ABSENT != device[0].state:
            text = f"is {quoted(device[0].state)}, and {quoted(name)} is leaving already."
            yield invalid(f"{field}.state", text)


def _devices(spec: v1.VirtualMachineInstanceSpec) -> dict[str, Device]:
    """The interfaces by their names, each with the network that it leads to."""
    networks = {network.name: network for network in spec.networks or ()}
    interfaces = spec.domain.devices.interfaces or ()
    return {interface.name: (interface, networks.get(interface.name)) for interface in interfaces}


def _may_go(device: Device) -> bool:
    interface, network = device
    return network is not None and v1.is_pluggable(interface, network)


def _without_state(device: Device) -> Device:
    interface, network = device
    return replace(interface, state=""), network
