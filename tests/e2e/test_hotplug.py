"""Volumes that come to a running guest and go: by edits of its machine's template, with real claims and a guest that looks."""

import json
from typing import Any

import pytest

from tests.support.cluster import Cluster, Json
from tests.support.disks import guest_disks, read, write
from tests.support.hotplug import plug, reaches, roomy_vm, said_of, seen, unplug
from tests.support.machine import Machine, condition, gone
from tests.support.storage import (
    CSI_IMMEDIATE,
    VolumeMode,
    checksum,
    claim,
    local_volume,
    look_into,
)

MIB = 1 << 20
SIZE = 64 * MIB
BUSES: dict[VolumeMode, str] = {"Filesystem": "scsi", "Block": "virtio"}


async def holders(cluster: Cluster) -> list[Json]:
    return await cluster.all("pods", labels="kubevirt.io=hotplug-disk")


async def started(cluster: Cluster, name: str) -> Machine:
    machine = Machine(cluster, name)
    await cluster.apply(roomy_vm(name))
    await machine.console_shows(f"{name} login:")
    return machine


@pytest.mark.parametrize("mode", ["Filesystem", "Block"])
async def test_volume_comes_and_goes(cluster: Cluster, mode: VolumeMode) -> None:
    """The guest sees it with its serial number and size, and what it writes is there when it has gone. It needs no restart."""
    async with local_volume(cluster, "data", SIZE, mode):
        machine = await started(cluster, "host")
        uid = (await machine.running())["metadata"]["uid"]
        await plug(cluster, "host", "data", BUSES[mode])
        entry = await reaches(cluster, "host", "data", "Ready")
        [holder] = await holders(cluster)
        assert entry["hotplugVolume"] == {
            "attachPodName": holder["metadata"]["name"],
            "attachPodUID": holder["metadata"]["uid"],
        }
        assert entry["persistentVolumeClaimInfo"]["claimName"] == "data"
        assert entry["target"]
        disk = await seen(machine, "data")
        assert not disk.read_only
        assert disk.size_bytes == entry["size"]
        if mode == "Block":
            assert disk.size_bytes == SIZE
        else:
            assert 0.8 * SIZE < disk.size_bytes < SIZE  # the file system has its share
        await write(machine, "data", "precious")

        await unplug(cluster, "host", "data")
        await reaches(cluster, "host", "data", "")
        assert "data" not in await guest_disks(machine)
        assert await holders(cluster) == []
        where = "/dev/claim" if mode == "Block" else "/claim/disk.img"
        text = await look_into(cluster, "data", f"dd if={where} bs=1M skip=1 count=1 | head -c 8")
        assert text == "precious"
        assert (await machine.running())["metadata"]["uid"] == uid
        assert condition(await cluster.get("vm", "host"), "RestartRequired") == {}
        assert await cluster.complaints() == []


@pytest.mark.usefixtures("storage_classes")
async def test_volumes_grow(cluster: Cluster) -> None:
    """A running guest sees more of the claims that it was given on the way, once they are expanded: of an image and of a device."""
    machine = await started(cluster, "host")
    before = {}
    for mode, bus in BUSES.items():
        name = mode.lower()
        await cluster.apply(claim(name, "64Mi", storage_class=CSI_IMMEDIATE, mode=mode))
        await plug(cluster, "host", name, bus)
        before[name] = (await reaches(cluster, "host", name, "Ready"))["size"]
    larger = '{"spec":{"resources":{"requests":{"storage":"128Mi"}}}}'
    for name in before:
        await cluster.kubectl("patch", "pvc", name, "--type=merge", "-p", larger)

    def have_grown(state: Json | None) -> bool:
        return all(said_of(state, name).get("size", 0) > size for name, size in before.items())

    await cluster.until("vmi", "host", have_grown, within_s=60, what="larger volumeStatus")
    for name, size in before.items():
        assert (await seen(machine, name)).size_bytes > 1.8 * size
    await cluster.kubectl("delete", "vm", "host", "--timeout=30s")
    await cluster.until("vmi", "host", gone, within_s=20, what="gone")


async def test_volume_outlives_what_holds_and_drives_it(cluster: Cluster) -> None:
    """The launcher and the pod that holds the volume are killed in between; the guest goes on to write to it, and lets it go after."""
    async with local_volume(cluster, "data", SIZE):
        machine = await started(cluster, "tough")
        await plug(cluster, "tough", "data")
        before = await reaches(cluster, "tough", "data", "Ready")
        await seen(machine, "data")
        await write(machine, "data", "one")
        await machine.kill("podvisor_launcher")
        await write(machine, "data", "two")
        [holder] = await holders(cluster)
        await cluster.kubectl(
            "delete", "pod", holder["metadata"]["name"], "--grace-period=1", "--timeout=30s"
        )

        def is_held_anew(state: Json | None) -> bool:
            said: Any = said_of(state, "data").get("hotplugVolume", {})
            return said.get("attachPodUID") not in (None, holder["metadata"]["uid"])

        await cluster.until("vmi", "tough", is_held_anew, within_s=30, what="another pod holds it")
        await write(machine, "data", "three")
        after = await reaches(cluster, "tough", "data", "Ready")
        assert (after["target"], after["size"]) == (before["target"], before["size"])
        await unplug(cluster, "tough", "data")
        await machine.kill("podvisor_launcher")
        await reaches(cluster, "tough", "data", "")
        digest = await checksum(cluster, "data")

        await plug(cluster, "tough", "data")
        await reaches(cluster, "tough", "data", "Ready")
        await seen(machine, "data")
        assert await read(machine, "data", 5) == "three"
        await unplug(cluster, "tough", "data")
        await reaches(cluster, "tough", "data", "")
        assert await checksum(cluster, "data") == digest


async def test_volume_goes_while_the_guest_has_it_open(cluster: Cluster) -> None:
    """What the guest has written and synced is there; what it does afterwards fails in the guest, and harms nobody."""
    async with local_volume(cluster, "data", SIZE):
        machine = await started(cluster, "busy")
        await plug(cluster, "busy", "data")
        await reaches(cluster, "busy", "data", "Ready")
        disk = await seen(machine, "data")
        await write(machine, "data", "synced")
        reader = f"while dd if=/dev/{disk.device} of=/dev/null bs=1M; do :; done"
        await machine.ssh(f"nohup sh -c '{reader}' >/dev/null 2>&1 </dev/null &")
        await unplug(cluster, "busy", "data")
        await reaches(cluster, "busy", "data", "")
        assert await machine.uptime_s() > 0
        where = "/claim/disk.img"
        text = await look_into(cluster, "data", f"dd if={where} bs=1M skip=1 count=1 | head -c 6")
        assert text == "synced"


async def test_volume_is_there_again_after_a_restart(cluster: Cluster) -> None:
    """It is part of the machine's template: the next instance gets it, too. What held it ends soon after the guest, whoever began it."""
    async with local_volume(cluster, "data", SIZE):
        machine = await started(cluster, "again")
        await plug(cluster, "again", "data")
        await reaches(cluster, "again", "data", "Ready")
        await seen(machine, "data")
        await write(machine, "data", "kept")
        first = await machine.running()
        await cluster.kubectl("delete", "pods", "--all", "--timeout=30s")
        await machine.running(not_uid=first["metadata"]["uid"])
        await machine.console_shows("again login:")
        await reaches(cluster, "again", "data", "Ready")
        await seen(machine, "data")
        assert await read(machine, "data", 4) == "kept"


async def test_claim_that_another_machine_has(cluster: Cluster) -> None:
    """A running machine waits for a claim that another writes to, and says for whom; its guest does not notice."""
    async with local_volume(cluster, "data", SIZE):
        first = await started(cluster, "first")
        await plug(cluster, "first", "data")
        await reaches(cluster, "first", "data", "Ready")
        await seen(first, "data")
        await write(first, "data", "mine")
        second = await started(cluster, "second")
        await plug(cluster, "second", "data")
        shown = await cluster.until(
            "vmi",
            "second",
            lambda state: condition(state, "Synchronized").get("reason") == "VolumeInUse",
            within_s=20,
            what="Synchronized is False: VolumeInUse",
        )
        message = condition(shown, "Synchronized")["message"]
        assert f"{cluster.namespace}/first" in message, message
        assert condition(shown, "Ready")["status"] == "True"
        assert len(await holders(cluster)) == 1
        assert await read(first, "data", 4) == "mine"
        await unplug(cluster, "first", "data")
        await reaches(cluster, "second", "data", "Ready")
        await seen(second, "data")
        assert await read(second, "data", 4) == "mine"


async def test_volume_by_request(cluster: Cluster) -> None:
    """As `virtctl addvolume` has it: on bus scsi, with the volume's name for a serial number, and in the template from then on."""
    async with local_volume(cluster, "data", SIZE):
        machine = await started(cluster, "asked")
        source = {"persistentVolumeClaim": {"claimName": "data"}}

        async def ask(**request: Any) -> None:
            patch = json.dumps({"status": {"volumeRequests": [request]}})
            await cluster.kubectl(
                "patch", "vm", "asked", "--subresource=status", "--type=merge", "-p", patch
            )

        await ask(addVolumeOptions={"name": "data", "volumeSource": source})
        await reaches(cluster, "asked", "data", "Ready")
        assert (await seen(machine, "data")).device.startswith("sd")
        await ask(removeVolumeOptions={"name": "data"})
        await reaches(cluster, "asked", "data", "")
        found = await cluster.get("vm", "asked")
        assert found is not None
        assert "volumeRequests" not in found["status"]
        assert [v["name"] for v in found["spec"]["template"]["spec"]["volumes"]] == ["root", "seed"]
