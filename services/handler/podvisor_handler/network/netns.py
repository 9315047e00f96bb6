"""Wires the network namespace of a launcher pod. The thin shell around plan.py.

Invariant: everything runs in a thread that enters the pod's namespace and ends. It never touches
the node's own namespace: a pod that shares it is refused. Wiring again changes nothing that is
already right, so a restarted handler may always do it. A namespace in which nothing is to be done is
not entered.
"""

import contextlib
import ctypes
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from podvisor_common.aio.threads import in_own_thread
from podvisor_common.errors import Retryable, Terminal

from podvisor_handler.linux import nftables
from podvisor_handler.linux.netlink import NETFILTER, ROUTE, DumpInterrupted, NetlinkSocket
from podvisor_handler.linux.process import PinnedProcess
from podvisor_handler.network import addresses, links, outside
from podvisor_handler.network.advertiser import open_router_socket
from podvisor_handler.network.attachments import Attachment, Passt
from podvisor_handler.network.collisions import collision_of
from podvisor_handler.network.facts import Attached, PodNetwork, Resolver
from podvisor_handler.network.names import own_stem
from podvisor_handler.network.namespace import (
    AddAddress,
    AddRoute,
    ConfigureLink,
    CreateBridge,
    CreateTap,
    DeleteAddress,
    KeepAddress,
    KeepRoute,
    Link,
    Observed,
    Operation,
    RemoveLink,
    ReplaceRuleset,
    SetMac,
    StopLearning,
    TakeDown,
    TakeLoopback,
    WriteSysctl,
)
from podvisor_handler.network.plan import find, plan, sysctls_observed
from podvisor_handler.network.pod_files import read_resolver, share_devices, tun_device

_CLONE_NEWNET = 0x4000_0000
_LIBC = ctypes.CDLL(None, use_errno=True)


class NetworkRefused(Terminal):
    """The pod's network is not one that may be wired."""

    reason = "NetworkRefused"


class NetworkNotReady(Retryable):
    """The pod's network lacks something that may still come, or the kernel refused a step."""

    reason = "NetworkNotReady"


async def wire(
    process: PinnedProcess, desired: tuple[Attachment, ...], *, is_prepared: bool = False
) -> PodNetwork:
    """Makes the network of the process's pod what `desired` says, and returns what is there.

    One that `is_prepared` has all of it already; it is entered only to remove what was needed before.
    Raises ProcessEnded, NetworkNotReady, NetworkRefused, UntrustedPathRefused.
    """
    # The thread gets its own hold on the process: the connection may be closed meanwhile.
    pinned = process.duplicate()
    return await in_own_thread(
        lambda: _wire(pinned, desired, is_prepared), name=f"netns-{process.pid}"
    )


async def open_router_sockets(
    process: PinnedProcess, bridges: Sequence[str]
) -> dict[str, socket.socket]:
    """Sockets for router advertisements on bridges of the process's pod, by bridge; the caller closes them.

    Raises ProcessEnded, NetworkNotReady, NetworkRefused.
    """
    pinned = process.duplicate()
    return await in_own_thread(
        lambda: _open_router_sockets(pinned, bridges), name=f"netns-{process.pid}"
    )


def _open_router_sockets(pinned: PinnedProcess, bridges: Sequence[str]) -> dict[str, socket.socket]:
    try:
        with pinned.opened("ns/net", os.O_RDONLY) as namespace, contextlib.ExitStack() as undo:
            _enter(namespace)
            opened = {bridge: undo.enter_context(open_router_socket(bridge)) for bridge in bridges}
            undo.pop_all()
            return opened
    except OSError as error:
        raise NetworkNotReady(f"cannot announce a router: {error.strerror}") from error
    finally:
        pinned.close()


def _wire(pinned: PinnedProcess, desired: tuple[Attachment, ...], is_prepared: bool) -> PodNetwork:
    try:
        with pinned.opened("root", os.O_PATH | os.O_DIRECTORY) as root:
            share_devices(root)
            resolver = read_resolver(root)
            found = _look(pinned, root, desired) if is_prepared else None
            if found is not None:
                return PodNetwork(tuple(found), resolver, desired)
            tun = tun_device(root) if _need_taps(desired) else None
        return _wire_pinned(pinned, desired, resolver, tun)
    except OSError as error:
        raise NetworkNotReady(f"cannot wire the pod's network: {error.strerror}") from error
    except DumpInterrupted as error:
        raise NetworkNotReady(f"cannot wire the pod's network: {error}") from error
    finally:
        pinned.close()


def _look(
    process: PinnedProcess, root: int, desired: tuple[Attachment, ...]
) -> list[Attached] | None:
    """What there is, seen from outside; None when devices are there that were made for a guest."""
    with process.opened("ns/net", os.O_RDONLY) as namespace:
        _check_own(namespace)
    now = outside.observe(process, root)
    if any(own_stem(name) is not None for name in now.links):
        return None
    attached = find(now, desired)
    _check(desired, attached)
    return attached


def _need_taps(desired: tuple[Attachment, ...]) -> bool:
    return any(not isinstance(attachment.binding, Passt) for attachment in desired)


def _wire_pinned(
    process: PinnedProcess, desired: tuple[Attachment, ...], resolver: Resolver, tun: int | None
) -> PodNetwork:
    try:
        with process.opened("ns/net", os.O_RDONLY) as namespace:
            _enter(namespace)
        path = f"/proc/self/fd/{tun}" if tun is not None else ""
        return _bring_about(desired, resolver, path)
    finally:
        if tun is not None:
            os.close(tun)


def _enter(namespace: int) -> None:
    _check_own(namespace)
    if _LIBC.setns(namespace, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _check_own(namespace: int) -> None:
    own, other = os.stat("/proc/thread-self/ns/net"), os.fstat(namespace)
    if (own.st_dev, own.st_ino) == (other.st_dev, other.st_ino):
        raise NetworkRefused("the pod shares the node's network")


def _bring_about(desired: tuple[Attachment, ...], resolver: Resolver, tun: str) -> PodNetwork:
    with NetlinkSocket(ROUTE) as route, NetlinkSocket(NETFILTER) as netfilter:
        now = _observe(route, netfilter)
        attached = find(now, desired)
        _check(desired, attached)
        collision = collision_of(now, attached, resolver)
        if collision:
            raise NetworkRefused(collision)
        operations = plan(now, attached)
        for operation in operations:
            carry_out(operation, route, netfilter, tun)
    return PodNetwork(tuple(attached), resolver, desired, changed=bool(operations))


def _check(desired: tuple[Attachment, ...], found: list[Attached]) -> None:
    there = {attached.attachment for attached in found}
    for attachment in desired:
        if attachment not in there and not attachment.may_come_later:
            interface = attachment.pod_interface or "one that leads to the world"
            raise NetworkNotReady(
                f'Network "{attachment.network}": the pod has no interface for it yet ({interface}).'
            )
    for attached in found:
        if attached.attachment.pod_interface is None and not attached.addresses:
            raise NetworkNotReady(
                f'Network "{attached.attachment.network}": {attached.pod_interface} of the pod has no address yet.'
            )


def _observe(route: NetlinkSocket, netfilter: NetlinkSocket) -> Observed:
    found = links.list_links(route)
    names = {link.index: name for name, link in found.items()}
    placeholders = frozenset(name for name in found if name.startswith("was-") and own_stem(name))
    routes = addresses.list_routes(route, names)
    digests = {
        family: nftables.digest_of_answer(netfilter.get(nftables.table_request(family)))
        for family in nftables.Family
    }
    return Observed(
        links=found,
        addresses=addresses.list_addresses(route, names, kept_by=placeholders),
        routes=routes.told,
        kept_routes=routes.kept,
        every_route=routes.every,
        loopbacks=routes.loopbacks,
        sysctls=_read_sysctls(found),
        rulesets={family: digest for family, digest in digests.items() if digest is not None},
    )


def _read_sysctls(found: Mapping[str, Link]) -> dict[str, str]:
    interfaces = [name for name in found if own_stem(name) is None]
    bridges = [name for name in found if own_stem(name) is not None]
    values = {}
    for path in sysctls_observed(interfaces, bridges):
        with contextlib.suppress(FileNotFoundError):
            values[path] = Path("/proc/sys", path).read_text().strip()
    return values


def carry_out(
    operation: Operation, route: NetlinkSocket, netfilter: NetlinkSocket, tun: str
) -> None:
    """Makes one change in the calling thread's namespace. Raises OSError."""
    match operation:
        case WriteSysctl(path, value):
            Path("/proc/sys", path).write_text(value)
        case ReplaceRuleset(tables, stale):
            netfilter.transaction(nftables.replacement(tables, stale))
        case CreateBridge(name, mac, mtu_bytes):
            links.create_bridge(route, name, mac=mac, mtu_bytes=mtu_bytes)
        case CreateTap(name, is_multiqueue):
            links.create_tap(tun, name, is_multiqueue=is_multiqueue)
        case ConfigureLink(name, mtu_bytes, master):
            links.configure_link(route, name, mtu_bytes=mtu_bytes, master=master)
        case StopLearning(name):
            links.stop_learning(route, name)
        case TakeDown(name):
            links.take_down(route, name)
        case SetMac(name, mac):
            links.set_mac(route, name, mac)
        case RemoveLink(name):
            links.remove_link(route, name)
        case AddAddress(name, address):
            addresses.add_address(route, name, address)
        case KeepAddress(name, address, number):
            addresses.keep_address(route, name, address, number)
        case DeleteAddress(name, address):
            addresses.delete_address(route, name, address)
        case AddRoute(wanted):
            addresses.add_route(route, wanted)
        case TakeLoopback(name):
            addresses.take_loopback(route, name)
        case KeepRoute(wanted):
            addresses.keep_route(route, wanted)
