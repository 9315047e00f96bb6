"""What the devices of a pod's network namespace are called, and the addresses that are made up in it.

Invariant: pure, and the same for ever: a running guest, its launcher and a later release of the handler find by these names what
was made.
"""

import hashlib
import re

PRIMARY_POD_INTERFACE = "eth0"
# The gateway's hardware address never changes, so a guest that is moved keeps its neighbour entry.
BRIDGE_MAC = "02:00:00:00:00:00"
# Routers are known by a link-local address, which never changes either.
ROUTER_ADDRESS = "fe80::1"
_PRIMARY = "eth0"
_OWN = re.compile(r"(?:(?:k6t|was)-(eth0|[0-9a-f]{11})|tap(0|[0-9a-f]{11}))")
_SERVER_PREFIX = "169.254.75."
_PRIMARY_SERVER = 10
_SERVERS = 240


def stem_of(pod_interface: str | None) -> str:
    """What the names of an attachment's devices end in; None is the pod's own network, whatever its interface is called."""
    return pod_interface.removeprefix("pod") if pod_interface is not None else _PRIMARY


def bridge_of(stem: str) -> str:
    """The bridge of an attachment."""
    return f"k6t-{stem}"


def tap_of(stem: str) -> str:
    """The tap device that QEMU opens."""
    return "tap0" if stem == _PRIMARY else f"tap{stem}"


def placeholder_of(stem: str) -> str:
    """The device that keeps what the pod's interface was before its guest took it over."""
    return f"was-{stem}"


def own_stem(device: str) -> str | None:
    """The stem of a device that was made here; None for any other."""
    found = _OWN.fullmatch(device)
    if found is None:
        return None
    stem = found[1] or found[2]
    return _PRIMARY if stem == "0" else stem


def server_of(stem: str) -> str:
    """The address from which a guest that took over its pod's address is answered by DHCP. Of the bridge alone: nothing of it
    leaves the pod, so that two may have the same."""
    if stem == _PRIMARY:
        return f"{_SERVER_PREFIX}{_PRIMARY_SERVER}"
    return f"{_SERVER_PREFIX}{_PRIMARY_SERVER + 1 + int(stem, 16) % _SERVERS}"


def made_up_mac(mac: str) -> str:
    """What a pod's interface is called on the link once its guest has its hardware address `mac`."""
    return "06:" + hashlib.sha256(f"podvisor {mac}".encode()).digest()[:5].hex(":")
