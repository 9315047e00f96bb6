"""Files of a launcher pod that its network and its devices need: /dev and /etc/resolv.conf.

The pod's tree is untrusted: it is only touched through podvisor_handler.linux.untrusted.
"""

import contextlib
import ipaddress
import os

from podvisor_handler.linux.untrusted import (
    UntrustedPathMissing,
    untrusted_character_device,
    untrusted_make_directory,
    untrusted_read,
)
from podvisor_handler.network.facts import Resolver

_TUN = os.makedev(10, 200)
# Devices that a plugin may have put into the pod, with the node's owner and mode. The pod's devices
# cgroup decides who may use them; the mode only has to let the launcher's user try.
_SHARED_DEVICES = {"dev/kvm": os.makedev(10, 232), "dev/vhost-net": os.makedev(10, 238)}
_RESOLV_CONF_LIMIT_BYTES = 64 * 1024


def share_devices(root: int) -> None:
    """Lets the launcher's user at the devices that a plugin gave the pod, if any.

    Raises UntrustedPathRefused when the pod has something else there.
    """
    for path, device in _SHARED_DEVICES.items():
        with contextlib.suppress(UntrustedPathMissing):
            os.close(
                untrusted_character_device(root, path, device=device, mode=0o666, create=False)
            )


def tun_device(root: int) -> int:
    """A descriptor (O_PATH) of the pod's /dev/net/tun, made if need be; the caller closes it.

    Raises UntrustedPathRefused when the pod has something else there.
    """
    untrusted_make_directory(root, "dev/net", mode=0o755)
    return untrusted_character_device(root, "dev/net/tun", device=_TUN, mode=0o666, create=True)


def read_resolver(root: int) -> Resolver:
    """What the pod's /etc/resolv.conf says; nothing when it has none."""
    try:
        content = untrusted_read(root, "etc/resolv.conf", limit_bytes=_RESOLV_CONF_LIMIT_BYTES)
    except UntrustedPathMissing:
        return Resolver()
    return parse_resolver(content.decode(errors="replace"))


def parse_resolver(text: str) -> Resolver:
    """The name servers and the search domains of a resolv.conf. A server that is meant for a link of the pod's is left out."""
    servers: dict[int, list[str]] = {4: [], 6: []}
    search: list[str] = []
    for line in text.splitlines():
        keyword, *values = line.split() or [""]
        if keyword == "nameserver" and values:
            with contextlib.suppress(ValueError):
                address = ipaddress.ip_address(values[0])
                if address.version == 4 or not address.is_link_local:
                    servers[address.version].append(str(address))
        elif keyword in ("search", "domain"):
            search = [value for value in values if value != "."]
    return Resolver(tuple(servers[4]), tuple(servers[6]), tuple(search))
