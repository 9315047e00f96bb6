"""How many programs begin in a machine's pod until its guest has booted: each costs what loading and linking it costs.

Invariant: the machine is the only one that is started meanwhile. The runtime's own programs, which every pod has, are not counted.
"""

import re
import time

from tests.perf.measure import Figure
from tests.support.cluster import namespace
from tests.support.machine import Machine, vmi
from tests.support.tracing import calls, traced

BUDGET = 6
# What sets a pod up, and holds its namespaces.
_RUNTIMES = re.compile(
    r"/opt/cni/|/proc/self/|/usr/s?bin/(ip6?tables|nft)|.*/(runc|containerd-shim-runc-v2|pause)$"
)


async def programs() -> list[Figure]:
    """Of a machine that boots from a container disk, as the demo's does."""
    async with (
        namespace(f"perf-programs-{int(time.time())}") as cluster,
        traced("^containerd", "-e trace=execve"),
    ):
        await cluster.apply(vmi("counted"))
        await Machine(cluster, "counted").console_shows("counted login:")
        begun = [
            path for lines in (await calls()).values() for path in map(_program, lines) if path
        ]
    print(f"» begun: {' '.join(sorted(begun))}", flush=True)
    return [
        Figure("programs", "programs begun in a pod, create → login", "1", [len(begun)], BUDGET)
    ]


def _program(call: str) -> str | None:
    """What a call has begun; None when it has failed, or begun what is the runtime's."""
    found = re.match(r'execve\("([^"]+)"', call)
    if found is None or " ENOENT " in call or _RUNTIMES.match(found[1]):
        return None
    return found[1]
