"""CD-ROM drives of a running guest: empty at first, then with a medium that an edit of the machine's template puts in, and empty
again."""

import base64
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from podvisor_launcher.storage.iso9660 import make_image

from tests.support.cluster import Cluster, on_node
from tests.support.hotplug import eject, insert, reaches
from tests.support.machine import Machine, condition, vm
from tests.support.storage import VolumeMode, checksum, local_volume

SIZE = 16 << 20
DRIVES = ("sata", "scsi")


async def test_media_come_and_go(cluster: Cluster) -> None:
    """On bus sata and scsi, from a file and from a device, and another one after that; nothing of it needs a restart, the next
    instance has what is in the drives by then, and media stay as they were."""
    async with (
        _medium(cluster, "one", "Filesystem"),
        _medium(cluster, "two", "Block"),
    ):
        before = [await checksum(cluster, claim) for claim in ("one", "two")]
        manifest = vm("reader")  # the 64-bit system knows no SATA
        devices = manifest["spec"]["template"]["spec"]["domain"]["devices"]
        devices["disks"] += [{"name": bus, "cdrom": {"bus": bus}} for bus in DRIVES]
        await cluster.apply(manifest)
        machine = Machine(cluster, "reader")
        await machine.console_shows("reader login:")
        uid = (await machine.running())["metadata"]["uid"]
        assert await _read(machine, 0) == await _read(machine, 1) == ""

        for bus, medium in (("sata", "one"), ("scsi", "two"), ("sata", "two")):
            await insert(cluster, "reader", bus, medium)
            await reaches(cluster, "reader", bus, "Ready")
            assert {await _read(machine, 0), await _read(machine, 1)} == {"", medium}
            await eject(cluster, "reader", bus)
            await reaches(cluster, "reader", bus, "")
            assert await _read(machine, 0) == await _read(machine, 1) == ""

        assert (await machine.running())["metadata"]["uid"] == uid
        assert condition(await cluster.get("vm", "reader"), "RestartRequired") == {}
        assert await cluster.complaints() == []

        await insert(cluster, "reader", "sata", "one")
        await reaches(cluster, "reader", "sata", "Ready")
        await cluster.kubectl("delete", "vmi", "reader", "--timeout=30s")
        await machine.running(not_uid=uid)
        await machine.console_shows("reader login:")
        await reaches(cluster, "reader", "sata", "Ready")
        assert {await _read(machine, 0), await _read(machine, 1)} == {"", "one"}
        await cluster.kubectl("delete", "vm", "reader", "--timeout=30s")
        assert [await checksum(cluster, claim) for claim in ("one", "two")] == before


async def test_medium_goes_while_the_guest_has_it_mounted(cluster: Cluster) -> None:
    """The guest has locked the drive: what is asked of it happens all the same, and the guest lives on."""
    async with _medium(cluster, "one", "Filesystem"):
        manifest = vm("locked")
        devices = manifest["spec"]["template"]["spec"]["domain"]["devices"]
        devices["disks"].append({"name": "sata", "cdrom": {"bus": "sata"}})
        await cluster.apply(manifest)
        machine = Machine(cluster, "locked")
        await machine.console_shows("locked login:")
        await insert(cluster, "locked", "sata", "one")
        await reaches(cluster, "locked", "sata", "Ready")
        assert await _read(machine, 0) == "one"
        await machine.ssh("mount -t iso9660 -o ro /dev/sr0 /mnt")
        await eject(cluster, "locked", "sata")
        await reaches(cluster, "locked", "sata", "")
        assert await machine.uptime_s() > 0
        await machine.ssh("umount /mnt")
        assert await _read(machine, 0) == ""


async def _read(machine: Machine, drive: int) -> str:
    """What is written on the medium in a drive, as the guest reads it; empty when there is none.

    The first reading after a change may fail: the drive says then that it has another medium.
    """
    script = (
        "until [ -e /dev/sr{0} ]; do usleep 200000; done; mkdir -p /mnt;"
        " until mount -t iso9660 -o ro /dev/sr{0} /mnt 2>/tmp/said; do"
        "  if grep -q 'No medium' /tmp/said; then exit; fi; usleep 200000;"
        " done; cat /mnt/words; umount /mnt"
    )
    return (await machine.ssh(script.format(drive))).stdout


@asynccontextmanager
async def _medium(cluster: Cluster, words: str, mode: VolumeMode) -> AsyncIterator[None]:
    """A claim called as what is written on it."""
    image = gzip.compress(make_image("medium", {"words": words.encode()}))
    encoded = base64.b64encode(image).decode()
    async with local_volume(cluster, words, SIZE, mode) as volume:
        path = f"{volume.path}/disk.img" if mode == "Filesystem" else volume.path
        await on_node("sh", "-c", f"echo {encoded} | base64 -d | gunzip >{path}; sync {path}")
        yield
