"""Images on a node as disks, which the cluster's owner has to allow."""

from collections.abc import AsyncIterator, Callable

import pytest

from tests.support.cluster import Cluster, Json, on_node
from tests.support.disks import guest_disks, read, with_disk, write
from tests.support.machine import Machine, condition, vm, vmi
from tests.support.settings import Configure

pytestmark = pytest.mark.alone

MIB = 1 << 20
ALLOWED: Json = {"developerConfiguration": {"featureGates": ["HostDisk"]}}


@pytest.fixture
async def directory(cluster: Cluster) -> AsyncIterator[str]:
    """A directory of the node that is root's."""
    path = f"/var/lib/{cluster.namespace}-disks"
    await on_node("mkdir", "-m", "755", path)
    yield path
    await on_node("rm", "-rf", path)


async def test_disk_of_the_node_needs_its_feature_gate(cluster: Cluster, directory: str) -> None:
    """Refused by the field and the gate, and nothing is made on the node."""
    manifest = with_disk(vm("tempted"), "node", _made(f"{directory}/new.img", 16))
    refused = await cluster.refused(manifest)
    assert "volumes[2].hostDisk needs the feature gate HostDisk" in refused
    assert (await on_node("ls", directory)).stdout == ""


async def test_disks_of_the_node(cluster: Cluster, configure: Configure, directory: str) -> None:
    """One that is there and one that is made, in a directory of root's; what a guest wrote stays for the next instance. When the
    gate is closed, the guest goes on, and the machine gets no other instance and says why."""
    there, made = f"{directory}/there.img", f"{directory}/made.img"
    await on_node("sh", "-c", f"truncate -s 8M {there}")
    await configure(ALLOWED)
    manifest = with_disk(vm("local"), "made", _made(made, 16))
    with_disk(manifest, "there", {"hostDisk": {"path": there, "type": "Disk"}})
    await cluster.apply(manifest)
    machine = Machine(cluster, "local")
    await machine.console_shows("local login:")
    disks = await guest_disks(machine)
    assert (disks["made"].size_bytes, disks["there"].size_bytes) == (16 * MIB, 8 * MIB)
    for serial in ("made", "there"):
        await write(machine, serial, "kept")
    assert (await on_node("stat", "-c", "%s %u", made)).stdout.split() == [str(16 * MIB), "107"]
    found = await on_node("sh", "-c", f"dd if={there} bs=1M skip=1 count=1 2>/dev/null | head -c 4")
    assert found.stdout == "kept"

    first = await machine.running()
    await cluster.kubectl("delete", "vmi", "local", "--timeout=30s")
    await machine.running(not_uid=first["metadata"]["uid"])
    await machine.console_shows("local login:")
    assert [await read(machine, serial, 4) for serial in ("made", "there")] == ["kept"] * 2

    await configure({"developerConfiguration": {"featureGates": []}})
    assert await read(machine, "made", 4) == "kept"
    await cluster.kubectl("delete", "vmi", "local", "--timeout=30s")

    def says_why(state: Json | None) -> bool:
        failure = condition(state, "Failure")
        return "needs the feature gate HostDisk" in failure.get("message", "")

    await cluster.until("vm", "local", says_why, within_s=30, what="the gate is named")
    assert await cluster.get("vmi", "local") is None


async def test_what_is_no_disk_of_the_node(
    cluster: Cluster, configure: Configure, directory: str
) -> None:
    """Type Disk makes none, and a file with another name may be somebody else's: the machine says so of the volume, and starts
    when there is an image."""
    await configure(ALLOWED)
    path = f"{directory}/missing.img"
    await cluster.apply(
        with_disk(vmi("waiting"), "node", {"hostDisk": {"path": path, "type": "Disk"}})
    )
    await cluster.until("vmi", "waiting", _says('"node"', "missing.img"), within_s=30, what="named")
    assert (await on_node("ls", directory)).stdout == ""
    await on_node("sh", "-c", f"truncate -s 8M {directory}/other; ln {directory}/other {path}")
    await cluster.until("vmi", "waiting", _says('"node"', "hard links"), within_s=30, what="named")
    assert (await on_node("stat", "-c", "%u", path)).stdout.strip() == "0"
    await on_node("sh", "-c", f"rm {path}; truncate -s 8M {path}")
    await Machine(cluster, "waiting").running(within_s=60)


def _made(path: str, mib: int) -> Json:
    return {"hostDisk": {"path": path, "type": "DiskOrCreate", "capacity": f"{mib}Mi"}}


def _says(*words: str) -> Callable[[Json | None], bool]:
    def holds(state: Json | None) -> bool:
        synchronized = condition(state, "Synchronized")
        message = synchronized.get("message", "")
        return synchronized.get("status") == "False" and all(word in message for word in words)

    return holds
