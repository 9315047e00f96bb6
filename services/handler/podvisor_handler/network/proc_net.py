"""A pod's network as the files in /proc/<pid>/net tell it, which anybody may read from outside of its namespace.

They do not say to which device an IPv4 address belongs, nor what its prefix is; routes and broadcast addresses do. Nor do they
say which of several addresses came first: those of one family are in numerical order.

Invariant: pure.
"""

import ipaddress
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from podvisor_handler.network.facts import primary_interface
from podvisor_handler.network.namespace import Link, Observed, Route

# linux/route.h
_UP, _REJECT = 0x1, 0x200
_LOOPBACK = ipaddress.IPv4Network("127.0.0.0/8")
_NO_DEVICE = "*"


@dataclass(frozen=True, slots=True)
class Texts:
    """What the files of these names contain."""

    dev: str
    route: str
    fib_trie: str
    if_inet6: str = ""  # there is none where the kernel does not speak IPv6


@dataclass(frozen=True, slots=True)
class Device:
    """What sysfs says of a network device."""

    mac: str = ""
    mtu_bytes: int = 0  # 0 where it is not said


def device_names(dev: str) -> tuple[str, ...]:
    """The devices in the text of `dev`, in its order."""
    return tuple(line.split(":", 1)[0].strip() for line in dev.splitlines()[2:] if ":" in line)


def observed_of(texts: Texts, devices: Mapping[str, Device]) -> Observed:
    """The namespace, as far as it is told: of devices neither index nor state, no settings and no rules."""
    names = device_names(texts.dev)
    known = {name: devices.get(name, Device()) for name in names}
    links = {name: Link(0, each.mtu_bytes, True, mac=each.mac) for name, each in known.items()}
    routes = tuple(_routes(texts.route))
    primary = primary_interface(Observed(links, {}, routes))
    addresses: dict[str, tuple[str, ...]] = {}
    for name, address in (*_addresses4(texts.fib_trie, routes, primary), *_addresses6(texts)):
        addresses[name] = (*addresses.get(name, ()), address)
    return Observed(links, addresses, _without_the_kernels(routes, addresses))


def _routes(text: str) -> Iterator[Route]:
    """Those of the main table; of one to several routers the first is told."""
    for line in text.splitlines()[1:]:
        device, destination, gateway, flags, _, _, metric, mask, *_ = line.split()
        if device == _NO_DEVICE or int(flags, 16) & (_UP | _REJECT) != _UP:
            continue
        length = int(mask, 16).bit_count()
        yield Route(
            device=device,
            destination=f"{_address(destination)}/{length}",
            gateway=str(_address(gateway)) if int(gateway, 16) else "",
            metric=int(metric),
        )


def _addresses4(trie: str, routes: Sequence[Route], primary: str) -> Iterator[tuple[str, str]]:
    """Addresses with prefix length, each with its device; of one to which no route leads, `primary`."""
    own, broadcasts = set(), set()
    leaf = ""
    for line in trie.splitlines():
        words = line.split()
        if words[:1] == ["|--"]:
            leaf = words[1]
        elif words == ["/32", "host", "LOCAL"]:
            own.add(ipaddress.IPv4Address(leaf))
        elif words == ["/32", "link", "BROADCAST"]:
            broadcasts.add(ipaddress.IPv4Address(leaf))
    near = [(ipaddress.IPv4Network(each.destination), each.device) for each in routes]
    near.sort(key=lambda each: each[0].prefixlen, reverse=True)
    for address in sorted(own):
        if address in _LOOPBACK:
            continue
        around = [each for each in near if each[0].prefixlen and address in each[0]]
        lengths = (network.prefixlen for network, _ in around if _is_own(network, broadcasts))
        yield around[0][1] if around else primary, f"{address}/{next(lengths, 32)}"


def _is_own(network: ipaddress.IPv4Network, broadcasts: set[ipaddress.IPv4Address]) -> bool:
    """Whether a network that an address is in may be the address' own: the kernel knows how to reach all in it then."""
    return network.prefixlen == 31 or network.broadcast_address in broadcasts


def _addresses6(texts: Texts) -> list[tuple[str, str]]:
    found = []
    for line in texts.if_inet6.splitlines():
        packed, _, length, _, _, device = line.split()
        address = ipaddress.IPv6Address(bytes.fromhex(packed))
        found.append((address, int(length, 16), device))
    return [(device, f"{address}/{length}") for address, length, device in sorted(found)]


def _without_the_kernels(
    routes: Sequence[Route], addresses: Mapping[str, Sequence[str]]
) -> tuple[Route, ...]:
    """Without those that the kernel makes of addresses."""
    made = {
        Route(device, str(ipaddress.ip_interface(address).network))
        for device, those in addresses.items()
        for address in those
    }
    return tuple(route for route in routes if route not in made)


def _address(number: str) -> ipaddress.IPv4Address:
    """Of a number that the kernel prints in the machine's own order."""
    return ipaddress.IPv4Address(struct.pack("=I", int(number, 16)))
