"""What a guest has written and synced is on its volumes, whatever ends the guest; another pod reads it there."""

import pytest

from tests.faults.strike import Victim, strike, uid_of_pod
from tests.support.cluster import Cluster
from tests.support.disks import claimed, read, with_disk, write
from tests.support.machine import Machine, vm
from tests.support.storage import local_volume, look_into

pytestmark = pytest.mark.one_machine

MIB = 1 << 20
VOLUMES = ("file", "block")


async def _write_both(machine: Machine, text: str) -> None:
    for serial in VOLUMES:
        await write(machine, serial, text)


async def _both_have(machine: Machine, text: str) -> None:
    for serial in VOLUMES:
        assert await read(machine, serial, len(text)) == text


@pytest.mark.timeout(240)
async def test_synced_data_outlives_its_guest(cluster: Cluster) -> None:
    """QEMU killed, the pod deleted, libvirtd and launcher killed, powered off by itself, the machine deleted."""
    async with (
        local_volume(cluster, "file", 64 * MIB),
        local_volume(cluster, "block", 64 * MIB, "Block"),
    ):
        manifest = with_disk(vm("keeper"), "file", claimed("file"))
        await cluster.apply(with_disk(manifest, "block", claimed("block")))
        machine = Machine(cluster, "keeper")
        instance = await machine.running()
        await machine.console_shows("keeper login:")

        async def next_instance() -> None:
            nonlocal instance
            instance = await machine.running(within_s=60, not_uid=instance["metadata"]["uid"])
            await machine.console_shows("keeper login:")

        await _write_both(machine, "before QEMU was killed")
        await strike([Victim.QEMU], await uid_of_pod(machine))
        await next_instance()
        await _both_have(machine, "before QEMU was killed")

        await _write_both(machine, "before the pod was deleted")
        pod = await machine.pod()
        await cluster.kubectl("delete", "pod", pod["metadata"]["name"], "--wait=false")
        await next_instance()
        await _both_have(machine, "before the pod was deleted")

        await _write_both(machine, "before the daemons were killed")
        await strike([Victim.LIBVIRTD, Victim.LAUNCHER], await uid_of_pod(machine))
        await _both_have(machine, "before the daemons were killed")

        await _write_both(machine, "before it was powered off")
        await machine.ssh("poweroff", check=False)
        await next_instance()
        await _both_have(machine, "before it was powered off")

        await _write_both(machine, "before it was deleted")
        await cluster.kubectl("delete", "vm", "keeper", "--timeout=40s")
        for volume, where in (("file", "/claim/disk.img"), ("block", "/dev/claim")):
            script = f"dd if={where} bs=1M skip=1 count=1 | head -c 21"
            assert await look_into(cluster, volume, script) == "before it was deleted"
