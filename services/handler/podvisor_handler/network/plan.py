"""What a pod's network namespace needs so that its guest is attached as it shall be.

Invariant: plan() compares two values and returns the operations that lead from one to the other, in order; equal values give no
operation, and after any of them the next plan leads to the same end. netns.py observes and carries out.
"""

from collections.abc import Iterator, Sequence

from podvisor_handler.linux.nftables import Table, digest_of
from podvisor_handler.network import bridge, masquerade
from podvisor_handler.network.attachments import Attachment, Bridge, Masquerade, Passt
from podvisor_handler.network.facts import Attached, attached_of
from podvisor_handler.network.guard import Guest, guard_of
from podvisor_handler.network.names import bridge_of, own_stem, placeholder_of, stem_of, tap_of
from podvisor_handler.network.namespace import (
    ConfigureLink,
    CreateTap,
    Observed,
    Operation,
    RemoveLink,
    ReplaceRuleset,
    StopLearning,
    WriteSysctl,
)

# What answers a guest's DHCP needs no capability, nor does a process that forwards ports or pings for it.
_UNPRIVILEGED = {"net/ipv4/ip_unprivileged_port_start": "0"}
# Frames on a bridge are no packets of the pod's: what translates addresses sees those that are routed, once.
_BRIDGES = dict.fromkeys(
    (
        "net/bridge/bridge-nf-call-iptables",
        "net/bridge/bridge-nf-call-ip6tables",
        "net/bridge/bridge-nf-call-arptables",
    ),
    "0",
)
_PASST = {"net/ipv4/ping_group_range": "0\t2147483647"}


def sysctls_observed(interfaces: Sequence[str], bridges: Sequence[str]) -> list[str]:
    """The files below /proc/sys that a plan may depend on, for the pod's interfaces and the bridges."""
    return [
        *_UNPRIVILEGED,
        *_PASST,
        *_BRIDGES,
        "net/ipv4/ip_forward",
        "net/ipv6/conf/all/forwarding",
        *(f"net/ipv6/conf/{name}/accept_ra" for name in interfaces),
        *(f"net/ipv6/conf/{name}/disable_ipv6" for name in (*interfaces, *bridges)),
        *(f"net/ipv4/conf/{name}/route_localnet" for name in bridges),
    ]


def find(now: Observed, desired: Sequence[Attachment]) -> list[Attached]:
    """What is desired and has an interface in the pod."""
    found = (attached_of(now, attachment) for attachment in desired)
    return [attached for attached in found if attached is not None]


def plan(now: Observed, wanted: Sequence[Attached]) -> list[Operation]:
    """The operations that make the namespace what it shall be, in order; empty when it is."""
    operations = list(_sysctls(now, wanted))
    # The rules come before the taps: there is no moment in which a guest can send what it must not.
    tables = _tables(wanted)
    digest = digest_of(tables)
    families = {table.family for table in tables}
    stale = tuple(sorted(set(now.rulesets) - families))
    if stale or any(now.rulesets.get(family) != digest for family in families):
        operations.append(ReplaceRuleset(tuple(tables), stale))
    for attached in wanted:
        match attached.attachment.binding:
            case Masquerade() as binding:
                operations += masquerade.links_of(now, attached, binding)
                operations += _tap(now, attached)
            case Bridge():
                operations += bridge.links_of(now, attached)
                operations += _tap(now, attached)
            case Passt():
                pass  # has no device of its own
    return [*operations, *_removals(now, wanted)]


def _sysctls(now: Observed, wanted: Sequence[Attached]) -> Iterator[Operation]:
    values = dict(_UNPRIVILEGED) if wanted else {}
    for attached in wanted:
        match attached.attachment.binding:
            case Masquerade():
                values |= masquerade.sysctls_of(now, attached)
            case Passt():
                values |= _PASST
    # A kernel that cannot see them so has no such files.
    values |= {path: value for path, value in _BRIDGES.items() if path in now.sysctls}
    for path, value in values.items():
        if now.sysctls.get(path) != value:
            yield WriteSysctl(path, value)


def _tables(wanted: Sequence[Attached]) -> list[Table]:
    tables: list[Table] = []
    guests: list[Guest] = []
    for attached in wanted:
        match attached.attachment.binding:
            case Masquerade() as masqueraded:
                tables += masquerade.tables_of(attached, masqueraded)
                guests.append(masquerade.guest_of(attached, masqueraded))
            case Bridge() as bridged:
                guests.append(bridge.guest_of(attached, bridged))
    return [*tables, guard_of(guests)] if guests else tables


def _tap(now: Observed, attached: Attached) -> Iterator[Operation]:
    attachment, mtu_bytes = attached.attachment, attached.mtu_bytes
    tap = now.links.get(attachment.tap)
    if tap is None:
        yield CreateTap(attachment.tap, is_multiqueue=attachment.queues > 1)
    in_bridge = now.is_port(attachment.tap, attachment.bridge)
    if tap is None or not in_bridge or not tap.up or tap.mtu_bytes != mtu_bytes:
        yield ConfigureLink(attachment.tap, mtu_bytes, attachment.bridge)
    # Behind the one port of such a bridge is the one guest: there is nothing to learn.
    is_alone = isinstance(attachment.binding, Masquerade)
    if is_alone and (tap is None or not in_bridge or tap.learns):
        yield StopLearning(attachment.tap)


def _removals(now: Observed, wanted: Sequence[Attached]) -> Iterator[Operation]:
    """The devices of what is wanted no more. A placeholder goes with the pod's interface, of which it alone knows what it was."""
    used = {attached.attachment.stem for attached in wanted}
    for stem in sorted({stem for stem in map(own_stem, now.links) if stem is not None} - used):
        gone = [tap_of(stem), bridge_of(stem)]
        if stem != stem_of(None) and f"pod{stem}" not in now.links:
            gone.append(placeholder_of(stem))
        for name in gone:
            if name in now.links:
                yield RemoveLink(name)
