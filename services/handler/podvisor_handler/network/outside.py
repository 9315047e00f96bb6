"""Looks at a pod's network without entering its namespace: by what the kernel tells of a process that is in it.

Invariant: nothing in the pod is changed, and no privilege over its network is needed.
"""

import contextlib
import os
import re

from podvisor_handler.linux.process import PinnedProcess
from podvisor_handler.linux.untrusted import UntrustedPathMissing, untrusted_read
from podvisor_handler.network.namespace import Observed
from podvisor_handler.network.proc_net import Device, Texts, device_names, observed_of

_SYSFS_LIMIT_BYTES = 64
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_MTU = re.compile(r"[0-9]{1,9}")


def observe(process: PinnedProcess, root: int) -> Observed:
    """The network of the process's pod, whose tree is at `root`. Raises ProcessEnded, OSError, UntrustedPathRefused."""
    texts = Texts(
        dev=_read(process, "dev"),
        route=_read(process, "route"),
        fib_trie=_read(process, "fib_trie"),
        if_inet6=_read(process, "if_inet6") if _has(process, "if_inet6") else "",
    )
    return observed_of(texts, {name: _device(root, name) for name in device_names(texts.dev)})


def _has(process: PinnedProcess, name: str) -> bool:
    with process.opened("net", os.O_PATH | os.O_DIRECTORY) as directory:
        return name in os.listdir(f"/proc/self/fd/{directory}")


def _read(process: PinnedProcess, name: str) -> str:
    with (
        process.opened(f"net/{name}", os.O_RDONLY) as descriptor,
        open(descriptor, closefd=False) as file,
    ):
        return file.read()


def _device(root: int, name: str) -> Device:
    """What the pod's own /sys says; of hardware it says it elsewhere."""
    mac, mtu = _sysfs(root, name, "address"), _sysfs(root, name, "mtu")
    return Device(
        mac=mac if _MAC.fullmatch(mac) else "",
        mtu_bytes=int(mtu) if _MTU.fullmatch(mtu) else 0,
    )


def _sysfs(root: int, name: str, attribute: str) -> str:
    with contextlib.suppress(UntrustedPathMissing):
        path = f"sys/devices/virtual/net/{name}/{attribute}"
        content = untrusted_read(root, path, limit_bytes=_SYSFS_LIMIT_BYTES)
        return content.decode(errors="replace").strip()
    return ""
