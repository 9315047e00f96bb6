"""What of a machine's template reaches the interfaces of its running guest. Pure.

Those that lead to networks beside the pod's own by a bridge come, and go once their state is `absent`; the carrier of every one
comes and goes with its state. All else waits for the next start.

Invariant: an interface comes or goes as a whole, and a name is given to another one only when nobody has the one before.
"""

from dataclasses import dataclass

from msgspec.structs import replace
from podvisor_common.api import v1
from podvisor_common.api.v1.names import InterfaceState

Device = tuple[v1.Interface, v1.Network]


@dataclass(frozen=True, slots=True)
class Wired:
    """The networks and interfaces that an instance is to have now. `is_whole`: they are all that the template asks for;
    `needs_restart`: with the next start only, they will be."""

    networks: list[v1.Network]
    interfaces: list[v1.Interface]
    is_whole: bool
    needs_restart: bool


def fixed_part(spec: v1.VirtualMachineInstanceSpec) -> v1.VirtualMachineInstanceSpec:
    """A specification without what of its interfaces reaches a running guest. What becomes of those that may come and go, wired()
    tells."""
    devices = spec.domain.devices
    may_go = {name for name, device in _devices(spec).items() if v1.is_pluggable(*device)}
    interfaces = [replace(i, state="") for i in devices.interfaces or () if i.name not in may_go]
    networks = [network for network in spec.networks or () if network.name not in may_go]
    domain = replace(spec.domain, devices=replace(devices, interfaces=interfaces or None))
    return replace(spec, networks=networks or None, domain=domain)


def has(vmi: v1.VirtualMachineInstance, wired: Wired) -> bool:
    """The instance has those networks and interfaces."""
    interfaces = vmi.spec.domain.devices.interfaces or []
    return (vmi.spec.networks or []) == wired.networks and interfaces == wired.interfaces


def wired(vm: v1.VirtualMachine, vmi: v1.VirtualMachineInstance) -> Wired:
    """What the instance of a machine is to have next: less than the template asks for while an interface has to leave first."""
    had, wanted = _devices(vmi.spec), _devices(vm.spec.template.spec)
    attached = vmi.attached_interfaces
    kept = [
        (replace(interface, state=_state_of((interface, network), wanted)), network)
        for interface, network in had.values()
        if not _is_absent(interface) or interface.name in attached
    ]
    added = [
        device
        for name, device in wanted.items()
        if name not in had and v1.is_pluggable(*device) and not _is_absent(device[0])
    ]
    needs_restart = any(_needs_restart(device, wanted) for device in kept)
    here = {interface.name for interface, _ in kept}
    # What is absent has to leave, and its name is free with the pass after.
    leaves = any(_is_absent(interface) for interface, _ in kept)
    waits = any(
        name in had and name not in here and not _is_absent(interface)
        for name, (interface, _) in wanted.items()
    )
    return Wired(
        networks=[n for n in vmi.spec.networks or () if n.name in here] + [n for _, n in added],
        interfaces=[interface for interface, _ in (*kept, *added)],
        is_whole=not (needs_restart or leaves or waits),
        needs_restart=needs_restart,
    )


def _devices(spec: v1.VirtualMachineInstanceSpec) -> dict[str, Device]:
    """The interfaces by their names, each with the network that it leads to."""
    networks = {network.name: network for network in spec.networks or ()}
    interfaces = spec.domain.devices.interfaces or ()
    return {i.name: (i, networks[i.name]) for i in interfaces if i.name in networks}


def _is_absent(interface: v1.Interface) -> bool:
    return interface.state == InterfaceState.ABSENT


def _state_of(device: Device, wanted: dict[str, Device]) -> str:
    """The state that an interface of the instance is to have. What has begun to leave, leaves."""
    interface, asked = device[0], wanted.get(device[0].name)
    if asked is None or _is_absent(interface):
        return interface.state
    state = asked[0].state
    if state == InterfaceState.ABSENT:
        return state if v1.is_pluggable(*device) else interface.state
    is_same = (state or InterfaceState.UP) == (interface.state or InterfaceState.UP)
    return interface.state if is_same else state


def _needs_restart(device: Device, wanted: dict[str, Device]) -> bool:
    """The template has it no more, or has another one by its name: a running guest keeps the one that it has.

    A template without any interface has the one that admission gave the instance.
    """
    interface, network = device
    if _is_absent(interface):
        return False
    asked = wanted.get(interface.name)
    if asked is None:
        return bool(wanted) or v1.is_pluggable(*device)
    return (replace(asked[0], state=""), asked[1]) != (replace(interface, state=""), network)
