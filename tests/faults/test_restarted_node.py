"""The node's own daemons, and the node: guests outlive the kubelet and the container runtime, and are started again when
the node comes back."""

import time

import pytest

from tests.faults.guest import booted, counting_vm, counting_vmi, lived_on, witness_of
from tests.faults.history import History
from tests.faults.measured import Measured
from tests.faults.strike import uid_of_pod
from tests.support.cluster import ROOT, Cluster, on_node
from tests.support.disks import claimed, read, with_disk, write
from tests.support.machine import Machine, gone, pod_processes
from tests.support.process import run
from tests.support.storage import local_volume

MIB = 1 << 20


@pytest.mark.parametrize("daemon", ["kubelet", "containerd"])
async def test_restarted_daemon(
    cluster: Cluster, survivor: Machine, history: History, daemon: str
) -> None:
    """kill -9: the node starts it again; guests do not notice, and new machines start."""
    before = await witness_of(survivor)
    await on_node("pkill", "-9", "-x", daemon)
    name = f"after-{daemon}"
    await cluster.apply(counting_vmi(name))
    await Machine(cluster, name).running(within_s=60)
    await lived_on(survivor, before)
    assert history.phases("vmi", survivor.name) == {"Running"}, history
    assert {seen.condition("Ready")[0] for seen in history.of("vmi", survivor.name)} == {"True"}
    await cluster.kubectl("delete", "vmi", name, "--timeout=30s")
    await cluster.until("vmi", name, gone, within_s=5, what="gone")


@pytest.mark.timeout(240)
async def test_restarted_node(cluster: Cluster, history: History, measured: Measured) -> None:
    """The node goes down and comes back: the VM runs again, in a new pod, with what its guest had synced to its claims, and nothing
    of the old one is left."""
    async with (
        local_volume(cluster, "file", 64 * MIB) as file,
        local_volume(cluster, "block", 64 * MIB, "Block"),
    ):
        manifest = with_disk(counting_vm("reborn"), "file", claimed("file"))
        machine = await booted(cluster, with_disk(manifest, "block", claimed("block")))
        first = await machine.running()
        old_pod = await uid_of_pod(machine)
        for serial in ("file", "block"):
            await write(machine, serial, "synced")
        down_s = time.time()
        await _restart_node()
        await file.mount_again()
        second = await machine.running(within_s=120, not_uid=first["metadata"]["uid"])
        assert second["status"]["nodeName"] == "node1"
        assert await pod_processes(old_pod) == {}
        await machine.console_shows(r"reborn login:")
        await witness_of(machine)
        assert [await read(machine, serial, 6) for serial in ("file", "block")] == ["synced"] * 2
        ends = [seen for seen in history.of("vmi", "reborn") if seen.phase == "Failed"]
        assert ends, history
        back = [seen for seen in history.of("vmi", "reborn") if seen.is_right][-1]
        measured.add("node restarted, VM Running again", back.at_s - down_s, limit_s=120)
        left = await on_node("sh", "-c", f"ls -d /var/lib/kubelet/pods/{old_pod}", check=False)
        assert left.stdout == "", left.stdout
        await cluster.kubectl("delete", "vm", "reborn", "--timeout=30s")


async def _restart_node() -> None:
    await run("bash", "-c", f". {ROOT}/dev/env && docker restart podvisor-node1-1", timeout_s=60)
