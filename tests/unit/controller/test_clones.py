"""Clones of machines against an API server on a real socket, with a storage driver that does its part."""

from podvisor_common.api.snapshot import names as snapshot_names
from podvisor_common.kube.resources import (
    PERSISTENT_VOLUME_CLAIMS,
    SNAPSHOTS,
    STORAGE_CLASSES,
    VIRTUAL_MACHINES,
    VOLUME_SNAPSHOTS,
    ObjectKey,
)
from podvisor_controller.controllers import Controllers

from tests.unit.controller.clones import OF_SNAPSHOT, CloneUser
from tests.unit.controller.restores import writes

DOMAIN = {
    "resources": {"requests": {"memory": "64M"}},
    "firmware": {"uuid": "u-1", "serial": "s-1"},
    "devices": {
        "disks": [],
        "interfaces": [
            {"name": "default", "masquerade": {}, "macAddress": "02:00:00:00:00:01"},
            {"name": "second", "masquerade": {}, "macAddress": "02:00:00:00:00:02"},
        ],
    },
}


async def test_a_running_machine_is_cloned_and_nothing_but_the_target_is_left(
    cloner: CloneUser, leading: Controllers
) -> None:
    cloner.put_machine("data", run_strategy="Always")
    await cloner.server.until(lambda: cloner.restorer.instance() is not None)
    await cloner.clone()
    await cloner.until_phase("Succeeded")
    assert cloner.status["targetName"] == "twin"
    ready = cloner.condition("Ready")
    assert (ready["status"], ready["reason"]) == ("True", "Ready")
    twin = cloner.restorer.machine("twin")
    assert twin["spec"]["runStrategy"] == "Halted"
    claim = cloner.restorer.claim_of("data", "twin")
    assert claim["metadata"]["name"].startswith("restore-")
    assert claim["metadata"]["ownerReferences"][0]["uid"] == twin["metadata"]["uid"]
    await cloner.server.until(lambda: not (cloner.snapshots or cloner.restores))
    await cloner.server.until(lambda: "snapshotName" not in cloner.status)
    assert "restoreName" not in cloner.status
    assert cloner.restorer.instance() is not None
    for reason in (
        "SnapshotCreated",
        "SnapshotReady",
        "RestoreCreated",
        "RestoreReady",
        "TargetVMCreated",
        "PVCBound",
    ):
        await cloner.server.until(lambda reason=reason: len(cloner.events(reason)) == 1)  # type: ignore[misc]


async def test_a_target_has_nothing_that_makes_it_a_double(
    cloner: CloneUser, leading: Controllers
) -> None:
    cloner.put_machine()
    await cloner.restorer.edit("myvm", {"spec": {"template": {"spec": {"domain": DOMAIN}}}})
    await cloner.clone(newMacAddresses={"second": "02:00:00:00:00:09"})
    await cloner.until_phase("Succeeded")
    domain = cloner.restorer.machine("twin")["spec"]["template"]["spec"]["domain"]
    assert domain["firmware"] == {}
    addresses = [one.get("macAddress") for one in domain["devices"]["interfaces"]]
    assert addresses == [None, "02:00:00:00:00:09"]


async def test_an_interface_that_nobody_asked_for_can_have_an_address(
    cloner: CloneUser, leading: Controllers
) -> None:
    cloner.put_machine()
    address = "02:00:00:00:00:01"
    await cloner.clone(newMacAddresses={"default": address})
    await cloner.until_phase("Succeeded")
    spec = cloner.restorer.machine("twin")["spec"]["template"]["spec"]
    assert spec["networks"] == [{"name": "default", "pod": {}}]
    interface = {"name": "default", "masquerade": {}, "macAddress": address}
    assert spec["domain"]["devices"]["interfaces"] == [interface]


async def test_an_address_for_no_interface_fails_the_clone(
    cloner: CloneUser, leading: Controllers
) -> None:
    cloner.put_machine()
    await cloner.clone(newMacAddresses={"default": "", "third": "02:00:00:00:00:01"})
    await cloner.until_phase("Failed")
    why = "spec.newMacAddresses: the source has no interface third"
    assert cloner.condition("Ready")["message"] == why
    await cloner.server.until(lambda: cloner.events("RestoreCreationFailed") == [why])
    await cloner.server.until(lambda: not cloner.snapshots)
    assert cloner.restores == []


async def test_labels_and_annotations_are_taken_over_by_filters_and_patches_come_last(
    cloner: CloneUser, leading: Controllers
) -> None:
    cloner.put_machine()
    labels = {"a/x": "1", "a/y": "2", "b": "3"}
    patch = {"metadata": {"labels": labels}, "spec": {"template": {"metadata": {"labels": labels}}}}
    await cloner.restorer.edit("myvm", patch)
    await cloner.clone(
        labelFilters=["a/*", "!a/y"],
        template={"labelFilters": ["b"]},
        patches=['{"op": "add", "path": "/metadata/labels/c", "value": "4"}'],
    )
    await cloner.until_phase("Succeeded")
    twin = cloner.restorer.machine("twin")
    assert twin["metadata"]["labels"] == {"a/x": "1", "c": "4"}
    assert twin["spec"]["template"]["metadata"]["labels"] == {"b": "3"}


async def test_a_snapshot_is_cloned_and_stays(cloner: CloneUser, leading: Controllers) -> None:
    await cloner.restorer.keep("data")
    await cloner.clone(source=OF_SNAPSHOT)
    await cloner.until_phase("Succeeded")
    await cloner.server.until(lambda: not cloner.restores)
    assert cloner.snapshots == ["before"]
    await cloner.server.until(lambda: "snapshotName" not in cloner.status)


async def test_a_name_is_made_up_for_a_target_without_one(
    cloner: CloneUser, leading: Controllers
) -> None:
    cloner.put_machine()
    await cloner.clone(target=None)
    await cloner.until_phase("Succeeded")
    name = cloner.status["targetName"]
    assert name.startswith("clone-myvm-")
    assert cloner.restorer.machine(name)


async def test_a_source_that_is_not_there_is_waited_for(
    cloner: CloneUser, leading: Controllers
) -> None:
    await cloner.clone()
    await cloner.until_said("VirtualMachine myvm in namespace shop does not exist")
    assert cloner.condition("Progressing")["reason"] == "Pending"
    assert "phase" not in cloner.status
    cloner.put_machine()
    await cloner.until_phase("Succeeded")
    await cloner.server.until(lambda: len(cloner.events("SourceDoesNotExist")) == 1)


async def test_a_volume_that_there_can_be_no_snapshot_of_is_told(
    cloner: CloneUser, leading: Controllers
) -> None:
    cloner.restorer.snapshots.storage.provide("data", storage_class="slow")
    cloner.restorer.snapshots.put_machine("data")
    await cloner.clone()
    await cloner.until_said("Virtual Machine volume data does not support snapshots")
    assert cloner.snapshots == []


async def test_a_snapshot_without_the_content_of_a_volume_is_not_cloned(
    cloner: CloneUser, leading: Controllers
) -> None:
    cloner.restorer.snapshots.storage.provide("data", storage_class="slow")
    cloner.restorer.snapshots.put_machine("data")
    await cloner.restorer.snapshots.take()
    await cloner.restorer.snapshots.until_ready()
    await cloner.clone(source=OF_SNAPSHOT)
    await cloner.until_phase("Failed")
    assert "volume data is not backed up in snapshot before" in cloner.condition("Ready")["message"]
    await cloner.server.until(lambda: bool(cloner.events("SnapshotContentInvalid")))


async def test_a_snapshot_that_lost_a_volume_snapshot_is_not_cloned(
    cloner: CloneUser, leading: Controllers
) -> None:
    await cloner.restorer.keep("data")
    [lost] = cloner.restorer.snapshots.volume_snapshots
    name = lost["metadata"]["name"]
    cloner.server.remove(VOLUME_SNAPSHOTS, ObjectKey("shop", name))
    kept = cloner.restorer.snapshots
    await cloner.server.until(lambda: kept.status.get("readyToUse") is False)
    await cloner.clone(source=OF_SNAPSHOT)
    await cloner.until_phase("Failed")
    why = f"snapshot before is not ready anymore: VolumeSnapshots ({name}) missing"
    assert cloner.condition("Ready")["message"] == why
    await cloner.server.until(lambda: cloner.events("SnapshotContentInvalid") == [why])
    assert cloner.snapshots == ["before"]


async def test_a_machine_that_is_there_is_never_a_target(
    cloner: CloneUser, leading: Controllers
) -> None:
    """Not even the one that the snapshot is of: a restore would make it what it was."""
    await cloner.restorer.keep("data")
    before = cloner.restorer.machine()["spec"]
    target = {"apiGroup": "kubevirt.io", "kind": "VirtualMachine", "name": "myvm"}
    await cloner.clone(source=OF_SNAPSHOT, target=target)
    await cloner.until_phase("Failed")
    assert cloner.restores == []
    assert cloner.restorer.machine()["spec"] == before


async def test_a_restore_that_fails_fails_the_clone(
    cloner: CloneUser, leading: Controllers
) -> None:
    cloner.put_machine()
    await cloner.clone(patches=['{"op": "remove", "path": "/spec/nothing"}'])
    await cloner.until_phase("Failed")
    message = cloner.condition("Ready")["message"]
    assert "spec.patches[0]: there is nothing at the path" in message


async def test_nothing_is_left_of_a_clone_that_fails(
    cloner: CloneUser, leading: Controllers
) -> None:
    cloner.put_machine("data")
    await cloner.clone(patches=['{"op": "remove", "path": "/spec/nothing"}'])
    await cloner.until_phase("Failed")
    message = cloner.condition("Ready")["message"]
    await cloner.server.until(lambda: not (cloner.snapshots or cloner.restores))
    await cloner.server.until(lambda: not cloner.restorer.snapshots.volume_snapshots)
    await cloner.server.until(lambda: "snapshotName" not in cloner.status)
    assert "restoreName" not in cloner.status
    assert not cloner.restorer.snapshots.is_locked
    assert cloner.condition("Ready")["message"] == message
    assert cloner.events("PVCBound") == []


async def test_the_snapshot_stays_until_the_claims_have_their_content(
    cloner: CloneUser, leading: Controllers
) -> None:
    late = {"volumeBindingMode": "WaitForFirstConsumer", "provisioner": "csi.test"}
    cloner.server.put(STORAGE_CLASSES, {"metadata": {"name": "fast"}, **late})
    cloner.put_machine("data")
    await cloner.clone()
    await cloner.until_phase("Succeeded")
    uid = (cloner.body or {})["metadata"]["uid"]
    assert cloner.status["snapshotName"] == f"tmp-snapshot-{uid}"
    assert cloner.status["restoreName"] == f"tmp-restore-{uid}"
    claim = cloner.restorer.claim_of("data", "twin")
    bound = {"phase": "Bound", "capacity": {"storage": "10Gi"}}
    cloner.server.put(PERSISTENT_VOLUME_CLAIMS, claim | {"status": bound})
    await cloner.server.until(lambda: not (cloner.snapshots or cloner.restores))


async def test_a_snapshot_that_is_taken_away_fails_the_clone(
    cloner: CloneUser, leading: Controllers
) -> None:
    cloner.server.is_forbidden = lambda request: (
        request.method == "POST" and request.path.endswith("/virtualmachinerestores")
    )
    cloner.put_machine()
    await cloner.clone()
    await cloner.until_phase("RestoreInProgress")
    await cloner.until_said("The VirtualMachineRestore cannot be created")
    [name] = cloner.snapshots
    cloner.server.remove(SNAPSHOTS, ObjectKey("shop", name))
    await cloner.until_phase("Failed")
    assert f"snapshot {name} does not exist anymore" in cloner.condition("Ready")["message"]


async def test_a_clone_goes_after_its_target(cloner: CloneUser, leading: Controllers) -> None:
    cloner.put_machine()
    await cloner.clone()
    await cloner.until_phase("Succeeded")
    await cloner.delete_machine("twin")
    await cloner.server.until(lambda: cloner.body is None)


async def test_the_marks_of_restores_are_not_taken_over(
    cloner: CloneUser, leading: Controllers
) -> None:
    cloner.put_machine()
    mark = {snapshot_names.LAST_RESTORE_ANNOTATION: "old"}
    await cloner.restorer.edit("myvm", {"metadata": {"annotations": mark}})
    await cloner.clone(annotationFilters=[])
    await cloner.until_phase("Succeeded")
    annotations = cloner.restorer.machine("twin")["metadata"]["annotations"]
    assert list(annotations) == [snapshot_names.LAST_RESTORE_ANNOTATION]
    assert annotations[snapshot_names.LAST_RESTORE_ANNOTATION].startswith("tmp-restore-")
    assert cloner.server.get(VIRTUAL_MACHINES, ObjectKey("shop", "myvm"))


async def test_a_clone_costs_what_the_ledger_says(cloner: CloneUser, leading: Controllers) -> None:
    cloner.put_machine("data")
    await cloner.server.until(
        lambda: "volumeSnapshotStatuses" in cloner.restorer.machine().get("status", {})
    )
    cloner.server.requests.clear()
    await cloner.clone()
    await cloner.until_phase("Succeeded")
    await cloner.server.until(lambda: "snapshotName" not in cloner.status)
    written = writes(cloner.server, "/namespaces/shop/")
    own = {
        what: count
        for what, count in written.items()
        if what.endswith("clones") or not what.startswith("PATCH")
    }
    assert own.pop("POST persistentvolumeclaims") == 1
    assert own.pop("POST volumesnapshots") == 1
    assert own.pop("POST virtualmachinesnapshotcontents") == 1
    assert own.pop("DELETE virtualmachinesnapshotcontents") == 1
    assert own.pop("POST virtualmachines") == 1
    assert sum(own.values()) <= 10, own
