"""Restores and clones of machines with real claims: what a guest had written is there again, and nothing that it has now is lost."""

import json

import pytest

from tests.support.cluster import Cluster, Json
from tests.support.disks import claimed, read, with_disk, write
from tests.support.machine import Machine, condition, gone, vm
from tests.support.snapshots import clone_of, is_free, reference, restore_to, restored, says, taken
from tests.support.storage import CSI, CSI_IMMEDIATE, claim, look_into

# Where `write` of tests.support.disks writes.
IN_FILE = "dd if=/claim/disk.img bs=1M skip=1 count=1 | head -c 8"
RESTORE_COLUMNS = ["NAME", "TARGETKIND", "TARGETNAME", "COMPLETE", "RESTORETIME"]
CLONE_COLUMNS = ["NAME", "PHASE", "SOURCEVIRTUALMACHINE", "TARGETVIRTUALMACHINE"]

pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.usefixtures("storage_classes"),
]


async def keeper(cluster: Cluster, *, storage_class: str = CSI) -> Machine:
    """A running machine with a claim on which its guest has written something."""
    await cluster.apply(claim("data", storage_class=storage_class))
    await cluster.apply(with_disk(vm("keeper"), "data", claimed("data")))
    machine = Machine(cluster, "keeper")
    await machine.console_shows("keeper login:")
    await write(machine, "data", "precious")
    return machine


async def run(cluster: Cluster, machine: str, strategy: str) -> None:
    """Change the run strategy of a machine."""
    await cluster.kubectl(
        "patch",
        "vm",
        machine,
        "--type=merge",
        "-p",
        json.dumps({"spec": {"runStrategy": strategy}}),
    )


async def stopped(cluster: Cluster, machine: str) -> None:
    await run(cluster, machine, "Halted")
    await cluster.until("vmi", machine, gone, within_s=40, what="gone")


async def claim_of(cluster: Cluster, machine: str) -> str:
    """The claim of the machine's disk."""
    state = await cluster.get("vm", machine) or {}
    volumes = state["spec"]["template"]["spec"]["volumes"]
    [name] = [one["persistentVolumeClaim"]["claimName"] for one in volumes if one["name"] == "data"]
    return str(name)


def firmware(state: Json | None) -> Json:
    found: Json = (state or {})["spec"]["template"]["spec"]["domain"]["firmware"]
    return found


async def test_a_machine_is_what_it_was_and_what_it_had_since_is_not_lost(cluster: Cluster) -> None:
    """A claim that waits for its first consumer holds up nothing; the machine starts with it."""
    machine = await keeper(cluster)
    await taken(cluster, "keeper", "before")
    await is_free(cluster, "keeper")
    await write(machine, "data", "ruined!!")

    refused = restore_to("keeper", "hasty", "before", targetReadinessPolicy="FailImmediate")
    await cluster.apply(refused)
    failed = await cluster.until(
        "vmrestore",
        "hasty",
        lambda state: bool(condition(state, "Failure")),
        within_s=15,
        what="failed",
    )
    assert condition(failed, "Failure")["reason"] == "Restore target not ready"

    await stopped(cluster, "keeper")
    before = await cluster.get("vm", "keeper")
    await restored(cluster, "keeper", "back", "before")
    head, row = (await cluster.kubectl("get", "vmrestore", "back")).stdout.splitlines()
    assert head.split() == RESTORE_COLUMNS
    assert row.split()[:4] == ["back", "VirtualMachine", "keeper", "true"]
    made = await claim_of(cluster, "keeper")
    assert made.startswith("restore-")
    state = await cluster.get("vm", "keeper")
    assert firmware(state) == firmware(before)
    assert "restoreInProgress" not in (state or {})["status"]
    assert await look_into(cluster, made, IN_FILE) == "precious"
    assert await look_into(cluster, "data", IN_FILE) == "ruined!!"

    await run(cluster, "keeper", "Always")
    await machine.console_shows("keeper login:")
    assert await read(machine, "data", 8) == "precious"
    await cluster.kubectl("delete", "vmrestore", "--all", "--timeout=30s")
    await cluster.kubectl("delete", "vm", "keeper", "--timeout=60s", timeout_s=70)
    await cluster.until("pvc", made, gone, within_s=60, what="gone with its machine")
    assert await cluster.get("pvc", "data") is not None


@pytest.mark.long
async def test_in_place_a_machine_that_runs_is_stopped_and_its_claim_keeps_its_name(
    cluster: Cluster,
) -> None:
    machine = await keeper(cluster, storage_class=CSI_IMMEDIATE)
    await taken(cluster, "keeper", "before")
    await is_free(cluster, "keeper")
    await write(machine, "data", "ruined!!")
    old = (await cluster.get("pvc", "data") or {})["metadata"]["uid"]
    await restored(
        cluster,
        "keeper",
        "back",
        "before",
        targetReadinessPolicy="StopTarget",
        volumeRestorePolicy="InPlace",
    )
    assert await claim_of(cluster, "keeper") == "data"
    new = await cluster.get("pvc", "data") or {}
    assert new["metadata"]["uid"] != old
    assert new["status"]["phase"] == "Bound"
    assert (await cluster.get("vm", "keeper") or {})["spec"]["runStrategy"] == "Halted"
    assert await look_into(cluster, "data", IN_FILE) == "precious"
    await run(cluster, "keeper", "Always")
    await machine.console_shows("keeper login:")
    assert await read(machine, "data", 8) == "precious"


@pytest.mark.long
async def test_a_new_machine_is_made_beside_the_one_that_was_kept(cluster: Cluster) -> None:
    """It is patched, does not run before somebody wants it to, and is nobody's double."""
    await keeper(cluster)
    await taken(cluster, "keeper", "before")
    label = {"op": "add", "path": "/metadata/labels/role", "value": "test"}
    name = {"op": "replace", "path": "/metadata/name", "value": "other"}
    refused = await cluster.refused(
        restore_to("twin", "back", "before", patches=[json.dumps(name)])
    )
    assert "patching is valid only for elements under /spec/" in refused
    await restored(cluster, "twin", "back", "before", patches=[json.dumps(label)])
    twin, source = await cluster.get("vm", "twin"), await cluster.get("vm", "keeper")
    assert (twin or {})["spec"]["runStrategy"] == "Halted"
    assert (twin or {})["metadata"]["labels"]["role"] == "test"
    for field in ("uuid", "serial"):
        assert firmware(twin)[field] != firmware(source)[field]
    assert await claim_of(cluster, "twin") != "data"
    await run(cluster, "twin", "Always")
    machine = Machine(cluster, "twin")
    await machine.console_shows("login:")
    assert await read(machine, "data", 8) == "precious"
    assert await cluster.get("vmi", "keeper") is not None


@pytest.mark.long
async def test_a_running_machine_is_cloned_and_both_run(cluster: Cluster) -> None:
    """Without a name for the target, too. Snapshot and restore go when the claims have their content."""
    machine = await keeper(cluster)
    before_s = await machine.uptime_s()
    await cluster.apply(clone_of(reference("keeper"), "copy", "twin"))
    state = await cluster.until(
        "vmclone", "copy", says("phase", "Succeeded"), within_s=60, what="Succeeded"
    )
    assert (state or {})["status"]["targetName"] == "twin"
    head, row = (await cluster.kubectl("get", "vmclone", "copy")).stdout.splitlines()
    assert head.split() == CLONE_COLUMNS
    assert row.split() == ["copy", "Succeeded", "keeper", "twin"]
    await write(machine, "data", "ruined!!")
    await run(cluster, "twin", "Always")
    twin = Machine(cluster, "twin")
    await twin.console_shows("login:")
    assert await read(twin, "data", 8) == "precious"
    assert await read(machine, "data", 8) == "ruined!!"
    assert await machine.uptime_s() > before_s
    vms = [await cluster.get("vm", name) for name in ("keeper", "twin")]
    assert firmware(vms[0])["uuid"] != firmware(vms[1])["uuid"]
    # The claim of the clone got its volume when its guest started.
    for kind in ("vmrestore", "vmsnapshot"):
        for one in await cluster.all(kind):
            await cluster.until(kind, one["metadata"]["name"], gone, within_s=30, what="gone")

    await cluster.apply(clone_of(reference("keeper"), "unnamed"))
    done = await cluster.until(
        "vmclone", "unnamed", says("phase", "Succeeded"), within_s=60, what="Succeeded"
    )
    name = (done or {})["status"]["targetName"]
    assert name.startswith("clone-keeper-")
    await cluster.kubectl("delete", "vm", name, "--timeout=30s")
    await cluster.until("vmclone", "unnamed", gone, within_s=20, what="gone after its target")
    warnings = await cluster.events(type_="Warning")
    assert [one for one in warnings if one["reportingController"] == "virt-controller"] == []
