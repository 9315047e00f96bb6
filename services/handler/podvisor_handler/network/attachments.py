"""How a guest shall be attached to the networks of its pod. Values only."""

import ipaddress
from dataclasses import dataclass

from podvisor_handler.network import names

DEFAULT_GUEST_NETWORK = "10.0.2.0/24"
DEFAULT_GUEST_NETWORK6 = "fd10:0:2::/120"


@dataclass(frozen=True, slots=True, order=True)
class Port:
    """One port that reaches the guest."""

    protocol: str  # `tcp` or `udp`
    number: int


@dataclass(frozen=True, slots=True)
class GuestNetwork:
    """A private network behind a pod: a gateway and one guest."""

    cidr: str

    @property
    def prefix_length(self) -> int:
        """Length of the network's prefix."""
        return self._network.prefixlen

    @property
    def gateway(self) -> str:
        """Address of the bridge: the first of the network."""
        return str(self._network[1])

    @property
    def guest(self) -> str:
        """Address of the guest: the second of the network."""
        return str(self._network[2])

    @property
    def range(self) -> tuple[str, str]:
        """Its first address and its last."""
        return str(self._network[0]), str(self._network[-1])

    @property
    def _network(self) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
        return ipaddress.ip_network(self.cidr)


@dataclass(frozen=True, slots=True)
class Masquerade:
    """The guest has private addresses behind the pod's, and the hardware address `mac`; only `ports` reach it, all when empty."""

    mac: str
    network: GuestNetwork = GuestNetwork(DEFAULT_GUEST_NETWORK)
    network6: GuestNetwork = GuestNetwork(DEFAULT_GUEST_NETWORK6)
    ports: tuple[Port, ...] = ()


@dataclass(frozen=True, slots=True)
class Bridge:
    """The guest takes the addresses of the pod's interface; and its hardware address, unless it has one of its own: `mac`."""

    mac: str = ""


@dataclass(frozen=True, slots=True)
class Passt:
    """A process without privileges carries the guest's connections; only `ports` reach it, all when empty."""

    ports: tuple[Port, ...] = ()


@dataclass(frozen=True, slots=True)
class Attachment:
    """One interface of the guest."""

    network: str  # name in the manifest
    binding: Masquerade | Bridge | Passt
    # Of a network of Multus; None is the pod's own network, whatever its interface is called.
    pod_interface: str | None = None
    queues: int = 1
    # The guest runs without it until its pod has the interface.
    may_come_later: bool = False

    @property
    def stem(self) -> str:
        """What the names of its devices end in."""
        return names.stem_of(self.pod_interface)

    @property
    def bridge(self) -> str:
        """Its bridge."""
        return names.bridge_of(self.stem)

    @property
    def tap(self) -> str:
        """Its tap device."""
        return names.tap_of(self.stem)

    @property
    def placeholder(self) -> str:
        """What keeps the former state of the pod's interface."""
        return names.placeholder_of(self.stem)
