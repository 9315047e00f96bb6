"""How a machine ends, and what its run strategy makes of that."""

import asyncio
import time

import pytest

from tests.support.cluster import Cluster, Json
from tests.support.machine import Machine, gone, phase_is, user_data, vm, vmi, vmi_spec


async def test_shutdown_is_seen_on_the_console(cluster: Cluster) -> None:
    """Deleting a machine presses its power button: the guest's own shutdown messages are in the console log."""
    await cluster.apply(vmi("calm"))
    machine = Machine(cluster, "calm")
    await machine.console_shows(r"calm login:")
    async with machine.console() as chunks:
        deletion = asyncio.create_task(
            cluster.kubectl("delete", "vmi", "calm", "--timeout=20s"), name="delete"
        )
        text = "".join([chunk async for chunk in chunks])
        await deletion
    assert "Requesting system poweroff" in text or "reboot: Power down" in text, text[-2000:]


async def test_guest_that_ignores_the_button_is_destroyed(cluster: Cluster) -> None:
    """After the grace period a deaf guest is destroyed, not sooner and not much later."""
    spec = vmi_spec("deaf", terminationGracePeriodSeconds=3)
    spec["volumes"][1]["cloudInitNoCloud"]["userData"] = user_data(
        "deaf", "runcmd:", "  - killall acpid"
    )
    await cluster.apply(
        {
            "apiVersion": "kubevirt.io/v1",
            "kind": "VirtualMachineInstance",
            "metadata": {"name": "deaf"},
            "spec": spec,
        }
    )
    machine = Machine(cluster, "deaf")
    await machine.console_shows(r"deaf login:")
    started = time.monotonic()
    await cluster.kubectl("delete", "vmi", "deaf", "--timeout=20s")
    took_s = time.monotonic() - started
    assert 3 <= took_s <= 8, took_s
    assert await cluster.all("pods") == []


async def test_kubelet_ends_the_pod_and_a_new_instance_comes_up(cluster: Cluster) -> None:
    """`kubectl delete pod` shuts the guest down cleanly; runStrategy Always brings another instance."""
    await cluster.apply(vm("phoenix"))
    machine = Machine(cluster, "phoenix")
    first = await machine.running()
    await machine.console_shows(r"phoenix login:")
    pod = (await machine.pod())["metadata"]["name"]
    async with machine.console() as chunks:
        deletion = asyncio.create_task(
            cluster.kubectl("delete", "pod", pod, "--timeout=40s"), name="delete"
        )
        text = "".join([chunk async for chunk in chunks])
        await deletion
    assert "Requesting system poweroff" in text or "reboot: Power down" in text, text[-2000:]
    second = await machine.running(not_uid=first["metadata"]["uid"])
    assert second["metadata"]["uid"] != first["metadata"]["uid"]


@pytest.mark.parametrize("strategy", ["Once", "RerunOnFailure"])
async def test_poweroff_inside_the_guest_is_an_end(cluster: Cluster, strategy: str) -> None:
    """A guest that powers itself off has succeeded, and nothing starts it again."""
    name = "sleeper"
    await cluster.apply(vm(name, run_strategy=strategy))
    machine = Machine(cluster, name)
    first = await machine.running()
    await machine.console_shows(rf"{name} login:")
    await machine.ssh("poweroff", check=False)

    def stopped(state: Json | None) -> bool:
        return bool(state and state.get("status", {}).get("printableStatus") == "Stopped")

    state = await cluster.until("vm", name, stopped, within_s=30, what="printableStatus Stopped")
    assert state is not None
    instance = await cluster.get("vmi", name)
    if strategy == "Once":
        assert instance is not None
        assert instance["status"]["phase"] == "Succeeded"
    assert instance is None or instance["metadata"]["uid"] == first["metadata"]["uid"]


async def test_poweroff_with_always_is_a_restart(cluster: Cluster) -> None:
    """runStrategy Always starts a guest again that powered itself off."""
    await cluster.apply(vm("always"))
    machine = Machine(cluster, "always")
    first = await machine.running()
    await machine.console_shows(r"always login:")
    await machine.ssh("poweroff", check=False)
    await machine.running(not_uid=first["metadata"]["uid"])


async def test_halted_stops_and_always_starts(cluster: Cluster) -> None:
    """Editing runStrategy starts and stops the machine."""
    await cluster.apply(vm("switch", run_strategy="Halted"))
    assert await cluster.get("vmi", "switch") is None
    await cluster.kubectl(
        "patch", "vm", "switch", "--type=merge", "-p", '{"spec":{"runStrategy":"Always"}}'
    )
    machine = Machine(cluster, "switch")
    await machine.running()
    await cluster.kubectl(
        "patch", "vm", "switch", "--type=merge", "-p", '{"spec":{"runStrategy":"Halted"}}'
    )
    await cluster.until("vmi", "switch", gone, within_s=20, what="the instance is gone")

    def stopped(state: Json | None) -> bool:
        return bool(state and state.get("status", {}).get("printableStatus") == "Stopped")

    await cluster.until("vm", "switch", stopped, within_s=5, what="printableStatus Stopped")


async def test_instance_alone_runs_once(cluster: Cluster) -> None:
    """A VirtualMachineInstance without a VirtualMachine ends with its guest and stays to be read."""
    await cluster.apply(vmi("single"))
    machine = Machine(cluster, "single")
    await machine.console_shows(r"single login:")
    await machine.ssh("poweroff", check=False)
    await cluster.until("vmi", "single", phase_is("Succeeded"), within_s=30, what="phase Succeeded")
    await cluster.kubectl("delete", "vmi", "single", "--timeout=15s")
    assert await cluster.all("pods") == []
