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
    """A directory of the node that belongs to the launchers' user."""
    path = f"/var/lib/{cluster.namespace}-disks"
    await on_node("install", "-d", "-o", "107", "-g", "107", path)
    yield path
    await on_node("rm", "-rf", path)


async def test_disk_of_the_node_needs_its_feature_gate(cluster: Cluster, directory: str) -> None:
    """Refused by the field and the gate, and nothing is made on the node."""
    manifest = with_disk(vm("tempted"), "node", _made(f"{directory}/new.img", 16))
    refused = await cluster.refused(manifest)
    assert "volumes[2].hostDisk needs the feature gate HostDisk" in refused
    assert (await on_node("ls", directory)).stdout == ""


async def test_disks_of_the_node(cluster: Cluster, configure: Configure, directory: str) -> None:
    """One that is there and one that is made, with what a guest wrote there for the next instance; and when the gate is closed,
    a machine that was let in before does not start again, and says why."""
    there, made = f"{directory}/there.img", f"{directory}/made.img"
    await on_node("sh", "-c", f"truncate -s 8M {there}; chown 107:107 {there}")
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
    second = await machine.running(not_uid=first["metadata"]["uid"])
    await machine.console_shows("local login:")
    assert [await read(machine, serial, 4) for serial in ("made", "there")] == ["kept"] * 2

    await configure({"developerConfiguration": {"featureGates": []}})
    assert await read(machine, "made", 4) == "kept"
    await cluster.kubectl("delete", "vmi", "local", "--timeout=30s")

    def says_why(state: Json | None) -> bool:
        is_next = state is not None and state["metadata"]["uid"] != second["metadata"]["uid"]
        words = condition(state, "Synchronized").get("message", "")
        return is_next and "add HostDisk to" in words

    await cluster.until("vmi", "local", says_why, within_s=30, what="the gate is named")


async def test_disk_of_the_node_that_is_not_there(
    cluster: Cluster, configure: Configure, directory: str
) -> None:
    """Type Disk makes none: the machine says which volume has no image, and starts when there is one."""
    await configure(ALLOWED)
    path = f"{directory}/missing.img"
    await cluster.apply(
        with_disk(vmi("waiting"), "node", {"hostDisk": {"path": path, "type": "Disk"}})
    )
    await cluster.until("vmi", "waiting", _says('"node"', "missing.img"), within_s=30, what="named")
    assert (await on_node("ls", directory)).stdout == ""
    await on_node("sh", "-c", f"truncate -s 8M {path}; chown 107:107 {path}")
    await Machine(cluster, "waiting").running(within_s=60)


async def test_directory_of_the_node_that_is_not_the_launchers(
    cluster: Cluster, configure: Configure, directory: str
) -> None:
    """No image can be made there, which is said with the user whose directory it would have to be."""
    await configure(ALLOWED)
    await on_node("chown", "0:0", directory)
    await cluster.apply(with_disk(vmi("locked"), "node", _made(f"{directory}/new.img", 16)))
    await cluster.until("vmi", "locked", _says('"node"', "user 107"), within_s=30, what="named")
    await on_node("chown", "107:107", directory)
    await Machine(cluster, "locked").running(within_s=60)


def _made(path: str, mib: int) -> Json:
    return {"hostDisk": {"path": path, "type": "DiskOrCreate", "capacity": f"{mib}Mi"}}


def _says(*words: str) -> Callable[[Json | None], bool]:
    def holds(state: Json | None) -> bool:
        synchronized = condition(state, "Synchronized")
        message = synchronized.get("message", "")
        return synchronized.get("status") == "False" and all(word in message for word in words)

    return holds
