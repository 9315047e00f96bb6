"""What is known of a pod's network, and what of it a guest is told. Pure."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from podvisor_handler.network.attachments import Attachment
from podvisor_handler.network.names import (
    PRIMARY_POD_INTERFACE,
    made_up_mac,
    own_stem,
    placeholder_of,
    stem_of,
)
from podvisor_handler.network.namespace import Link, Observed, Route

_DEFAULT = "0.0.0.0/0"
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Resolver:
    """Name servers (IPv4 and IPv6) and search domains, in order."""

    servers: tuple[str, ...] = ()
    servers6: tuple[str, ...] = ()
    search: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Attached:
    """An attachment with what the pod's interface is, or was before its guest took it over."""

    attachment: Attachment
    pod_interface: str
    mac: str
    mtu_bytes: int
    addresses: tuple[str, ...] = ()  # with prefix length; IPv4 first, no link-local ones of IPv6
    routes: tuple[Route, ...] = ()

    @property
    def addresses4(self) -> tuple[str, ...]:
        """Those of IPv4."""
        return tuple(address for address in self.addresses if ":" not in address)

    @property
    def addresses6(self) -> tuple[str, ...]:
        """Those of IPv6."""
        return tuple(address for address in self.addresses if ":" in address)


@dataclass(frozen=True, slots=True)
class PodNetwork:
    """The wired networks of a pod."""

    attached: tuple[Attached, ...] = ()
    resolver: Resolver = Resolver()
    desired: tuple[Attachment, ...] = ()
    changed: bool = False  # something had to be done

    @property
    def missing(self) -> tuple[Attachment, ...]:
        """What the pod has no interface for yet."""
        found = {attached.attachment for attached in self.attached}
        return tuple(attachment for attachment in self.desired if attachment not in found)

    def of(self, network: str) -> Attached | None:
        """What is attached of the name; None when it is not."""
        return next((each for each in self.attached if each.attachment.network == network), None)


def attached_of(now: Observed, attachment: Attachment) -> Attached | None:
    """What the pod's interface is, or was; None while the pod has none."""
    name = attachment.pod_interface or primary_interface(now)
    link = now.links.get(name)
    if link is None:
        return None
    kept = placeholder(now, attachment, name)
    if kept is None:
        addresses, routes = now.addresses.get(name, ()), routes_of(now.routes, name)
    else:
        # What is kept was copied before anything was taken from the interface; until all is copied, the rest is there.
        addresses = _union(
            now.addresses.get(attachment.placeholder, ()), now.addresses.get(name, ())
        )
        own = [replace(route, device=name) for route in kept_routes(now, attachment)]
        routes = tuple(_union(own, routes_of(now.routes, name)))
    return Attached(
        attachment=attachment,
        pod_interface=name,
        mac=kept.mac if kept is not None else link.mac,
        mtu_bytes=link.mtu_bytes,
        addresses=tuple(sorted(filter(is_global, addresses), key=lambda each: ":" in each)),
        routes=tuple(routes),
    )


def primary_interface(now: Observed) -> str:
    """The pod's interface on its own network: `eth0`, or what the network plugin called it, which then routes the world. Once a
    guest begins to take it over, it is known by what its placeholder remembers of it."""
    if PRIMARY_POD_INTERFACE in now.links:
        return PRIMARY_POD_INTERFACE
    foreign = {name: link for name, link in now.links.items() if own_stem(name) is None}
    kept = now.links.get(placeholder_of(stem_of(None)))
    if kept is not None:
        for name, link in foreign.items():
            if _is_kept(link, kept):
                return name
    routing = [
        route for route in now.routes if route.destination == _DEFAULT and route.device in foreign
    ]
    first = min(routing, key=lambda route: route.metric, default=None)
    return first.device if first is not None else PRIMARY_POD_INTERFACE


def placeholder(now: Observed, attachment: Attachment, name: str) -> Link | None:
    """The placeholder of the pod's interface `name`; None when there is none, or it is of a former interface of that name.

    A former one may even have had the same hardware address, where the manifest gives it. As long as an interface has its own
    one still, it has its IPv4 addresses too, and until it is taken down all else: what is kept must be found there.
    """
    link, kept = now.links[name], now.links.get(attachment.placeholder)
    if kept is None or not _is_kept(link, kept):
        return None
    if link.mac == kept.mac and not _is_copied(now, attachment, name):
        return None
    return kept


def _is_kept(link: Link, kept: Link) -> bool:
    return link.mac in (kept.mac, made_up_mac(kept.mac))


def _is_copied(now: Observed, attachment: Attachment, name: str) -> bool:
    own, kept = now.addresses.get(name, ()), now.addresses.get(attachment.placeholder, ())
    own4, kept4 = ([each for each in of if ":" not in each] for of in (own, kept))
    if kept4 != own4[: len(kept4)]:
        return False
    routes = {replace(route, device=name) for route in kept_routes(now, attachment)}
    is_down = not now.links[name].up
    return is_down or ({*kept} <= {*own} and routes <= {*routes_of(now.routes, name)})


def routes_of(routes: Sequence[Route], device: str) -> tuple[Route, ...]:
    """The routes of a device."""
    return tuple(route for route in routes if route.device == device)


def kept_routes(now: Observed, attachment: Attachment) -> tuple[Route, ...]:
    """The routes that its placeholder keeps."""
    return routes_of(now.kept_routes, attachment.placeholder)


def is_global(address: str) -> bool:
    """Whether an address, with or without prefix length, is one by which others know its owner."""
    parsed = ipaddress.ip_interface(address)
    return parsed.version == 4 or not parsed.is_link_local


def gateway_of(attached: Attached) -> str:
    """The router that leads to the world; empty for none."""
    routes = [route for route in attached.routes if route.destination == _DEFAULT and route.gateway]
    first = min(routes, key=lambda route: route.metric, default=None)
    return first.gateway if first is not None else ""


def further_routes(attached: Attached) -> tuple[Route, ...]:
    """What a guest needs beside the router that leads to the world, so that it reaches what the pod would: a router outside of
    the guest's own network has a route of its own."""
    gateway = gateway_of(attached)
    others = tuple(
        route for route in attached.routes if not (route.destination == _DEFAULT and route.gateway)
    )
    near = [ipaddress.IPv4Interface(address).network for address in attached.addresses4]
    near += [ipaddress.IPv4Network(route.destination) for route in others if not route.gateway]
    if not gateway or any(ipaddress.IPv4Address(gateway) in network for network in near):
        return others
    return (Route(attached.pod_interface, f"{gateway}/32"), *others)


def _union(first: Sequence[_T], second: Sequence[_T]) -> tuple[_T, ...]:
    return (*first, *(each for each in second if each not in first))
