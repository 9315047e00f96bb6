"""A pod's network namespace as it is, and the operations that change it. Values only."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from podvisor_handler.linux.nftables import Family, Table

LAUNCHER_UID = 107


@dataclass(frozen=True, slots=True)
class Link:
    """A network device."""

    index: int
    mtu_bytes: int
    up: bool
    master: int = 0  # index of the bridge it is a port of; 0 for none
    mac: str = ""
    learns: bool = True  # as the port of a bridge


@dataclass(frozen=True, slots=True)
class Route:
    """A route of a device; without a gateway its destination is on the link."""

    device: str
    destination: str  # with prefix length
    gateway: str = ""
    metric: int = 0


@dataclass(frozen=True, slots=True)
class Observed:
    """A network namespace."""

    links: Mapping[str, Link]
    # With prefix length, by device, in the kernel's order. Of a placeholder: those that it keeps.
    addresses: Mapping[str, tuple[str, ...]]
    # Those of IPv4 that route, without what the kernel makes of addresses by itself.
    routes: tuple[Route, ...] = ()
    # All that route, of both families, the kernel's own too. Not known from outside.
    every_route: tuple[Route, ...] = ()
    # Those that placeholders keep, which route nothing.
    kept_routes: tuple[Route, ...] = ()
    # Devices by which an answer to the loopback of IPv6 is taken.
    loopbacks: frozenset[str] = frozenset()
    # Contents of files below /proc/sys; one that does not exist is not there.
    sysctls: Mapping[str, str] = field(default_factory=dict)
    # What our tables say of themselves, by family.
    rulesets: Mapping[Family, str] = field(default_factory=dict)

    @property
    def has_ipv6(self) -> bool:
        """The kernel speaks IPv6."""
        return "net/ipv6/conf/all/forwarding" in self.sysctls

    def is_port(self, device: str, bridge: str) -> bool:
        """Whether a device is a port of a bridge; of what does not exist, no."""
        port, master = self.links.get(device), self.links.get(bridge)
        return port is not None and master is not None and port.master == master.index


@dataclass(frozen=True, slots=True)
class WriteSysctl:
    """Write one value below /proc/sys."""

    path: str
    value: str


@dataclass(frozen=True, slots=True)
class ReplaceRuleset:
    """Put tables into effect, and remove those of the families `stale`, in one transaction."""

    tables: tuple[Table, ...]
    stale: tuple[Family, ...] = ()


@dataclass(frozen=True, slots=True)
class CreateBridge:
    """Make a bridge, up."""

    name: str
    mac: str
    mtu_bytes: int


@dataclass(frozen=True, slots=True)
class CreateTap:
    """Make a tap device that QEMU opens as the launcher's user, `is_multiqueue` for one with several queues."""

    name: str
    is_multiqueue: bool = False


@dataclass(frozen=True, slots=True)
class ConfigureLink:
    """Set what a device has wrong: MTU, bridge, up."""

    name: str
    mtu_bytes: int
    master: str | None = None


@dataclass(frozen=True, slots=True)
class StopLearning:
    """Have a bridge not conclude from what comes in by a port who is behind it."""

    name: str


@dataclass(frozen=True, slots=True)
class TakeDown:
    """Take a device down."""

    name: str


@dataclass(frozen=True, slots=True)
class SetMac:
    """Give a device that is down another hardware address."""

    name: str
    mac: str


@dataclass(frozen=True, slots=True)
class RemoveLink:
    """Remove a device."""

    name: str


@dataclass(frozen=True, slots=True)
class AddAddress:
    """Give a device an address, with prefix length."""

    name: str
    address: str


@dataclass(frozen=True, slots=True)
class KeepAddress:
    """Have a placeholder keep an address, with prefix length. `number` tells those of one placeholder apart."""

    name: str
    address: str
    number: int


@dataclass(frozen=True, slots=True)
class DeleteAddress:
    """Take an IPv4 address, with prefix length, from a device."""

    name: str
    address: str


@dataclass(frozen=True, slots=True)
class AddRoute:
    """Add an IPv4 route."""

    route: Route


@dataclass(frozen=True, slots=True)
class TakeLoopback:
    """Have a device take what address translation makes an answer to the loopback of IPv6."""

    name: str


@dataclass(frozen=True, slots=True)
class KeepRoute:
    """Have a placeholder keep an IPv4 route, where it routes nothing."""

    route: Route


Operation = (
    WriteSysctl
    | ReplaceRuleset
    | CreateBridge
    | CreateTap
    | ConfigureLink
    | StopLearning
    | TakeDown
    | SetMac
    | RemoveLink
    | AddAddress
    | KeepAddress
    | DeleteAddress
    | AddRoute
    | TakeLoopback
    | KeepRoute
)
