"""How long a recovery takes after kill -9 of QEMU, of the launcher, of libvirtd, of the handler."""

import time

from tests.faults.history import History, Seen, recording
from tests.faults.strike import Victim, pids_of, strike, uid_of_pod
from tests.perf.measure import Figure
from tests.support.cluster import Cluster, namespace
from tests.support.machine import Machine, vm, vmi

SAMPLES = 3
PATIENCE_S = 40.0


async def recovery(samples: int = SAMPLES) -> list[Figure]:
    """The handler is killed once only: the kubelet delays what it restarts again and again."""
    launcher_s: list[float] = []
    async with (
        namespace(f"perf-recovery-{int(time.time())}") as cluster,
        recording(cluster) as history,
    ):
        await cluster.apply(vmi("guest"))
        guest = Machine(cluster, "guest")
        await guest.console_shows("guest login:")
        uid = await uid_of_pod(guest)
        qemu = await pids_of(Victim.QEMU, uid)
        for _ in range(samples):
            struck_s = await strike([Victim.LAUNCHER], uid)
            launcher_s.append(
                await history.until_right("guest", since_s=struck_s, within_s=PATIENCE_S)
            )
        struck_s = await strike([Victim.HANDLER], uid)
        handler_s = await history.until_right("guest", since_s=struck_s, within_s=PATIENCE_S)
        assert await pids_of(Victim.QEMU, uid) == qemu, "the guest has suffered"
        failed_s = [await _qemu_killed(cluster, history, f"mortal{n}") for n in range(samples)]
        again_s = [await _back_again(cluster, history, f"phoenix{n}") for n in range(samples)]
    return [
        Figure("launcher", "launcher killed → managed again", "s", launcher_s, 3, 38),
        Figure("handler", "handler killed → serving again, state right", "s", [handler_s], 2, 23),
        Figure("qemu_failed", "QEMU killed → VMI Failed", "s", failed_s, 0.5, 0.9),
        Figure("qemu_always", "QEMU killed → VM with Always Running again", "s", again_s, 3, 8.6),
    ]


async def _qemu_killed(cluster: Cluster, history: History, name: str) -> float:
    await cluster.apply(vmi(name))
    machine = Machine(cluster, name)
    await machine.running()
    struck_s = await strike([Victim.QEMU], await uid_of_pod(machine))
    failed = await history.first(
        "vmi", name, lambda seen: seen.phase == "Failed", within_s=PATIENCE_S, what="Failed"
    )
    await cluster.kubectl("delete", "vmi", name, "--wait=false")
    return failed.at_s - struck_s


async def _back_again(cluster: Cluster, history: History, name: str) -> float:
    await cluster.apply(vm(name))
    machine = Machine(cluster, name)
    uid = (await machine.running())["metadata"]["uid"]
    struck_s = await strike([Victim.QEMU], await uid_of_pod(machine))

    def is_successor(seen: Seen) -> bool:
        return (
            seen.state is not None
            and seen.state["metadata"]["uid"] != uid
            and seen.phase == "Running"
        )

    again = await history.first(
        "vmi", name, is_successor, within_s=PATIENCE_S, what="another instance runs"
    )
    await cluster.kubectl("delete", "vm", name, "--wait=false")
    return again.at_s - struck_s
