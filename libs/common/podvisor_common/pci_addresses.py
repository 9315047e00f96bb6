"""The PCI addresses that a user may choose for a device.

Invariant: pure. Each device sits behind a root port of its own, and a root port has one slot, so an address says no more than which
port. Another kind of bridge could hold more, and would make virtio devices legacy ones that cannot be detached.
"""

import re

# 28 slots of the root bus with 8 root ports each.
BUSES = 224
RANGE = f"from 0000:01:00.0 to 0000:{BUSES:02x}:00.0, with slot 00 and function 0"

_BEHIND_A_ROOT_PORT = re.compile(r"0000:([0-9a-fA-F]{2}):00\.0")


def bus_of(address: str) -> int | None:
    """The bus of an address that a device can have; None for any other text."""
    found = _BEHIND_A_ROOT_PORT.fullmatch(address)
    bus = int(found[1], 16) if found else 0
    return bus if 1 <= bus <= BUSES else None
