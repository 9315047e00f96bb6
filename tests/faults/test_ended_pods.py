"""A guest that dies, or a pod that is taken away under it: seen at once, said as it is, and never two writers of one disk."""

import asyncio
import time
from collections.abc import Iterable

from tests.faults.guest import counting_vm
from tests.faults.history import History, Seen
from tests.faults.measured import Measured
from tests.faults.strike import Victim, pids_of, strike, uid_of_pod
from tests.faults.writers import Writers, watching_writers
from tests.support.cluster import Cluster, Json, on_node
from tests.support.machine import Machine, pod_processes

FAILED_S = 1.0
# All that is in a container goes with its first process; a guest's memory takes a moment to be given back.
CONTAINER_EMPTY_S = 1.0
# The kubelet alone decides: it looks at the containers once a second, and having seen both ended it waits for its next look
# before it takes the sandbox down and says so. 1.1 to 2.2 s when it has a processor.
POD_TERMINAL_S = 3.5
# A crash restarts at once the first time; the new instance needs a pod.
NEXT_INSTANCE_S = 10.0
TIDY_UP_S = 5.0


async def _running(
    cluster: Cluster, name: str, *, run_strategy: str = "Always"
) -> tuple[Machine, str]:
    """A new VM, and the uid of its first instance, which runs."""
    await cluster.apply(counting_vm(name, run_strategy=run_strategy))
    machine = Machine(cluster, name)
    return machine, (await machine.running())["metadata"]["uid"]


def _failed(seen: Seen) -> bool:
    return seen.phase == "Failed"


async def _next_instance(
    history: History, machine: Machine, first_uid: str, since_s: float
) -> float:
    """Wait until another instance of the machine runs; how long after `since_s` that was, in seconds."""
    seen = await history.first(
        "vmi",
        machine.name,
        lambda seen: seen.is_right and (seen.state or {})["metadata"]["uid"] != first_uid,
        within_s=40,
        what="another instance runs",
    )
    return seen.at_s - since_s


async def _nothing_is_left_of(pod_uid: str) -> None:
    assert await pod_processes(pod_uid) == {}


async def _sandbox_goes_soon(pod_uid: str) -> None:
    """What the next instance does not wait for: the kubelet removes the last of the pod."""
    try:
        async with asyncio.timeout(TIDY_UP_S):
            while await pod_processes(pod_uid):
                pass  # a look costs the time of a process
    except TimeoutError:
        raise AssertionError(f"left: {await pod_processes(pod_uid)}") from None


async def _ended_at_s(pids: Iterable[int]) -> float:
    """When the last of the node's processes had ended, in seconds of time.time()."""
    look = "; ".join(f"while [ -d /proc/{pid} ]; do sleep 0.01; done" for pid in pids)
    return float((await on_node("sh", "-c", f"{look}; date +%s.%N")).stdout)


async def _only_one_at_a_time(writers: Writers, *, instances: int) -> None:
    await writers.until(lambda: len(writers.all) >= instances)
    assert writers.most == 1, writers
    assert len(writers.all) == instances, writers


async def test_killed_qemu_with_always(
    cluster: Cluster, history: History, measured: Measured
) -> None:
    """kill -9 of QEMU: Failed within a second, with the reason; runStrategy Always brings another instance."""
    machine, first_uid = await _running(cluster, "mortal")
    pod_uid = await uid_of_pod(machine)
    async with watching_writers(machine) as writers:
        struck_s = await strike([Victim.QEMU], pod_uid)
        failed = await history.first("vmi", "mortal", _failed, within_s=10, what="Failed")
        assert failed.condition("Ready") == ("False", "GuestNotRunning")
        assert (failed.state or {})["status"]["reason"] == "GuestCrashed"
        again_s = await _next_instance(history, machine, first_uid, struck_s)
        await _only_one_at_a_time(writers, instances=2)
    await _sandbox_goes_soon(pod_uid)
    measured.add("kill -9 QEMU, VMI Failed", failed.at_s - struck_s, limit_s=FAILED_S)
    measured.add("kill -9 QEMU, next instance Running", again_s, limit_s=NEXT_INSTANCE_S)
    await cluster.kubectl("delete", "vm", "mortal", "--wait=false")


async def test_killed_qemu_with_once(
    cluster: Cluster, history: History, measured: Measured
) -> None:
    """kill -9 of QEMU: runStrategy Once leaves the failed instance to be read."""
    machine, first_uid = await _running(cluster, "once", run_strategy="Once")
    struck_s = await strike([Victim.QEMU], await uid_of_pod(machine))
    failed = await history.first("vmi", "once", _failed, within_s=10, what="Failed")
    stopped = await history.first(
        "vm", "once", lambda seen: seen.phase == "Stopped", within_s=10, what="the VM is Stopped"
    )
    assert stopped.condition("Ready")[0] == "False"
    state = history.last("vmi", "once")
    assert state.phase == "Failed"
    assert (state.state or {})["metadata"]["uid"] == first_uid
    measured.add("kill -9 QEMU, VMI Failed", failed.at_s - struck_s, limit_s=FAILED_S)
    await cluster.kubectl("delete", "vm", "once", "--wait=false")


async def test_killed_first_process(cluster: Cluster, history: History, measured: Measured) -> None:
    """kill -9 of PID 1 of `compute`: nothing is left in it, the instance has failed before the kubelet says that the pod has,
    and the next one is alone with its disk."""
    machine, first_uid = await _running(cluster, "rootless")
    pod = (await machine.pod())["metadata"]
    victims = [
        pid for pid, command in (await pod_processes(pod["uid"])).items() if "/pause" not in command
    ]
    async with watching_writers(machine) as writers, cluster.watching("pod", pod["name"]) as states:
        struck_s = await strike([Victim.SUPERVISOR], pod["uid"])
        empty_s = await _ended_at_s(victims) - struck_s
        terminal: Json | None = None
        async for terminal in states:
            if terminal is None or terminal["status"]["phase"] in ("Failed", "Succeeded"):
                break
        terminal_s = time.time() - struck_s
        assert terminal is not None
        assert terminal["status"]["phase"] == "Failed"
        failed = await history.first("vmi", "rootless", _failed, within_s=10, what="Failed")
        assert (failed.state or {})["status"]["reason"] == "PodFailed"
        again_s = await _next_instance(history, machine, first_uid, struck_s)
        await _only_one_at_a_time(writers, instances=2)
    await _sandbox_goes_soon(pod["uid"])
    measured.add("kill -9 PID 1, no process left", empty_s, limit_s=CONTAINER_EMPTY_S)
    measured.add("kill -9 PID 1, VMI Failed", failed.at_s - struck_s, limit_s=FAILED_S)
    measured.add("kill -9 PID 1, pod terminal", terminal_s, limit_s=POD_TERMINAL_S)
    measured.add("kill -9 PID 1, next instance Running", again_s, limit_s=NEXT_INSTANCE_S)
    await cluster.kubectl("delete", "vm", "rootless", "--wait=false")


async def test_pod_deleted_by_force(cluster: Cluster, history: History, measured: Measured) -> None:
    """`kubectl delete pod --force --grace-period=0`: the next instance comes only when nothing of the old one is left."""
    machine, first_uid = await _running(cluster, "forced")
    pod = (await machine.pod())["metadata"]
    async with watching_writers(machine) as writers:
        struck_s = time.time()
        await cluster.kubectl("delete", "pod", pod["name"], "--force", "--grace-period=0")
        again_s = await _next_instance(history, machine, first_uid, struck_s)
        await _nothing_is_left_of(pod["uid"])
        await _only_one_at_a_time(writers, instances=2)
    ends = [seen for seen in history.of("vmi", "forced") if seen.phase in ("Failed", "Succeeded")]
    assert ends, history
    measured.add("pod deleted by force, next instance Running", again_s, limit_s=30)
    await cluster.kubectl("delete", "vm", "forced", "--wait=false")


async def test_killed_console_log(cluster: Cluster, history: History) -> None:
    """kill -9 of the program that copies the serial log: the guest runs on, can be asked about, and can be ended."""
    machine, _ = await _running(cluster, "unheard")
    pod = (await machine.pod())["metadata"]
    await machine.console_shows("unheard login:")
    qemu = await pids_of(Victim.QEMU, pod["uid"])
    await strike([Victim.CONSOLE_LOG], pod["uid"])

    def ended(state: Json | None) -> bool:
        containers = (state or {}).get("status", {}).get("containerStatuses", [])
        return any("terminated" in c["state"] for c in containers)

    await cluster.until("pod", pod["name"], ended, within_s=20, what="guest-console-log has ended")
    assert await pids_of(Victim.QEMU, pod["uid"]) == qemu
    await on_node(
        "grpcurl", "-plaintext", "-max-time", "5", "-unix",
        f"/run/podvisor/launchers/{cluster.namespace}_unheard.sock",
        "podvisor.launcher.v1.LauncherService/GetDomainXml",
    )  # fmt: skip
    assert history.last("vmi", "unheard").is_right
    await cluster.kubectl("delete", "vm", "unheard", "--timeout=30s")
    await _nothing_is_left_of(pod["uid"])
    assert "Failed" not in history.phases("vmi", "unheard"), history
