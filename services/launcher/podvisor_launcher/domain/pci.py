"""The PCI addresses of a q35 machine, given out in order of demand.

Invariant: the n-th device sits behind the n-th root port, so an address depends on nothing but the order of devices.
A root port per device is what makes virtio devices modern-only and every device removable.
"""

from typing import ClassVar

from podvisor_common.errors import Terminal

from podvisor_launcher.domain.elements import Controller, PortTarget
from podvisor_launcher.domain.place_elements import Address

_FUNCTIONS = 8
_FIRST_SLOT = 2  # slot 0 is the host bridge, slot 1 the video card
_SLOTS = 14
_FIRST_PORT = _FIRST_SLOT * _FUNCTIONS


class TooManyDevices(Terminal):
    """The machine has no slot left."""

    reason = "InvalidSpec"


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
    """Root ports and the addresses behind them."""

    VIDEO_ADDRESS: ClassVar[Address] = _address(0, 1)

    def __init__(self) -> None:
        self._used = 0

    def next_address(self) -> Address:
        """A slot of its own behind a root port of its own. Raises TooManyDevices."""
        if self._used == _SLOTS * _FUNCTIONS:
            raise TooManyDevices(f"a machine has room for {self._used} devices")
        self._used += 1
        return _address(self._used, 0)

    @property
    def root_ports(self) -> list[Controller]:
        """A root port for every address given out, eight to a slot."""
        return [self._root_port(number) for number in range(self._used)]

    def _root_port(self, number: int) -> Controller:
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
                multifunction=function == 0 and number + 1 < self._used,
            ),
        )
