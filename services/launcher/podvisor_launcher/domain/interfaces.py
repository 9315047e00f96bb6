"""Network devices: how each is attached to the pod, and what of one may change while the machine runs. Pure."""

from podvisor.domain.v1 import domain_pb2 as pb

from podvisor_launcher.domain import interface_elements as xml
from podvisor_launcher.domain.disks import ALIAS_PREFIX
from podvisor_launcher.domain.elements import Domain
from podvisor_launcher.domain.errors import UnbuildableSpec
from podvisor_launcher.domain.pci import PciBus, bus_of, device_address
from podvisor_launcher.domain.place_elements import Address, Alias, Boot
from podvisor_launcher.domain.virtio import TRANSITIONAL

_VIRTIO = "virtio"
_MODELS = (_VIRTIO, "e1000", "e1000e", "igb", "ne2k_pci", "pcnet", "rtl8139")
_PROTOCOLS = ("tcp", "udp")


def check_interface(interface: pb.InterfaceSpec) -> None:
    """Raise UnbuildableSpec when no machine can ever have `interface`."""
    is_passt = interface.HasField("passt")
    protocols = {each.protocol for each in interface.passt.ports}
    model = interface.model
    for is_wrong, words in (
        (model not in ("", *_MODELS), f'model "{model}" is none of {", ".join(_MODELS)}'),
        (is_passt == bool(interface.tap), "it needs either a tap device or passt"),
        (not protocols <= set(_PROTOCOLS), "ports are of tcp or udp"),
        (
            interface.queues > 1 and (is_passt or not _is_virtio(interface)),
            "only model virtio on a tap device has several queues",
        ),
    ):
        if is_wrong:
            raise UnbuildableSpec(f'interface "{interface.name}": {words}')


def build_interfaces(spec: pb.DomainSpec, bus: PciBus) -> tuple[xml.Interface, ...]:
    """The fixed interfaces of the machine. Raises UnbuildableSpec and TooManyDevices."""
    return tuple(
        build_interface(each, _address(each, bus), transitional=spec.virtio_transitional)
        for each in spec.interfaces
        if not each.is_pluggable
    )


def build_pluggable(spec: pb.DomainSpec, bus: PciBus) -> tuple[xml.Interface, ...]:
    """The interfaces that are there at the start and may go. They come behind every other device but inputs, which so
    stays where the guest knows it. Raises UnbuildableSpec and TooManyDevices."""
    return tuple(
        build_interface(each, _address(each, bus), transitional=spec.virtio_transitional)
        for each in spec.interfaces
        if each.is_pluggable
    )


def build_plugged(interface: pb.InterfaceSpec, *, transitional: bool = False) -> xml.Interface:
    """`interface` for a machine that runs; behind which root port, libvirt says, unless the specification does. Raises
    UnbuildableSpec."""
    chosen = interface.pci_address
    address = device_address(bus_of(chosen)) if chosen else None
    return build_interface(interface, address, transitional=transitional)


def build_interface(
    interface: pb.InterfaceSpec, address: Address | None, *, transitional: bool
) -> xml.Interface:
    """One interface at its place."""
    is_passt = interface.HasField("passt")
    model = TRANSITIONAL if transitional and _is_virtio(interface) else interface.model or _VIRTIO
    return xml.Interface(
        type="user" if is_passt else "ethernet",
        mac=xml.Mac(address=interface.mac),
        source=xml.HostInterface(dev=interface.passt.pod_interface) if is_passt else None,
        target=None if is_passt else xml.TapTarget(dev=interface.tap, managed=False),
        model=xml.Model(type=model),
        driver=xml.InterfaceDriver(queues=interface.queues) if interface.queues > 1 else None,
        backend=xml.Backend(type="passt") if is_passt else None,
        port_forwards=_port_forwards(interface.passt) if is_passt else (),
        # passt tells the guest by itself.
        mtu=xml.Mtu(size=interface.mtu_bytes) if interface.mtu_bytes and not is_passt else None,
        # The ROM only serves network boot and costs a second of every start under TCG.
        rom=None if interface.boot_order else xml.Rom(enabled=False),
        link=xml.Link(state="down") if interface.link_down else None,
        acpi=xml.Acpi(index=interface.acpi_index) if interface.acpi_index else None,
        boot=Boot(order=interface.boot_order) if interface.boot_order else None,
        alias=Alias(name=ALIAS_PREFIX + interface.name),
        address=address,
    )


def with_link(device: xml.Interface, *, is_up: bool) -> xml.Interface:
    """The device with or without a carrier, and as it is in all else."""
    values = vars(device) | {"link": xml.Link(state="up" if is_up else "down")}
    return xml.Interface(**values)


def has_link(device: xml.Interface) -> bool:
    """Whether the guest sees a carrier."""
    return device.link is None or device.link.state != "down"


def interface_named(live: Domain, name: str) -> xml.Interface | None:
    """The interface of that name in the manifest."""
    alias = ALIAS_PREFIX + name
    return next(
        (each for each in live.devices.interfaces if each.alias and each.alias.name == alias), None
    )


def _address(interface: pb.InterfaceSpec, bus: PciBus) -> Address:
    if interface.pci_address:
        return device_address(bus_of(interface.pci_address))
    return bus.next_address()


def _port_forwards(passt: pb.PasstBackend) -> tuple[xml.PortForward, ...]:
    ports = {protocol: _numbers(passt, protocol) for protocol in _PROTOCOLS}
    return tuple(
        xml.PortForward(proto=protocol, ranges=tuple(xml.PortRange(start=n) for n in numbers))
        for protocol, numbers in ports.items()
        if numbers or not passt.ports
    )


def _numbers(passt: pb.PasstBackend, protocol: str) -> list[int]:
    return sorted({each.number for each in passt.ports if each.protocol == protocol})


def _is_virtio(interface: pb.InterfaceSpec) -> bool:
    return interface.model in ("", _VIRTIO)
