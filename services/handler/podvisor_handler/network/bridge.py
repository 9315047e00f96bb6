"""A guest that takes over what its pod's interface is: what the namespace needs for it.

The pod's interface becomes a port of a bridge under a made-up hardware address. What it was is kept by a placeholder, a bridge
without ports, from which a handler that knows nothing reads it again: hardware address, addresses, and routes in a table of
their own. An IPv4 address is kept as that of the far end of a link, so that the kernel neither answers for it nor takes what
comes from it for forged.

Invariant: pure. Nothing is taken from the pod's interface that the placeholder does not keep already, so the operations may end
after any of them.
"""

from collections.abc import Iterator
from dataclasses import replace

from podvisor_handler.network.attachments import Bridge
from podvisor_handler.network.facts import Attached, kept_routes, placeholder
from podvisor_handler.network.guard import Guest
from podvisor_handler.network.names import BRIDGE_MAC, made_up_mac, server_of
from podvisor_handler.network.namespace import (
    AddAddress,
    AddRoute,
    ConfigureLink,
    CreateBridge,
    DeleteAddress,
    KeepAddress,
    KeepRoute,
    Link,
    Observed,
    Operation,
    RemoveLink,
    Route,
    SetMac,
    StopLearning,
    TakeDown,
    WriteSysctl,
)


def guest_of(attached: Attached, binding: Bridge) -> Guest:
    """Who the guest is on the link."""
    return Guest(
        tap=attached.attachment.tap,
        pod_interface=attached.pod_interface,
        mac=binding.mac or attached.mac,
        addresses4=tuple(address.split("/")[0] for address in attached.addresses4),
        addresses6=tuple(address.split("/")[0] for address in attached.addresses6),
        dhcp_server=server_of(attached.attachment.stem) if attached.addresses4 else "",
    )


def links_of(now: Observed, attached: Attached) -> list[Operation]:
    """Keeps what the pod's interface is, takes it over, and makes it a port of the bridge."""
    link = now.links[attached.pod_interface]
    return [
        *_keep(now, attached),
        *_take_over(now, attached, link),
        *_bridge(now, attached),
        *_port(now, attached, link),
    ]


def _keep(now: Observed, attached: Attached) -> Iterator[Operation]:
    name = attached.attachment.placeholder
    known: tuple[str, ...] = ()
    known_routes: tuple[Route, ...] = ()
    if placeholder(now, attached.attachment, attached.pod_interface) is not None:
        known = now.addresses.get(name, ())
        known_routes = kept_routes(now, attached.attachment)
    else:
        if name in now.links:  # of an interface that is no more
            yield RemoveLink(name)
        yield CreateBridge(name, attached.mac, attached.mtu_bytes)
    for number, address in enumerate(attached.addresses):
        if address not in known:
            yield KeepAddress(name, address, number)
    for route in attached.routes:
        kept = replace(route, device=name)
        if kept not in known_routes:
            yield KeepRoute(kept)


def _take_over(now: Observed, attached: Attached, link: Link) -> Iterator[Operation]:
    name = attached.pod_interface
    wanted = made_up_mac(attached.mac)
    if link.mac != wanted:
        if link.up:  # not every device takes another address while it is up
            yield TakeDown(name)
        yield SetMac(name, wanted)
    yield from _without_ipv6(now, name)
    for address in now.addresses.get(name, ()):
        if ":" not in address:
            yield DeleteAddress(name, address)


def _bridge(now: Observed, attached: Attached) -> Iterator[Operation]:
    bridge, mtu_bytes = attached.attachment.bridge, attached.mtu_bytes
    found = now.links.get(bridge)
    if found is None:
        yield CreateBridge(bridge, BRIDGE_MAC, mtu_bytes)
    elif found.mtu_bytes != mtu_bytes or not found.up:
        yield ConfigureLink(bridge, mtu_bytes)
    yield from _without_ipv6(now, bridge)
    if attached.addresses4:
        server = f"{server_of(attached.attachment.stem)}/32"
        if server not in now.addresses.get(bridge, ()):
            yield AddAddress(bridge, server)
    for address in attached.addresses4:
        to_guest = Route(bridge, f"{address.split('/')[0]}/32")
        if to_guest not in now.routes:
            yield AddRoute(to_guest)


def _port(now: Observed, attached: Attached, link: Link) -> Iterator[Operation]:
    name, bridge = attached.pod_interface, attached.attachment.bridge
    if not now.is_port(name, bridge) or not link.up or link.mac != made_up_mac(attached.mac):
        yield ConfigureLink(name, attached.mtu_bytes, bridge)
    # A port in hairpin mode at the other end, as network plugins make it, sends back what the guest broadcasts: the guest would be
    # taken to be out there.
    if not now.is_port(name, bridge) or link.learns:
        yield StopLearning(name)


def _without_ipv6(now: Observed, device: str) -> Iterator[Operation]:
    path = f"net/ipv6/conf/{device}/disable_ipv6"
    if now.has_ipv6 and now.sysctls.get(path) != "1":
        yield WriteSysctl(path, "1")
