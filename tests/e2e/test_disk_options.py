"""What a manifest says of a disk beyond its source: the guest sees it, and QEMU runs with it."""

from tests.support.cluster import Cluster, Json, on_node
from tests.support.disks import GuestDisk, claimed, guest_disks, read, with_disk, write
from tests.support.machine import Machine, condition, vmi
from tests.support.qemu import Qemu, qemu_of
from tests.support.storage import local_volume

MIB = 1 << 20
SIZE = 64 * MIB
EMPTY = {"emptyDisk": {"capacity": "32Mi"}}
_QUEUE = ("logical_block_size", "physical_block_size", "discard_granularity", "discard_max_bytes")


async def test_options_of_disks(cluster: Cluster) -> None:
    """Sectors, caches, ways of input and output, threads, answers to errors, and a disk that two guests write to at once."""
    async with (
        local_volume(cluster, "matched", SIZE, "Block", sector_bytes=4096),
        local_volume(cluster, "file", SIZE) as file,
        local_volume(cluster, "shared", SIZE, "Block", access_mode="ReadWriteMany"),
    ):
        await cluster.apply(_tuned())
        peer_manifest = vmi("peer")
        with_disk(peer_manifest, "shared", claimed("shared"), _virtio(shareable=True))
        await cluster.apply(peer_manifest)
        machine, peer = Machine(cluster, "tuned"), Machine(cluster, "peer")
        await machine.console_shows("tuned login:")
        await peer.console_shows("peer login:")
        disks = await guest_disks(machine)

        await _check_sectors(machine, disks, file.path)
        _check_qemu(await qemu_of(machine))
        await _check_discard(machine, disks["file"], f"{file.path}/disk.img")

        await write(machine, "shared", "of both")
        assert await read(peer, "shared", 7) == "of both"


async def test_disk_that_is_not_the_first_boots(cluster: Cluster) -> None:
    """Of two disks with a system the one with the lower bootOrder is started."""
    manifest = vmi("chosen")
    spec = manifest["spec"]
    spec["domain"]["resources"]["requests"]["memory"] = "128Mi"
    spec["domain"]["devices"]["disks"][0]["bootOrder"] = 2
    source = {"containerDisk": {"image": "podvisor/guest-amd64-bench:devel"}}
    with_disk(manifest, "other", source, {"disk": {"bus": "virtio"}, "bootOrder": 1})
    await cluster.apply(manifest)
    machine = Machine(cluster, "chosen")
    await machine.console_shows("chosen login:")
    assert (await machine.ssh("uname -m")).stdout.strip() == "x86_64"


async def test_a_pool_of_threads_needs_its_policy(cluster: Cluster) -> None:
    """A machine that asks for a pool of threads is not started without it."""
    manifest = vmi("pool")
    manifest["spec"]["domain"]["ioThreads"] = {"supplementalPoolThreadCount": 2}
    field = "spec.domain.ioThreads.supplementalPoolThreadCount"
    assert f"{field} needs ioThreadsPolicy supplementalPool" in await cluster.refused(manifest)


async def test_lun_of_a_device_without_scsi(cluster: Cluster) -> None:
    """Commands of the guest can be passed to no such device: the machine says so by the volume's name."""
    async with local_volume(cluster, "unit", SIZE, "Block"):
        manifest = with_disk(vmi("passing"), "unit", claimed("unit"), {"lun": {"bus": "scsi"}})
        del manifest["spec"]["domain"]["devices"]["disks"][-1]["serial"]
        await cluster.apply(manifest)

        def says_why(state: Json | None) -> bool:
            said = condition(state, "Synchronized")
            words = 'Volume "unit": its device takes no SCSI commands'
            return said.get("reason") == "InvalidDisk" and words in said["message"]

        await cluster.until("vmi", "passing", says_why, within_s=40, what="the disk is named")


def _virtio(**options: object) -> Json:
    return {"disk": {"bus": "virtio"}, **options}


def _tuned() -> Json:
    manifest = vmi("tuned")
    sizes = {"logical": 4096, "physical": 4096, "discardGranularity": 65536}
    custom = _virtio(blockSize={"custom": sizes}, dedicatedIOThread=True)
    with_disk(manifest, "custom", EMPTY, custom)
    matched = _virtio(
        blockSize={"matchVolume": {}}, dedicatedIOThread=True, cache="none", io="native"
    )
    with_disk(manifest, "matched", claimed("matched"), matched)
    careful = _virtio(
        blockSize={"matchVolume": {}}, cache="writethrough", io="threads", errorPolicy="report"
    )
    with_disk(manifest, "file", claimed("file"), careful)
    with_disk(manifest, "back", EMPTY, _virtio(cache="writeback", errorPolicy="enospace"))
    with_disk(manifest, "shared", claimed("shared"), _virtio(shareable=True, errorPolicy="ignore"))
    return manifest


async def _check_sectors(machine: Machine, disks: dict[str, GuestDisk], directory: str) -> None:
    files = " ".join(f"/sys/block/{disks[d].device}/queue/{q}" for d in disks for q in _QUEUE)
    numbers = iter((await machine.ssh(f"cat {files}")).stdout.split())
    seen = {disk: {queue: int(next(numbers)) for queue in _QUEUE} for disk in disks}
    assert seen["custom"]["logical_block_size"] == 4096
    assert seen["custom"]["physical_block_size"] == 4096
    assert seen["custom"]["discard_granularity"] == 65536
    assert seen["matched"]["logical_block_size"] == 4096
    assert disks["matched"].size_bytes == SIZE
    block = int((await on_node("stat", "-f", "-c", "%S", directory)).stdout)
    assert seen["file"]["logical_block_size"] == block
    for plain in ("back", "shared"):
        assert seen[plain]["logical_block_size"] == 512
    assert all(seen[disk]["discard_max_bytes"] for disk in ("custom", "matched", "file", "back"))


def _check_qemu(qemu: Qemu) -> None:
    disks = qemu.disks
    # A disk's own caches are its device's; the node's page cache is left out by `direct`.
    caches = {
        name: (
            disks[name].storage.get("cache", {}).get("direct", False),
            disks[name].storage.get("cache", {}).get("no-flush", False),
            disks[name].device.get("write-cache", "on") == "on",
        )
        for name in ("matched", "file", "back", "shared", "root")
    }
    assert caches == {
        "matched": (True, False, True),
        "file": (False, False, False),
        "back": (False, False, True),
        "shared": (True, False, True),
        "root": (False, True, True),
    }
    assert disks["matched"].storage["aio"] == "native"
    assert disks["file"].storage["aio"] == "threads"
    assert disks["shared"].storage["aio"] == "native"
    assert {disk.storage["discard"] for name, disk in disks.items() if name != "seed"} == {"unmap"}
    threads = [disks[name].device["iothread"] for name in ("custom", "matched")]
    assert set(threads) == qemu.io_threads
    assert len(qemu.io_threads) == 2
    assert {n for n, disk in disks.items() if "iothread" in disk.device} == {"custom", "matched"}
    answers = {name: (d.device.get("werror"), d.device.get("rerror")) for name, d in disks.items()}
    assert answers["file"] == ("report", "report")
    assert answers["back"] == ("enospc", None)
    assert answers["shared"] == ("ignore", "ignore")
    assert answers["root"] == ("stop", "stop")
    assert {n for n, disk in disks.items() if disk.device.get("share-rw")} == {"shared"}


async def _check_discard(machine: Machine, disk: GuestDisk, image: str) -> None:
    """What the guest throws away takes no space on the node."""
    await machine.ssh(f"dd if=/dev/urandom of=/dev/{disk.device} bs=1M count=8 conv=fsync")
    before = int((await on_node("stat", "-c", "%b", image)).stdout)
    await machine.ssh(f"blkdiscard -o 0 -l {8 * MIB} /dev/{disk.device}")
    after = int((await on_node("stat", "-c", "%b", image)).stdout)
    assert (before - after) * 512 > 7 * MIB, (before, after)
