"""What starting, restarting and stopping a VirtualMachine costs, and deleting an instance that is paused."""

import time
from collections.abc import Callable

from tests.perf.measure import Figure, audit_mark, writes_since
from tests.support.cluster import Cluster, Json, namespace
from tests.support.machine import Machine, gone, vm

SAMPLES = 3


async def lifecycle(samples: int = SAMPLES) -> list[Figure]:
    """Start, restart (the instance deleted under runStrategy Always) and stop one machine, as often as told."""
    times: dict[str, list[float]] = {"start": [], "restart": [], "stop": []}
    objects: dict[str, list[float]] = {key: [] for key in times}
    events: dict[str, list[float]] = {key: [] for key in times}
    async with namespace(f"perf-vm-{int(time.time())}") as cluster:
        machine = Machine(cluster, "m")
        await cluster.apply(vm("m", run_strategy="Halted"))
        for number in range(samples):
            for action, act in (("start", _start), ("restart", _restart), ("stop", _stop)):
                mark, began = audit_mark(), time.monotonic()
                await act(cluster, machine)
                times[action].append(time.monotonic() - began)
                await _settled(cluster, action)
                writes = writes_since(mark, cluster.namespace)
                objects[action].append(writes.objects)
                events[action].append(writes.events)
            print(
                f"» machine {number + 1}: "
                + ", ".join(f"{action} {spent[-1]:.2f} s" for action, spent in times.items()),
                flush=True,
            )
    limits: dict[str, tuple[float | None, float, float, float, float, float]] = {
        "start": (None, 3.92, 10, 20.7, 3, 4),
        "restart": (3, 8.90, 16, 29.8, 6, 11.5),
        "stop": (None, 5.19, 8, 15.8, 3, 8),
    }
    found = []
    for action, (within_s, theirs_s, o_budget, o_theirs, e_budget, e_theirs) in limits.items():
        found += [
            Figure(f"{action}", f"VM {action}", "s", times[action], within_s, theirs_s),
            Figure(f"writes_{action}_object", f"our object writes of one VM {action}", "1", objects[action], o_budget, o_theirs),
            Figure(f"writes_{action}_event", f"our events of one VM {action}", "1", events[action], e_budget, e_theirs),
        ]  # fmt: skip
    return found


def _printable(status: str) -> Callable[[Json | None], bool]:
    return lambda state: bool(state) and (state or {}).get("status", {}).get("printableStatus") == status  # fmt: skip


async def _strategy(cluster: Cluster, strategy: str) -> None:
    patch = f'{{"spec":{{"runStrategy":"{strategy}"}}}}'
    await cluster.kubectl("patch", "vm", "m", "--type=merge", "-p", patch)


async def _start(cluster: Cluster, machine: Machine) -> None:
    await _strategy(cluster, "Always")
    await machine.running()


async def _restart(cluster: Cluster, machine: Machine) -> None:
    # The guest is up, so that the time its own shutdown takes is the same every time.
    before = await cluster.get("vmi", "m")
    assert before is not None
    await cluster.kubectl("delete", "vmi", "m", "--wait=false")
    await machine.running(not_uid=before["metadata"]["uid"])


async def _stop(cluster: Cluster, machine: Machine) -> None:
    await _strategy(cluster, "Halted")
    await cluster.until("vmi", "m", gone, within_s=60, what="gone")


async def _settled(cluster: Cluster, action: str) -> None:
    """Wait until the machine's status has followed, and until a running guest can hear a shutdown."""
    status = "Stopped" if action == "stop" else "Running"
    await cluster.until("vm", "m", _printable(status), within_s=20, what=status)
    if action != "stop":
        await Machine(cluster, "m").console_shows("m login:", within_s=60)
