"""What a pod's network namespace needs so that the guest behind it is reachable.

Invariant: plan() compares two values and returns the operations that lead from one to the other,
in order; equal values give no operation. netns.py observes and carries out.
"""

import hashlib
import ipaddress
from dataclasses import dataclass, field

BRIDGE = "k6t-eth0"
TAP = "tap0"
POD_INTERFACE = "eth0"
# The gateway's address never changes, so a guest that is moved keeps its neighbour entry.
BRIDGE_MAC = "02:00:00:00:00:00"
DEFAULT_GUEST_NETWORK = "10.0.2.0/24"
LAUNCHER_UID = 107

# The guest's packets are routed; its DHCP server answers on port 67 without any capability.
SYSCTLS = {
    "net/ipv4/ip_forward": "1",
    "net/ipv4/ip_unprivileged_port_start": "0",
}


@dataclass(frozen=True, slots=True, order=True)
class Port:
    """One port that reaches the guest."""

    protocol: str  # `tcp` or `udp`
    number: int


@dataclass(frozen=True, slots=True)
class Masquerade:
    """The guest has a private address behind the pod's; only `ports` reach it, all when empty."""

    guest_network: str = DEFAULT_GUEST_NETWORK
    ports: tuple[Port, ...] = ()

    @property
    def prefix_length(self) -> int:
        """Length of the guest network's prefix."""
        return self._network.prefixlen

    @property
    def gateway(self) -> str:
        """Address of the bridge: the first of the guest network."""
        return str(self._network.network_address + 1)

    @property
    def guest(self) -> str:
        """Address of the guest: the second of the guest network."""
        return str(self._network.network_address + 2)

    @property
    def digest(self) -> str:
        """Changes whenever the address translation does; the namespace remembers it."""
        text = f"3 {self.guest} {sorted(self.ports)}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def _network(self) -> ipaddress.IPv4Network:
        return ipaddress.IPv4Network(self.guest_network)


@dataclass(frozen=True, slots=True)
class Link:
    """A network device."""

    index: int
    mtu_bytes: int
    up: bool
    master: int  # index of the bridge it is a port of; 0 for none


@dataclass(frozen=True, slots=True)
class Observed:
    """A network namespace as it is."""

    links: dict[str, Link]
    # IPv4 addresses with prefix length, by device name.
    addresses: dict[str, frozenset[str]]
    sysctls: dict[str, str] = field(default_factory=dict)
    ruleset_digest: str | None = None


@dataclass(frozen=True, slots=True)
class WriteSysctl:
    """Write one value below /proc/sys."""

    path: str
    value: str


@dataclass(frozen=True, slots=True)
class CreateBridge:
    """Make the bridge, up."""

    name: str
    mac: str
    mtu_bytes: int


@dataclass(frozen=True, slots=True)
class CreateTap:
    """Make the tap device that QEMU opens as `owner_uid`."""

    name: str
    owner_uid: int


@dataclass(frozen=True, slots=True)
class ConfigureLink:
    """Set what a device has wrong: MTU, bridge, up."""

    name: str
    mtu_bytes: int
    master: str | None = None


@dataclass(frozen=True, slots=True)
class AddAddress:
    """Give a device an IPv4 address."""

    name: str
    address: str
    prefix_length: int


@dataclass(frozen=True, slots=True)
class ReplaceRuleset:
    """Replace the address translation in one transaction."""

    desired: Masquerade


Operation = WriteSysctl | CreateBridge | CreateTap | ConfigureLink | AddAddress | ReplaceRuleset


def plan(now: Observed, desired: Masquerade) -> list[Operation]:
    """The operations that make the namespace what it shall be, in order; empty when it is.

    KeyError when the pod has no `eth0`.
    """
    mtu_bytes = now.links[POD_INTERFACE].mtu_bytes
    operations: list[Operation] = [
        WriteSysctl(path, value)
        for path, value in SYSCTLS.items()
        if now.sysctls.get(path) != value
    ]
    # Translation comes before the tap: there is no moment in which the guest can send and is not
    # hidden behind the pod's address.
    if now.ruleset_digest != desired.digest:
        operations.append(ReplaceRuleset(desired))
    operations += _bridge(now, desired, mtu_bytes)
    operations += _tap(now, mtu_bytes)
    return operations


def _bridge(now: Observed, desired: Masquerade, mtu_bytes: int) -> list[Operation]:
    operations: list[Operation] = []
    bridge = now.links.get(BRIDGE)
    if bridge is None:
        operations.append(CreateBridge(BRIDGE, BRIDGE_MAC, mtu_bytes))
    elif bridge.mtu_bytes != mtu_bytes or not bridge.up:
        operations.append(ConfigureLink(BRIDGE, mtu_bytes))
    address = f"{desired.gateway}/{desired.prefix_length}"
    if address not in now.addresses.get(BRIDGE, frozenset()):
        operations.append(AddAddress(BRIDGE, desired.gateway, desired.prefix_length))
    return operations


def _tap(now: Observed, mtu_bytes: int) -> list[Operation]:
    operations: list[Operation] = []
    tap, bridge = now.links.get(TAP), now.links.get(BRIDGE)
    if tap is None:
        operations.append(CreateTap(TAP, LAUNCHER_UID))
    in_bridge = tap is not None and bridge is not None and tap.master == bridge.index
    if tap is None or not in_bridge or not tap.up or tap.mtu_bytes != mtu_bytes:
        operations.append(ConfigureLink(TAP, mtu_bytes, BRIDGE))
    return operations
