"""Faults: who is struck, and with what. Everything that is struck at once dies by one call of kill(1) on the node."""

import re
import time
from collections.abc import Iterable
from enum import StrEnum

from tests.support.cluster import on_node
from tests.support.machine import Machine, pod_processes


class Victim(StrEnum):
    """A process, as a pattern of its command line."""

    LAUNCHER = r"python -m podvisor_launcher$"
    LIBVIRTD = r"^/usr/sbin/libvirtd -f"
    QEMU = r"^/usr/bin/qemu-system"
    SUPERVISOR = r"^/usr/libexec/podvisor/supervisor"
    CONSOLE_LOG = r"^/usr/libexec/podvisor/console-log"
    HANDLER = r"^python -m podvisor_handler$"


async def pids_of(victim: Victim, pod_uid: str) -> list[int]:
    """The victim's processes, the oldest first; the handler's are those of the node."""
    if victim is Victim.HANDLER:
        found = await on_node("pgrep", "-f", victim.value, check=False)
        return [int(pid) for pid in found.stdout.split()]
    processes = await pod_processes(pod_uid)
    return sorted(pid for pid, command in processes.items() if re.search(victim, command))


async def strike(
    victims: Iterable[Victim], pod_uid: str, *, signal: str = "KILL", must_hit: bool = True
) -> float:
    """Send a signal to all of them at once; when that was, in seconds of time.time(), which the node shares.

    `must_hit`: each of them has to be there; else what is just being started again is missed.
    """
    pids: list[int] = []
    for victim in victims:
        found = await pids_of(victim, pod_uid)
        assert found or not must_hit, f"nothing to strike: {victim.name}"
        pids += found
    if not pids:
        return time.time()
    blow = f"date +%s.%N; kill -{signal} {' '.join(map(str, pids))}"
    return float((await on_node("sh", "-c", blow, check=must_hit)).stdout)


async def uid_of_pod(machine: Machine) -> str:
    """The machine's pod."""
    uid: str = (await machine.pod())["metadata"]["uid"]
    return uid
