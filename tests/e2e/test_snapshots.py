"""Snapshots of machines with real claims: what a guest wrote is in them, and what goes with them and what does not."""

import pytest

from tests.support.cluster import Cluster
from tests.support.disks import claimed, with_disk, write
from tests.support.machine import Machine, condition, gone, vm
from tests.support.snapshots import is_free, says, snapshot_of, taken
from tests.support.storage import CSI_IMMEDIATE, claim, local_volume, look_into

MIB = 1 << 20
COLUMNS = ["NAME", "SOURCEKIND", "SOURCENAME", "PHASE", "READYTOUSE", "CREATIONTIME", "ERROR"]

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(200),
    pytest.mark.usefixtures("storage_classes"),
]


async def volume_snapshots(cluster: Cluster) -> dict[str, str]:
    """The VolumeSnapshots of the namespace: claim to name."""
    found = await cluster.all("volumesnapshots")
    return {
        one["spec"]["source"]["persistentVolumeClaimName"]: one["metadata"]["name"] for one in found
    }


async def test_a_running_machine_is_kept_with_what_its_guest_wrote(cluster: Cluster) -> None:
    """A file claim and a block claim: both are as they were when the guest went on, and all of it goes with the snapshot."""
    await cluster.apply(claim("files"))
    await cluster.apply(claim("raw", storage_class=CSI_IMMEDIATE, mode="Block"))
    manifest = with_disk(vm("keeper"), "files", claimed("files"))
    await cluster.apply(with_disk(manifest, "raw", claimed("raw")))
    machine = Machine(cluster, "keeper")
    await machine.console_shows("keeper login:")
    before_s = await machine.uptime_s()
    for name in ("files", "raw"):
        await write(machine, name, "precious")

    status = (await taken(cluster, "keeper", "before"))["status"]
    assert status["phase"] == "Succeeded"
    assert status["indications"] == ["NoGuestAgent", "Online"]
    assert status["snapshotVolumes"] == {
        "includedVolumes": ["files", "raw"],
        "excludedVolumes": ["root", "seed"],
    }
    await is_free(cluster, "keeper")
    head, row = (await cluster.kubectl("get", "vmsnapshot", "before")).stdout.splitlines()
    assert head.split() == COLUMNS
    assert row.split()[:5] == ["before", "VirtualMachine", "keeper", "Succeeded", "true"]
    told = (await cluster.get("vm", "keeper") or {})["status"]["volumeSnapshotStatuses"]
    assert {one["name"]: one["enabled"] for one in told} == {
        "root": False,
        "seed": False,
        "files": True,
        "raw": True,
    }

    for name in ("files", "raw"):
        await write(machine, name, "ruined!!")
    assert await machine.uptime_s() > before_s
    made = await volume_snapshots(cluster)
    await cluster.apply(claim("files-back", source=("VolumeSnapshot", made["files"])))
    await cluster.apply(
        claim("raw-back", storage_class=CSI_IMMEDIATE, mode="Block", source=("VolumeSnapshot", made["raw"]))
    )  # fmt: skip
    for name, where in (("files-back", "/claim/disk.img"), ("raw-back", "/dev/claim")):
        seen = await look_into(cluster, name, f"dd if={where} bs=1M skip=1 count=1 | head -c 8")
        assert seen == "precious"

    await cluster.kubectl("delete", "vmsnapshot", "before", "--timeout=30s")
    for name in made.values():
        await cluster.until("volumesnapshot", name, gone, within_s=30, what="gone")
    assert await cluster.all("vmsnapshotcontents") == []
    warnings = await cluster.events(type_="Warning")
    assert [one for one in warnings if one["reportingController"] == "virt-controller"] == []


async def test_a_machine_without_claims_is_kept_as_it_is_configured(cluster: Cluster) -> None:
    """In both versions of the API, the older one with a warning. A retained content stays, and may be deleted later."""
    await cluster.apply(vm("plain", run_strategy="Halted"))
    manifest = snapshot_of("plain", "before", deletionPolicy="Retain")
    done = await cluster.apply(manifest | {"apiVersion": "snapshot.kubevirt.io/v1alpha1"})
    assert "snapshot.kubevirt.io/v1alpha1 is deprecated" in done.stderr
    state = await cluster.until(
        "vmsnapshot", "before", says("readyToUse", True), within_s=20, what="ready to use"
    )
    assert state is not None
    assert state["status"]["phase"] == "Succeeded"
    assert "indications" not in state["status"]
    content = state["status"]["virtualMachineSnapshotContentName"]
    kept = await cluster.get("vmsnapshotcontent", content) or {}
    machine = await cluster.get("vm", "plain") or {}
    assert kept["spec"]["source"]["virtualMachine"]["spec"] == machine["spec"]

    await cluster.kubectl("delete", "vmsnapshot", "before", "--timeout=20s")
    assert await cluster.get("vmsnapshotcontent", content) is not None
    await cluster.kubectl("delete", "vmsnapshotcontent", content, "--timeout=20s")


async def test_a_claim_without_a_class_is_left_out(cluster: Cluster) -> None:
    """A local volume has no driver that could take a snapshot: the rest is kept, and both objects say what is not."""
    async with local_volume(cluster, "data", 64 * MIB):
        await cluster.apply(with_disk(vm("local"), "data", claimed("data")))
        await Machine(cluster, "local").running()
        status = (await taken(cluster, "local", "before"))["status"]
        assert status["snapshotVolumes"] == {"excludedVolumes": ["root", "seed", "data"]}
        assert status["indications"] == ["NoGuestAgent", "Online", "PartialSnapshot"]
        machine = await cluster.get("vm", "local") or {}
        told = {one["name"]: one for one in machine["status"]["volumeSnapshotStatuses"]}
        assert not told["data"]["enabled"]
        assert told["data"]["reason"].startswith("No VolumeSnapshotClass: ")
        assert await cluster.all("volumesnapshots") == []


async def test_a_machine_that_does_not_exist_is_waited_for_and_no_longer_than_is_said(
    cluster: Cluster,
) -> None:
    """Until it exists, or until the deadline. What no snapshot can be of is refused at once, and so is a change."""
    await cluster.apply(snapshot_of("later", "patient", failureDeadline="0"))
    await cluster.apply(snapshot_of("never", "hasty", failureDeadline="2s"))
    failed = await cluster.until(
        "vmsnapshot", "hasty", says("phase", "Failed"), within_s=15, what="phase Failed"
    )
    failure = condition(failed, "Failure")
    assert failure["reason"] == "snapshot deadline exceeded"
    assert 'There is no VirtualMachine "never"' in failure["message"]
    waiting = await cluster.get("vmsnapshot", "patient")
    assert condition(waiting, "Progressing")["reason"] == "Source does not exist"
    await cluster.apply(vm("later", run_strategy="Halted"))
    await cluster.until(
        "vmsnapshot", "patient", says("readyToUse", True), within_s=15, what="ready to use"
    )

    other = snapshot_of("later", "other")
    other["spec"]["source"]["kind"] = "Pod"
    assert "spec.source.kind must be VirtualMachine" in await cluster.refused(other)
    changed = snapshot_of("later", "patient", failureDeadline="5m")
    assert "spec is immutable after creation" in await cluster.refused(changed)
