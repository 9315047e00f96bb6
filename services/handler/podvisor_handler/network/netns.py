"""Wires the network namespace of a launcher pod. The thin shell around plan.py.

Invariant: everything runs in a thread that enters the pod's namespace and ends. It never touches
the node's own namespace: a pod that shares it is refused. Wiring again changes nothing that is
already right, so a restarted handler may always do it.
"""

import ctypes
import os
from pathlib import Path

from podvisor_common.aio.threads import in_own_thread
from podvisor_common.errors import Retryable, Terminal

from podvisor_handler.linux.netlink import NETFILTER, ROUTE, NetlinkSocket
from podvisor_handler.linux.process import PinnedProcess
from podvisor_handler.network import links, ruleset
from podvisor_handler.network.facts import PodNetwork, Resolver
from podvisor_handler.network.plan import (
    POD_INTERFACE,
    SYSCTLS,
    AddAddress,
    ConfigureLink,
    CreateBridge,
    CreateTap,
    Masquerade,
    Observed,
    Operation,
    ReplaceRuleset,
    WriteSysctl,
    plan,
)
from podvisor_handler.network.pod_files import read_resolver, tun_device

_CLONE_NEWNET = 0x4000_0000
_LIBC = ctypes.CDLL(None, use_errno=True)


class NetworkRefused(Terminal):
    """The pod's network is not one that may be wired."""

    reason = "NetworkRefused"


class NetworkNotReady(Retryable):
    """The pod's network lacks something that may still come, or the kernel refused a step."""

    reason = "NetworkNotReady"


async def wire(process: PinnedProcess, desired: Masquerade) -> PodNetwork:
    """Makes the network of the process's pod what `desired` says, and returns what is there.

    Raises ProcessEnded, NetworkNotReady, NetworkRefused, UntrustedPathRefused.
    """
    # The thread gets its own hold on the process: the connection may be closed meanwhile.
    pinned = process.duplicate()
    return await in_own_thread(lambda: _wire(pinned, desired), name=f"netns-{process.pid}")


def _wire(pinned: PinnedProcess, desired: Masquerade) -> PodNetwork:
    try:
        return _wire_pinned(pinned, desired)
    finally:
        pinned.close()


def _wire_pinned(process: PinnedProcess, desired: Masquerade) -> PodNetwork:
    with process.opened("root", os.O_PATH | os.O_DIRECTORY) as root:
        resolver = read_resolver(root)
        tun = tun_device(root)
    try:
        with process.opened("ns/net", os.O_RDONLY) as namespace:
            _enter(namespace)
        return _bring_about(desired, resolver, f"/proc/self/fd/{tun}")
    except OSError as error:
        raise NetworkNotReady(f"cannot wire the pod's network: {error.strerror}") from error
    finally:
        os.close(tun)


def _enter(namespace: int) -> None:
    own, other = os.stat("/proc/thread-self/ns/net"), os.fstat(namespace)
    if (own.st_dev, own.st_ino) == (other.st_dev, other.st_ino):
        raise NetworkRefused("the pod shares the node's network")
    if _LIBC.setns(namespace, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _bring_about(desired: Masquerade, resolver: Resolver, tun: str) -> PodNetwork:
    with NetlinkSocket(ROUTE) as route, NetlinkSocket(NETFILTER) as netfilter:
        now = _observe(route, netfilter)
        if POD_INTERFACE not in now.links or not now.addresses.get(POD_INTERFACE):
            raise NetworkNotReady(f"the pod has no {POD_INTERFACE} with an IPv4 address")
        operations = plan(now, desired)
        for operation in operations:
            _carry_out(operation, route, netfilter, tun)
    addresses = sorted(address.split("/")[0] for address in now.addresses[POD_INTERFACE])
    return PodNetwork(
        mtu_bytes=now.links[POD_INTERFACE].mtu_bytes,
        addresses=tuple(addresses),
        resolver=resolver,
        changed=bool(operations),
    )


def _observe(route: NetlinkSocket, netfilter: NetlinkSocket) -> Observed:
    found = links.list_links(route)
    return Observed(
        links=found,
        addresses=links.list_addresses(route, found),
        sysctls={path: Path("/proc/sys", path).read_text().strip() for path in SYSCTLS},
        ruleset_digest=ruleset.digest_of_table(netfilter.get(ruleset.table_request())),
    )


def _carry_out(
    operation: Operation, route: NetlinkSocket, netfilter: NetlinkSocket, tun: str
) -> None:
    match operation:
        case WriteSysctl(path, value):
            Path("/proc/sys", path).write_text(value)
        case ReplaceRuleset(desired):
            netfilter.transaction(ruleset.masquerade_batch(desired))
        case CreateBridge(name, mac, mtu_bytes):
            links.create_bridge(route, name, mac=mac, mtu_bytes=mtu_bytes)
        case CreateTap(name, owner_uid):
            links.create_tap(tun, name, owner_uid=owner_uid)
        case AddAddress(name, address, prefix_length):
            index = links.list_links(route)[name].index
            links.add_address(route, index, address=address, prefix_length=prefix_length)
        case ConfigureLink(name, mtu_bytes, master):
            known = links.list_links(route)
            bridge = known[master].index if master is not None else None
            links.configure_link(route, known[name].index, mtu_bytes=mtu_bytes, master=bridge)
