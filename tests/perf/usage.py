"""What the processes of a pod have cost, read from the node's /proc in one go."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from tests.perf.measure import parse_rollup, parse_stat
from tests.support.cluster import on_node

_PROGRAMS = (
    ("launcher", "podvisor_launcher"),
    ("controller", "podvisor_controller"),
    ("handler", "podvisor_handler"),
    ("libvirtd", "/libvirtd"),
    ("qemu", "qemu-system"),
    ("supervisor", "libexec/podvisor/supervisor"),
    ("console-log", "libexec/podvisor/console-log"),
    ("pause", "/pause"),
)
_PROCESS = re.compile(r"^=== (\d+) (.*)\n(.*)\n((?:.*\n)*?)(?=^===|\Z)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Usage:
    """One process: CPU seconds so far, and memory in MiB."""

    program: str
    cpu_s: float
    rss: float
    pss: float


async def usage_of(pod_uid: str) -> list[Usage]:
    """The processes of a pod, `pause` included."""
    done = await on_node(
        "sh", "-c",
        f"for p in $(grep -lsE 'pod({pod_uid}|{pod_uid.replace('-', '_')})' /proc/[0-9]*/cgroup | cut -d/ -f3); do"
        " printf '=== %s ' $p; tr '\\0' ' ' < /proc/$p/cmdline; echo; cat /proc/$p/stat /proc/$p/smaps_rollup; done",
        check=False,
    )  # fmt: skip
    return parse(done.stdout)


def parse(text: str) -> list[Usage]:
    """The listing's processes; one that ended while it was made is left out."""
    found = []
    for _, command, stat, rollup in _PROCESS.findall(text):
        if "Rss:" not in rollup or not command.strip():
            continue
        sizes = parse_rollup(rollup)
        found.append(Usage(_program(command), parse_stat(stat), sizes["rss"], sizes["pss"]))
    return found


def beside_qemu(usages: Iterable[Usage]) -> float:
    """PSS of what the machine costs beside QEMU, in MiB; the runtime's own pause process is not ours."""
    return sum(usage.pss for usage in usages if usage.program not in ("qemu", "pause"))


def _program(command: str) -> str:
    for program, pattern in _PROGRAMS:
        if pattern in command:
            return program
    return command.split()[0].rsplit("/", 1)[-1]
