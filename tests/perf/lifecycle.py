"""What starting, restarting and stopping a VirtualMachine costs, and deleting an instance that is paused."""

import time
from collections.abc import Callable
from typing import Any

from tests.perf.measure import Figure, audit_mark, writes_since
from tests.perf.observer import Observer, observing
from tests.perf.start import manifest, pull
from tests.support.cluster import Cluster, Json, namespace
from tests.support.machine import Machine, vm

SAMPLES = 3


async def lifecycle(samples: int = SAMPLES) -> list[Figure]:
    """Start, restart (the instance deleted under runStrategy Always) and stop one machine, as often as told."""
    times: dict[str, list[float]] = {"start": [], "restart": [], "stop": []}
    objects: dict[str, list[float]] = {key: [] for key in times}
    events: dict[str, list[float]] = {key: [] for key in times}
    async with (
        namespace(f"perf-vm-{int(time.time())}") as cluster,
        observing(cluster.namespace) as observer,
    ):
        await pull(observer)
        await observer.create(_machine("m"))
        for number in range(samples):
            for action, act in (("start", _start), ("restart", _restart), ("stop", _stop)):
                mark = audit_mark()
                times[action].append(await act(observer))
                await _settled(cluster, observer, action)
                writes = writes_since(mark, cluster.namespace)
                objects[action].append(writes.objects)
                events[action].append(writes.events)
            print(
                f"» machine {number + 1}: "
                + ", ".join(f"{action} {spent[-1]:.2f} s" for action, spent in times.items()),
                flush=True,
            )
        paused = [await _delete_paused(cluster, observer, f"p{n}") for n in range(samples)]
    limits: dict[str, tuple[float | None, float, float, float, float, float]] = {
        "start": (None, 3.92, 10, 20.7, 3, 4),
        "restart": (3, 8.90, 16, 29.8, 6, 11.5),
        "stop": (None, 5.19, 8, 15.8, 3, 8),
    }
    found = [Figure("paused", "delete of a paused VMI → gone", "s", paused, 5, 50)]
    for action, (within_s, theirs_s, o_budget, o_theirs, e_budget, e_theirs) in limits.items():
        found += [
            Figure(f"{action}", f"VM {action}", "s", times[action], within_s, theirs_s),
            Figure(f"writes_{action}_object", f"our object writes of one VM {action}", "1", objects[action], o_budget, o_theirs),
            Figure(f"writes_{action}_event", f"our events of one VM {action}", "1", events[action], e_budget, e_theirs),
        ]  # fmt: skip
    return found


def _machine(name: str) -> dict[str, Any]:
    content = vm(name, run_strategy="Halted")
    content["spec"]["template"]["spec"] = manifest(name)["spec"]
    return content


def _printable(status: str) -> Callable[[Json | None], bool]:
    return lambda state: bool(state) and (state or {}).get("status", {}).get("printableStatus") == status  # fmt: skip


async def _start(observer: Observer) -> float:
    sent_s = await observer.set_strategy("m", "Always")
    return await observer.running("m", after_s=sent_s) - sent_s


async def _restart(observer: Observer) -> float:
    # The guest is up, so that the time its own shutdown takes is the same every time.
    uid = observer.instance("m").metadata.uid
    sent_s = await observer.delete("m")
    return await observer.running("m", after_s=sent_s, not_uid=uid) - sent_s


async def _stop(observer: Observer) -> float:
    sent_s = await observer.set_strategy("m", "Halted")
    return await observer.gone("m", after_s=sent_s) - sent_s


async def _settled(cluster: Cluster, observer: Observer, action: str) -> None:
    """Wait until the machine's status has followed, and until a running guest can hear a shutdown."""
    status = "Stopped" if action == "stop" else "Running"
    await cluster.until("vm", "m", _printable(status), within_s=20, what=status)
    if action != "stop":
        await observer.login("m")


async def _delete_paused(cluster: Cluster, observer: Observer, name: str) -> float:
    """A paused guest hears no request to shut down."""
    sent_s = await observer.create(manifest(name))
    await observer.running(name, after_s=sent_s)
    await observer.login(name)
    domain = f"{cluster.namespace}_{name}"
    pod = (await Machine(cluster, name).pod())["metadata"]["name"]
    await cluster.kubectl("exec", pod, "-c", "compute", "--", "virsh", "suspend", domain)
    sent_s = await observer.delete(name)
    return await observer.gone(name, after_s=sent_s) - sent_s
