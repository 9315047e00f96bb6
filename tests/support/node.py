"""A node as its own shell shows it: everything that machines could leave behind, and what podvisor's processes use.

Invariant: only looks. The node tidies up a moment after the objects are gone, so it is looked at again until it is as it should
be, for as long as the caller has patience; each look costs the time of a process, which is pause enough.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tests.support.cluster import on_node

_LOOKS = {
    "processes": "ps -eo args= | grep -E 'qemu|/libvirtd|podvisor_launcher|supervisor|console-log' | grep -v grep",
    "mounts": "findmnt -rno TARGET | grep -E '/pods/|netns'",
    "links": "ip -o link | grep -oE 'veth[0-9a-f]+|tap[0-9]+|k6t-[a-z0-9]+'",
    "nft tables": "nft list tables",
    "network namespaces": "ls /run/netns",
    "pod directories": "ls /var/lib/kubelet/pods",
    "control groups": "find /sys/fs/cgroup -type d -name '*pod*-*'",
    "files of podvisor": "find /run/podvisor",
    "files of the handler": "find /proc/$handler/root/tmp",
    # The pool of connections to the API server breathes; what the handler holds of machines are unix sockets.
    "handler unix sockets": 'nsenter -t $handler -n ss -xpH | grep -o "pid=$handler,"',
    "handler descriptors": "ls -l /proc/$handler/fd | grep -v socket:",
}
# Numbers of sockets, pipes and the like differ between any two moments; how many there are of each kind does not.
_DESCRIPTOR = re.compile(r"-> (\S+?)[:\[(\s]")
_FIND_HANDLER = "handler=$(pgrep -o -f '^python -m podvisor_handler$')"

_USAGE = r"""
for pid in $*; do
  echo "$pid $(awk '/^VmRSS/ {print $2}' /proc/$pid/status) $(ls /proc/$pid/fd | wc -l) $(ls /proc/$pid/task | wc -l)" \
    $(nsenter -t $pid -n timeout 5 bash -c 'exec 3<>/dev/tcp/127.0.0.1/8080 || exit
      printf "GET /metrics HTTP/1.0\r\n\r\n" >&3; grep -a "^podvisor_tasks" <&3' 2>/dev/null)
done
"""

NodeState = Mapping[str, list[str]]


@dataclass(frozen=True, slots=True)
class Usage:
    """What one process has and holds."""

    rss_mib: float
    descriptors: int
    threads: int
    tasks: int | None  # of its event loop; None where no metrics are served


async def node_state() -> NodeState:
    """Processes, mounts, links, nft tables, control groups, files and the handler's descriptors."""
    parts = [_FIND_HANDLER, *(f"echo '== {name}'; {look}" for name, look in _LOOKS.items())]
    printed = (await on_node("sh", "-c", "\n".join(parts), check=False)).stdout
    state: dict[str, list[str]] = {}
    for part in printed.split("== ")[1:]:
        name, *lines = part.splitlines()
        state[name] = sorted(lines)
    state["handler descriptors"] = [
        found[1]
        for line in state["handler descriptors"]
        if (found := _DESCRIPTOR.search(line + "\n"))
    ]
    state["handler descriptors"].sort()
    return state


async def node_at_rest(*, within_s: float = 60) -> NodeState:
    """The state once two looks in a row show the same. Raises TimeoutError."""
    async with asyncio.timeout(within_s):
        last = await node_state()
        while (now := await node_state()) != last:
            last = now
    return last


async def until_nothing_more(before: NodeState, *, within_s: float) -> None:
    """Wait until the node has nothing that it did not have `before`. Raises AssertionError that says what stays."""
    more: list[str] = []
    try:
        async with asyncio.timeout(within_s):
            while more := _more(before, await node_state()):
                pass
    except TimeoutError:
        left = "\n".join(more)
        raise AssertionError(f"left after {within_s} s:\n{left}") from None


async def pids_on_node(pattern: str) -> list[int]:
    """The node's processes whose command line matches."""
    found = await on_node("pgrep", "-f", pattern, check=False)
    return sorted(map(int, found.stdout.split()))


async def usage_of(pids: Iterable[int]) -> dict[int, Usage]:
    """What processes of the node use now; one that has ended is missing."""
    printed = await on_node("bash", "-c", _USAGE, "usage", *map(str, pids), check=False)
    usage = {}
    for line in printed.stdout.splitlines():
        pid, *numbers = line.split()
        if len(numbers) < 3:
            continue
        tasks = int(float(numbers[4])) if len(numbers) > 4 else None
        usage[int(pid)] = Usage(int(numbers[0]) / 1024, int(numbers[1]), int(numbers[2]), tasks)
    return usage


def _more(before: NodeState, now: NodeState) -> list[str]:
    return [
        f"{name}: {line}"
        for name, lines in now.items()
        for line in (Counter(lines) - Counter(before[name])).elements()
    ]
