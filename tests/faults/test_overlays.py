"""What ends with the instance: kept as long as its guest runs, whoever else dies, and gone at its next start."""

import pytest

from tests.faults.guest import counting_vm, lived_on, witness_of
from tests.faults.history import History
from tests.faults.strike import Victim, strike, uid_of_pod
from tests.support.cluster import Cluster, Json, on_node
from tests.support.disks import read, with_disk, write
from tests.support.machine import Machine
from tests.support.storage import local_volume

pytestmark = pytest.mark.one_machine

MIB = 1 << 20
DISKS = ("root", "base", "spare")
BLOWS = (
    (Victim.LAUNCHER,),
    (Victim.LIBVIRTD,),
    (Victim.HANDLER,),
    (Victim.LAUNCHER, Victim.LIBVIRTD, Victim.HANDLER),
)


async def test_what_ends_with_the_instance(cluster: Cluster, history: History) -> None:
    """Overlays of a container's image and of a claim, and an empty disk: a guest reads what it wrote after each blow, and the next
    instance reads none of it."""
    async with local_volume(cluster, "base", 24 * MIB, "Block") as base:
        pristine = "printf original | dd of={} bs=1M seek=1 conv=notrunc,fsync"
        await on_node("sh", "-c", pristine.format(base.path))
        await cluster.apply(_layered())
        machine = Machine(cluster, "layered")
        await machine.console_shows("layered login:")
        first = await machine.running()
        before = await witness_of(machine)
        fresh = [await read(machine, disk, 8) for disk in DISKS]
        assert fresh[1:] == ["original", "." * 8]

        for number, victims in enumerate(BLOWS):
            words = f"before {number}"
            for disk in DISKS:
                await write(machine, disk, words)
            struck_s = await strike(victims, await uid_of_pod(machine))
            for disk in DISKS:
                assert await read(machine, disk, len(words)) == words, (disk, victims)
            if victims != (Victim.LIBVIRTD,):
                await history.until_right("layered", since_s=struck_s, within_s=20)
        await lived_on(machine, before)

        await cluster.kubectl("delete", "vmi", "layered", "--timeout=30s")
        await machine.running(within_s=60, not_uid=first["metadata"]["uid"])
        await machine.console_shows("layered login:")
        assert [await read(machine, disk, 8) for disk in DISKS] == fresh
        await cluster.kubectl("delete", "vm", "layered", "--timeout=30s")


def _layered() -> Json:
    manifest = counting_vm("layered")
    devices = manifest["spec"]["template"]["spec"]["domain"]["devices"]
    devices["disks"][0]["serial"] = "root"
    ephemeral = {"ephemeral": {"persistentVolumeClaim": {"claimName": "base"}}}
    with_disk(manifest, "base", ephemeral)
    return with_disk(manifest, "spare", {"emptyDisk": {"capacity": "24Mi"}})
