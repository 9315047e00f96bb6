"""Private networks of guests that hide something which the pod reaches, or are hidden by it.

Such a guest would run, and nobody would reach it, or it would miss a name server. A private network within a wider one to which
there is a router is none of them: the private one is more specific.

Invariant: pure. What was made for a guest collides with nothing, and a guest that is wired keeps what it has, whatever its pod
gets later.
"""

import ipaddress
from collections.abc import Iterator, Sequence

from podvisor_handler.network.attachments import GuestNetwork, Masquerade
from podvisor_handler.network.facts import Attached, Resolver
from podvisor_handler.network.names import own_stem
from podvisor_handler.network.namespace import Observed, Route

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def collision_of(now: Observed, attached: Sequence[Attached], resolver: Resolver) -> str:
    """A sentence about the first private network that collides with one of the pod's; empty when none does."""
    for each in attached:
        binding = each.attachment.binding
        if not isinstance(binding, Masquerade):
            continue
        for field, guest_network, has_family in (
            ("vmNetworkCIDR", binding.network, bool(each.addresses4)),
            ("vmIPv6NetworkCIDR", binding.network6, bool(each.addresses6)),
        ):
            if not has_family or _is_wired(now, each, guest_network):
                continue
            other = next(_overlaps(now, ipaddress.ip_network(guest_network.cidr), resolver), "")
            if other:
                return (
                    f'Network "{each.attachment.network}": the guest\'s private network {guest_network.cidr} ({field})'
                    f" overlaps {other}. Choose another {field}."
                )
    return ""


def _is_wired(now: Observed, attached: Attached, network: GuestNetwork) -> bool:
    gateway = f"{network.gateway}/{network.prefix_length}"
    return gateway in now.addresses.get(attached.attachment.bridge, ())


def _overlaps(now: Observed, private: _Network, resolver: Resolver) -> Iterator[str]:
    """What of the pod's the network overlaps, described."""
    routes = [route for route in now.every_route if own_stem(route.device) is None]
    for route in routes:
        if not route.gateway and _is_taken_on_link(private, route):
            yield f"{route.destination}, to which the pod's interface {route.device} is linked"
    for device, addresses in now.addresses.items():
        for address in (each.split("/")[0] for each in addresses):
            if own_stem(device) is None and ipaddress.ip_address(address) in private:
                yield f"{address}, an address of the pod's interface {device}"
    for route in routes:
        if route.gateway and ipaddress.ip_address(route.gateway) in private:
            yield f"{route.gateway}, a router of the pod's interface {route.device}"
    for server in (*resolver.servers, *resolver.servers6):
        if ipaddress.ip_address(server) in private:
            yield f"{server}, the pod's name server"
    for route in routes:
        if route.gateway and _is_within(ipaddress.ip_network(route.destination), private):
            yield f"{route.destination}, to which the pod has a router by its interface {route.device}"


def _is_taken_on_link(private: _Network, route: Route) -> bool:
    """Of a link that leads everywhere, anything more specific takes its part."""
    network = ipaddress.ip_network(route.destination)
    return network.prefixlen > 0 and private.overlaps(network)


def _is_within(network: _Network, other: _Network) -> bool:
    """Nor is the guest reached where the pod's routes are as specific as the way to it."""
    return network.prefixlen >= other.prefixlen and network.network_address in other
