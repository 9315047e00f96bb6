"""The PCI addresses of a q35 machine: those that a user chose, and the others in order of demand.

Invariant: the n-th device sits behind the n-th root port that nobody chose, so an address depends on nothing but the order of
devices. A root port per device is what makes virtio devices modern-only and every device removable.
"""

from collections.abc import Collection
from typing import ClassVar

from podvisor.domain.v1 import domain_pb2 as pb
from podvisor_common import pci_addresses
from podvisor_common.errors import Terminal

from podvisor_launcher.domain.elements import Controller, PortTarget
from podvisor_launcher.domain.errors import UnbuildableSpec
from podvisor_launcher.domain.place_elements import Address

_FUNCTIONS = 8
_FIRST_SLOT = 2  # slot 0 is the host bridge, slot 1 the video card
# Slots 2 to 29 of them: slot 30 is what nobody takes out of a running machine, slot 31 the chip set.
_PORTS = pci_addresses.BUSES
_FIRST_PORT = _FIRST_SLOT * _FUNCTIONS


class TooManyDevices(Terminal):
    """The machine has no slot left."""

    reason = "InvalidSpec"


def bus_of(address: str) -> int:
    """The bus of a PCI address that a user chose. Raises UnbuildableSpec where no device can be."""
    bus = pci_addresses.bus_of(address)
    if bus is None:
        raise UnbuildableSpec(
            f'PCI address "{address}" cannot be had: it must be {pci_addresses.RANGE}'
        )
    return bus


def chosen_buses(spec: pb.DomainSpec) -> set[int]:
    """The PCI buses that the specification has chosen for devices. Raises UnbuildableSpec for one that is chosen twice."""
    chosen: set[int] = set()
    devices: tuple[tuple[str, pb.DiskSpec | pb.InterfaceSpec], ...] = (
        *(("disk", each) for each in spec.disks),
        *(("interface", each) for each in spec.interfaces),
    )
    for kind, device in devices:
        if not device.pci_address:
            continue
        bus = bus_of(device.pci_address)
        if bus in chosen:
            raise UnbuildableSpec(
                f'{kind} "{device.name}": PCI address "{device.pci_address}" is taken by another device'
            )
        chosen.add(bus)
    return chosen


def device_address(bus: int) -> Address:
    """The one place behind the root port of `bus`."""
    return _address(bus, 0)


def _address(bus: int, slot: int, function: int = 0, *, multifunction: bool = False) -> Address:
    return Address(
        type="pci",
        domain="0x0000",
        bus=f"{bus:#04x}",
        slot=f"{slot:#04x}",
        function=f"{function:#x}",
        multifunction="on" if multifunction else None,
    )


class PciBus:
    """Root ports and the addresses behind them; the buses in `chosen` are given to nobody, and `spare` ports stay empty."""

    VIDEO_ADDRESS: ClassVar[Address] = _address(0, 1)
    CHANNELS_ADDRESS: ClassVar[Address] = _address(0, 30)
    # Where something is on the slot beside the channels.
    SHARED_CHANNELS_ADDRESS: ClassVar[Address] = _address(0, 30, multifunction=True)
    RNG_ADDRESS: ClassVar[Address] = _address(0, 30, 1)
    WATCHDOG_ADDRESS: ClassVar[Address] = _address(0, 30, 2)
    SOUND_ADDRESS: ClassVar[Address] = _address(0, 30, 3)
    BALLOON_ADDRESS: ClassVar[Address] = _address(0, 30, 4)
    PANIC_ADDRESS: ClassVar[Address] = _address(0, 30, 5)
    # Of a controller for inputs alone: one that disks are on has a port.
    USB_ADDRESS: ClassVar[Address] = _address(0, 30, 6)

    def __init__(self, chosen: Collection[int] = (), spare: int = 0) -> None:
        self._chosen = frozenset(chosen)
        self._spare = spare
        self._last = 0  # bus that was given out last

    def next_address(self) -> Address:
        """A slot of its own behind a root port of its own. Raises TooManyDevices."""
        self._last = self._after(self._last)
        if self._last > _PORTS:
            raise TooManyDevices(f"a machine has room for {_PORTS} devices")
        return device_address(self._last)

    @property
    def root_ports(self) -> list[Controller]:
        """A root port for every address given out or chosen, those between, and the spare ones; eight to a slot."""
        last = self._last
        for _ in range(self._spare):
            last = self._after(last)
        # libvirt has no bus without those of lower number.
        count = min(max(last, *self._chosen, 0), _PORTS)
        return [_root_port(number, count) for number in range(count)]

    def _after(self, bus: int) -> int:
        bus += 1
        while bus in self._chosen:
            bus += 1
        return bus


def _root_port(number: int, count: int) -> Controller:
    slot, function = divmod(number, _FUNCTIONS)
    return Controller(
        type="pci",
        index=number + 1,
        model="pcie-root-port",
        target=PortTarget(chassis=number + 1, port=f"{_FIRST_PORT + number:#x}"),
        address=_address(
            0,
            _FIRST_SLOT + slot,
            function,
            multifunction=function == 0 and number + 1 < count,
        ),
    )
