"""Claims as disks: what the guest writes stays, whatever form the volume has, and what must not be written to is not."""

import asyncio
from collections.abc import Callable

import pytest

from tests.support.cluster import Cluster, Json
from tests.support.disks import claimed, guest_disks, read, with_disk, write
from tests.support.machine import Machine, condition, gone, phase_is, vm, vmi
from tests.support.storage import VolumeMode, checksum, claim, local_volume, look_into

MIB = 1 << 20
SIZE = 64 * MIB


@pytest.mark.parametrize("mode", ["Filesystem", "Block"])
async def test_what_a_guest_writes_stays(cluster: Cluster, mode: VolumeMode) -> None:
    """Through a stop of the machine and its deletion; another pod reads the same, and so does the next machine."""
    async with local_volume(cluster, "data", SIZE, mode):
        await cluster.apply(with_disk(vm("keeper"), "data", claimed("data")))
        machine = Machine(cluster, "keeper")
        await machine.console_shows("keeper login:")
        disk = (await guest_disks(machine))["data"]
        assert not disk.read_only
        if mode == "Block":
            assert disk.size_bytes == SIZE
        else:
            assert 0.8 * SIZE < disk.size_bytes < SIZE  # the file system has its share
        await write(machine, "data", "precious")
        await cluster.kubectl("delete", "vm", "keeper", "--timeout=30s")

        where = "/dev/claim" if mode == "Block" else "/claim/disk.img"
        seen = await look_into(cluster, "data", f"dd if={where} bs=1M skip=1 count=1 | head -c 8")
        assert seen == "precious"

        await cluster.apply(with_disk(vmi("heir"), "data", claimed("data")))
        heir = Machine(cluster, "heir")
        await heir.console_shows("heir login:")
        assert await read(heir, "data", 8) == "precious"


async def test_image_is_sparse_and_as_large_as_the_volume_allows(cluster: Cluster) -> None:
    """An image that is made takes no space before the guest writes, and belongs to the guest's user."""
    async with local_volume(cluster, "data", SIZE):
        await cluster.apply(with_disk(vmi("sparse"), "data", claimed("data")))
        await Machine(cluster, "sparse").running()
        await cluster.kubectl("delete", "vmi", "sparse", "--timeout=30s")
        seen = await look_into(cluster, "data", "stat -c '%s %b %B %u %a' /claim/disk.img")
        size, blocks, block_bytes, owner, mode = seen.split()
        assert 0.8 * SIZE < int(size) < SIZE
        assert int(blocks) * int(block_bytes) < MIB
        assert (owner, mode) == ("107", "660")


@pytest.mark.parametrize("mode", ["Filesystem", "Block"])
async def test_what_is_only_read_is_not_changed(cluster: Cluster, mode: VolumeMode) -> None:
    """An ephemeral disk is written to by the guest and pristine at its next start; a read-only one refuses the guest's writes.
    The claim behind both stays as it was to the last bit, and both machines use it at the same time."""
    async with local_volume(cluster, "base", SIZE, mode, access_mode="ReadWriteOnce"):
        await cluster.apply(with_disk(vm("author"), "base", claimed("base")))
        author = Machine(cluster, "author")
        await author.console_shows("author login:")
        await write(author, "base", "original")
        await cluster.kubectl("delete", "vm", "author", "--timeout=30s")
        before = await checksum(cluster, "base")

        ephemeral = {"ephemeral": {"persistentVolumeClaim": {"claimName": "base"}}}
        reading = vm("reading")
        with_disk(
            reading,
            "base",
            claimed("base", readOnly=True),
            {"disk": {"bus": "virtio", "readonly": True}},
        )
        await asyncio.gather(
            cluster.apply(with_disk(vm("scratch"), "base", ephemeral)), cluster.apply(reading)
        )
        scratch, reader = Machine(cluster, "scratch"), Machine(cluster, "reading")
        await scratch.console_shows("scratch login:")
        await write(scratch, "base", "scribble")
        assert await read(scratch, "base", 8) == "scribble"

        await reader.console_shows("reading login:")
        disk = (await guest_disks(reader))["base"]
        assert disk.read_only
        assert await read(reader, "base", 8) == "original"
        refused = await reader.ssh(f"dd if=/dev/zero of=/dev/{disk.device} count=1", check=False)
        assert refused.exit_code != 0

        first = await scratch.running()
        await cluster.kubectl("delete", "vmi", "scratch", "--timeout=30s")
        await scratch.running(not_uid=first["metadata"]["uid"])
        await scratch.console_shows("scratch login:")
        assert await read(scratch, "base", 8) == "original"
        await cluster.kubectl("delete", "vm", "--all", "--timeout=30s")
        assert await checksum(cluster, "base") == before


async def test_claim_that_is_missing(cluster: Cluster) -> None:
    """The machine says which claim it waits for, and starts when it is there."""
    async with local_volume(cluster, "other", SIZE) as volume:
        await cluster.kubectl("delete", "pvc", "other")
        await cluster.apply(with_disk(vm("waiting"), "data", claimed("other")))
        shown = await cluster.until(
            "vmi",
            "waiting",
            lambda state: condition(state, "Synchronized").get("reason") == "FailedPvcNotFound",
            within_s=20,
            what="Synchronized is False: FailedPvcNotFound",
        )
        assert f"{cluster.namespace}/other" in condition(shown, "Synchronized")["message"]
        await cluster.until(
            "vm", "waiting", _printable("ErrorPvcNotFound"), within_s=10, what="ErrorPvcNotFound"
        )
        assert await cluster.all("pods", labels="kubevirt.io=virt-launcher") == []
        storage_class = f"{cluster.namespace}-{volume.name}"
        await cluster.kubectl(
            "patch",
            "pv",
            storage_class,
            "--type=json",
            "-p",
            '[{"op":"remove","path":"/spec/claimRef"}]',
            check=False,
        )
        await cluster.apply(claim("other", str(SIZE), storage_class=storage_class))
        await Machine(cluster, "waiting").running(within_s=60)
        # By now all that was told before is there: events follow what they are about.
        warnings = [event["reason"] for event in await cluster.events(type_="Warning")]
        assert warnings.count("FailedPvcNotFound") == 1


async def test_claim_of_another_machine(cluster: Cluster) -> None:
    """Of two machines that would write to one claim the second waits, and says for whom; the first does not notice."""
    async with local_volume(cluster, "data", SIZE):
        await cluster.apply(with_disk(vmi("first"), "data", claimed("data")))
        first = Machine(cluster, "first")
        await first.console_shows("first login:")
        await write(first, "data", "mine")
        await cluster.apply(with_disk(vmi("second"), "data", claimed("data")))
        shown = await cluster.until(
            "vmi",
            "second",
            lambda state: condition(state, "Synchronized").get("reason") == "VolumeInUse",
            within_s=20,
            what="Synchronized is False: VolumeInUse",
        )
        message = condition(shown, "Synchronized")["message"]
        assert f"{cluster.namespace}/data" in message, message
        assert f"{cluster.namespace}/first" in message, message
        assert await read(first, "data", 4) == "mine"
        await cluster.kubectl("delete", "vmi", "first", "--timeout=30s")
        second = Machine(cluster, "second")
        await second.console_shows("second login:")
        assert await read(second, "data", 4) == "mine"


async def test_claim_that_two_machines_want_at_once(cluster: Cluster) -> None:
    """Whichever is first, one of them runs, the other says for whom it waits, and there is one QEMU; when that one goes, the other
    finds what was written."""
    async with local_volume(cluster, "data", SIZE):
        both = [with_disk(vmi(name), "data", claimed("data")) for name in ("left", "right")]
        await cluster.apply({"apiVersion": "v1", "kind": "List", "items": both})

        async def waits(name: str) -> str:
            await cluster.until(
                "vmi",
                name,
                lambda state: condition(state, "Synchronized").get("reason") == "VolumeInUse",
                within_s=40,
                what="Synchronized is False: VolumeInUse",
            )
            return name

        racing = [asyncio.create_task(waits(name), name=name) for name in ("left", "right")]
        done, others = await asyncio.wait(racing, return_when=asyncio.FIRST_COMPLETED)
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        (second,) = [await task for task in done]
        first = "right" if second == "left" else "left"
        winner = Machine(cluster, first)
        await winner.console_shows(f"{first} login:")
        await write(winner, "data", "mine")
        assert len(await cluster.all("pods", labels="kubevirt.io=virt-launcher")) == 1
        assert phase_is("Running")(await cluster.get("vmi", first))
        assert not phase_is("Running")(await cluster.get("vmi", second))
        await cluster.kubectl("delete", "vmi", first, "--timeout=30s")
        heir = Machine(cluster, second)
        await heir.console_shows(f"{second} login:")
        assert await read(heir, "data", 4) == "mine"


async def test_claim_that_grows(cluster: Cluster, storage_classes: None) -> None:
    """A running guest sees more of a claim that was expanded."""
    await cluster.apply(claim("data", "64Mi"))
    await cluster.apply(with_disk(vmi("growing"), "data", claimed("data")))
    machine = Machine(cluster, "growing")
    await machine.console_shows("growing login:")
    before = (await guest_disks(machine))["data"].size_bytes
    patch = '{"spec":{"resources":{"requests":{"storage":"128Mi"}}}}'
    await cluster.kubectl("patch", "pvc", "data", "--type=merge", "-p", patch)

    def has_grown(state: Json | None) -> bool:
        volumes = (state or {}).get("status", {}).get("volumeStatus", [])
        return any(v["name"] == "data" and v.get("size", 0) > before for v in volumes)

    await cluster.until("vmi", "growing", has_grown, within_s=60, what="a larger volumeStatus")
    after = (await guest_disks(machine))["data"].size_bytes
    assert after > 1.8 * before
    await cluster.kubectl("delete", "vmi", "growing", "--timeout=30s")
    await cluster.until("vmi", "growing", gone, within_s=5, what="gone")


def _printable(wanted: str) -> Callable[[Json | None], bool]:
    return lambda state: bool((state or {}).get("status", {}).get("printableStatus") == wanted)
