"""Snapshots of machines against an API server on a real socket, with a storage driver that does its part."""

from collections import Counter
from datetime import timedelta

from podvisor_common.api import meta
from podvisor_common.api.snapshot import names
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.resources import (
    PERSISTENT_VOLUME_CLAIMS,
    SNAPSHOT_CONTENTS,
    SNAPSHOTS,
    VIRTUAL_MACHINE_INSTANCES,
    VIRTUAL_MACHINES,
    VOLUME_SNAPSHOT_CLASSES,
    VOLUME_SNAPSHOTS,
    ObjectKey,
)
from podvisor_controller.controllers import Controllers

from tests.unit.controller.snapshots import KEY, SnapshotUser
from tests.unit.kube.fake_apiserver import Refuse

MYVM = ObjectKey("shop", "myvm")


async def test_a_machine_is_kept_with_its_claims(user: SnapshotUser, leading: Controllers) -> None:
    user.put_machine_and_claims("data", "logs")
    await user.take()
    await user.until_ready()
    status = user.status
    assert status["phase"] == "Succeeded"
    assert status["snapshotVolumes"] == {
        "includedVolumes": ["data", "logs"],
        "excludedVolumes": ["root"],
    }
    assert "indications" not in status
    assert user.condition("Ready")["status"] == "True"
    assert user.condition("Progressing")["reason"] == "Operation complete"
    [kept] = user.contents
    assert kept["metadata"]["name"] == status["virtualMachineSnapshotContentName"]
    machine = kept["spec"]["source"]["virtualMachine"]
    assert machine["spec"] == user.machine["spec"]
    assert machine["metadata"]["name"] == "myvm"
    assert "status" not in machine
    claims = [backup["persistentVolumeClaim"] for backup in kept["spec"]["volumeBackups"]]
    stored = [
        user.server.get(PERSISTENT_VOLUME_CLAIMS, ObjectKey("shop", name)) or {}
        for name in ("data", "logs")
    ]
    assert claims == [{key: one[key] for key in ("metadata", "spec")} for one in stored]
    uid = (user.body or {})["metadata"]["uid"]
    assert [
        (one["metadata"]["name"], one["spec"]["source"], one["spec"]["volumeSnapshotClassName"])
        for one in user.volume_snapshots
    ] == [
        (f"vmsnapshot-{uid}-volume-{name}", {"persistentVolumeClaimName": name}, "snaps")
        for name in ("data", "logs")
    ]
    await user.server.until(lambda: len(user.events("SuccessfulVolumeSnapshotCreate")) == 2)
    assert len(user.events("SuccessfulVirtualMachineSnapshotContentCreate")) == 1


async def test_what_no_manifest_of_ours_knows_is_kept_as_well(
    user: SnapshotUser, leading: Controllers
) -> None:
    user.put_machine()
    machine = user.machine
    machine["spec"]["template"]["spec"]["fieldOfTheFuture"] = {"a": [1]}
    machine["metadata"]["managedFields"] = [{"manager": "kubectl"}]
    user.server.put(VIRTUAL_MACHINES, machine)
    await user.take()
    await user.until_ready()
    kept = user.contents[0]["spec"]["source"]["virtualMachine"]
    assert kept["spec"]["template"]["spec"]["fieldOfTheFuture"] == {"a": [1]}
    assert "managedFields" not in kept["metadata"]
    assert names.SOURCE_FINALIZER not in kept["metadata"]["finalizers"]


async def test_a_machine_without_claims_is_kept_where_there_are_no_snapshots_at_all(
    user: SnapshotUser, leading: Controllers
) -> None:
    user.server.absent.add("snapshot.storage.k8s.io")
    user.put_machine()
    await user.take()
    await user.until_ready()
    assert user.status["snapshotVolumes"] == {"excludedVolumes": ["root"]}
    assert user.server.absent_asked == []


async def test_claims_without_a_class_are_left_out_and_said_to_be(
    user: SnapshotUser, leading: Controllers
) -> None:
    user.storage.provide("data")
    user.storage.provide("files", storage_class="slow", capacity="")
    user.put_machine("data", "files")
    await user.take()
    await user.until_ready()
    assert user.status["snapshotVolumes"]["excludedVolumes"] == ["root", "files"]
    assert user.status["indications"] == ["PartialSnapshot"]
    await user.server.until(lambda: "volumeSnapshotStatuses" in user.machine["status"])
    told = {one["name"]: one for one in user.machine["status"]["volumeSnapshotStatuses"]}
    assert told["data"] == {"name": "data", "enabled": True}
    assert told["files"]["reason"] == (
        "No VolumeSnapshotClass: Volume snapshots are not configured for this StorageClass [slow] [files]"
    )
    assert told["root"]["reason"].startswith("Snapshot is not supported for this volumeSource")


async def test_a_claim_is_left_out_in_a_cluster_without_snapshots(
    user: SnapshotUser, leading: Controllers
) -> None:
    user.server.absent.add("snapshot.storage.k8s.io")
    user.put_machine_and_claims("data")
    await user.take()
    await user.until_ready()
    assert user.status["snapshotVolumes"]["excludedVolumes"] == ["root", "data"]
    asked = {path.rpartition("/")[2] for path in user.server.absent_asked}
    assert asked == {"volumesnapshotclasses"}


async def test_the_state_of_a_running_guest_is_indicated(
    user: SnapshotUser, leading: Controllers
) -> None:
    user.put_machine(run_strategy="Always")
    await user.server.until(
        lambda: (
            (user.server.get(VIRTUAL_MACHINE_INSTANCES, MYVM) or {}).get("status", {}).get("phase")
            == "Running"
        )
    )
    await user.take()
    await user.until_ready()
    assert user.status["indications"] == ["NoGuestAgent", "Online"]
    assert [one["indication"] for one in user.status["sourceIndications"]] == [
        "NoGuestAgent",
        "Online",
    ]


async def test_a_machine_that_does_not_exist_is_waited_for(
    user: SnapshotUser, leading: Controllers
) -> None:
    await user.take()
    await user.server.until(
        lambda: user.condition("Progressing").get("reason") == "Source does not exist"
    )
    assert "myvm" in user.condition("Progressing")["message"]
    user.put_machine()
    await user.until_ready()


async def test_one_snapshot_of_a_machine_is_taken_after_another(
    user: SnapshotUser, leading: Controllers
) -> None:
    await user.begin_to_take()
    await user.take(metadata={"name": "second"})
    second = ObjectKey("shop", "second")

    def why() -> str:
        body = user.server.get(SNAPSHOTS, second) or {}
        conditions = body.get("status", {}).get("conditions", [])
        return next((c["message"] for c in conditions if c["type"] == "Progressing"), "")

    await user.server.until(lambda: bool(why()))
    assert why() == 'VirtualMachineSnapshot "before" of the same machine is in progress.'
    user.storage.takes = lambda _: True
    # The driver looks again when something happens.
    user.server.put(VOLUME_SNAPSHOTS, user.volume_snapshots[0])
    await user.server.until(
        lambda: (
            (user.server.get(SNAPSHOTS, second) or {}).get("status", {}).get("readyToUse", False)
        )
    )
    assert user.status["readyToUse"] is True


async def test_what_takes_too_long_fails_and_leaves_nothing(
    user: SnapshotUser, leading: Controllers
) -> None:
    user.storage.takes = lambda _: False
    user.put_machine_and_claims("data")
    await user.take(failureDeadline="1h")
    await user.server.until(
        lambda: user.condition("Progressing").get("message", "").endswith("are not taken yet.")
    )
    assert user.body is not None
    an_hour_ago = meta.format_time(meta.now() - timedelta(seconds=3599))
    # What it waits for is known by now; that the rest of its time is over, no event tells.
    almost_over = user.body["metadata"] | {"creationTimestamp": an_hour_ago}
    user.server.put(SNAPSHOTS, user.body | {"metadata": almost_over})
    await user.server.until(lambda: user.status.get("phase") == "Failed")
    failure = user.condition("Failure")
    assert failure["reason"] == "snapshot deadline exceeded"
    assert failure["message"].endswith("-volume-data) are not taken yet.")
    assert user.condition("Ready")["status"] == "False"
    await user.until_free()
    await user.server.until(lambda: not user.contents and not user.volume_snapshots)
    await user.delete()
    await user.server.until(lambda: user.body is None)


async def test_what_the_driver_says_is_told(user: SnapshotUser, leading: Controllers) -> None:
    await user.begin_to_take()
    [one] = user.volume_snapshots
    user.storage.report(one, error={"message": "out of space"}, readyToUse=False)
    await user.server.until(
        lambda: "out of space" in user.status.get("error", {}).get("message", "")
    )
    assert user.condition("Progressing")["reason"] == "In error state"
    user.storage.report(one, creationTime="2026-01-01T00:00:00Z", readyToUse=True)
    await user.until_ready()
    assert "error" not in user.status


async def test_a_machine_is_free_when_all_was_taken_and_not_only_when_it_is_ready(
    user: SnapshotUser, leading: Controllers
) -> None:
    user.storage.is_quick = False
    user.put_machine_and_claims("data")
    await user.take()
    await user.server.until(lambda: user.status.get("phase") == "Succeeded")
    await user.until_free()
    assert user.status["readyToUse"] is False
    [one] = user.volume_snapshots
    user.storage.report(one, creationTime="2026-01-01T00:00:00Z", readyToUse=True)
    await user.until_ready()


async def test_a_deleted_snapshot_takes_everything_along(
    user: SnapshotUser, leading: Controllers
) -> None:
    user.put_machine_and_claims("data")
    await user.take()
    await user.until_ready()
    await user.delete()
    await user.server.until(lambda: user.body is None)
    await user.server.until(lambda: not user.contents and not user.volume_snapshots)


async def test_a_retained_content_stays_and_may_go_later(
    user: SnapshotUser, users: KubeClient, leading: Controllers
) -> None:
    user.put_machine_and_claims("data")
    await user.take(deletionPolicy="Retain")
    await user.until_ready()
    await user.delete()
    await user.server.until(lambda: user.body is None)
    assert len(user.volume_snapshots) == 1
    [kept] = user.contents
    await users.delete(SNAPSHOT_CONTENTS, ObjectKey("shop", kept["metadata"]["name"]))
    await user.server.until(lambda: not user.contents and not user.volume_snapshots)


async def test_a_snapshot_that_is_deleted_midway_frees_its_machine(
    user: SnapshotUser, leading: Controllers
) -> None:
    await user.begin_to_take()
    await user.delete()
    await user.server.until(lambda: user.body is None)
    assert not user.is_locked
    assert not user.contents


async def test_a_snapshot_that_was_torn_away_frees_its_machine_and_its_content(
    user: SnapshotUser, users: KubeClient, leading: Controllers
) -> None:
    await user.begin_to_take()
    user.server.remove(SNAPSHOTS, KEY)
    await user.until_free()
    await user.server.until(lambda: not user.contents[0]["metadata"].get("finalizers"))


async def test_a_volume_snapshot_that_vanished_is_told_of_once(
    user: SnapshotUser, leading: Controllers
) -> None:
    user.put_machine_and_claims("data")
    await user.take()
    await user.until_ready()
    [one] = user.volume_snapshots
    name = one["metadata"]["name"]
    user.server.remove(VOLUME_SNAPSHOTS, ObjectKey("shop", name))
    await user.server.until(lambda: user.status.get("readyToUse") is False)
    assert user.status["error"]["message"] == f"VolumeSnapshots ({name}) missing"
    await user.server.until(lambda: bool(user.events("VolumeSnapshotMissing")))
    assert user.events("VolumeSnapshotMissing") == [f"VolumeSnapshot {name} no longer exists"]
    assert user.status["phase"] == "Succeeded"


async def test_a_machine_that_is_deleted_stays_until_its_snapshot_is_taken(
    user: SnapshotUser, users: KubeClient, leading: Controllers
) -> None:
    await user.begin_to_take()
    await users.delete(VIRTUAL_MACHINES, MYVM)
    await user.server.until(
        lambda: user.machine["metadata"].get("finalizers") == [names.SOURCE_FINALIZER]
    )
    user.storage.takes = lambda _: True
    user.server.put(VOLUME_SNAPSHOTS, user.volume_snapshots[0])
    await user.server.until(lambda: user.server.get(VIRTUAL_MACHINES, MYVM) is None)
    await user.server.until(lambda: user.status.get("readyToUse") is True)


async def test_a_refusal_is_told_and_tried_again(user: SnapshotUser, leading: Controllers) -> None:
    user.put_machine_and_claims("data")
    user.server.refuse("POST", "/volumesnapshots", Refuse(403, "Forbidden", "quota"))
    await user.take()
    await user.server.until(lambda: "quota" in user.status.get("error", {}).get("message", ""))
    await user.until_ready()
    assert "error" not in user.status


def writes(user: SnapshotUser) -> Counter[str]:
    """What the controller wrote about snapshots and their machine, events apart."""
    return Counter(
        f"{request.method} {request.path.split('/')[6]}"
        for request in user.server.requests
        if request.method != "GET"
        and request.headers["User-Agent"] != "users"
        and "events" not in request.path
        and request.path.startswith("/apis/")
        and "/namespaces/shop/" in request.path
    )


async def test_a_snapshot_costs_what_the_ledger_says(
    user: SnapshotUser, leading: Controllers
) -> None:
    user.put_machine_and_claims("data", "logs")
    await user.server.until(lambda: "volumeSnapshotStatuses" in user.machine.get("status", {}))
    user.server.requests.clear()
    await user.take()
    await user.until_ready()
    taking = writes(user)
    assert taking["POST volumesnapshots"] == 2
    assert taking["POST virtualmachinesnapshotcontents"] == 1
    assert taking["PATCH virtualmachines"] == 4
    assert taking.total() <= 2 + 12, taking
    user.server.requests.clear()
    await user.delete()
    await user.server.until(lambda: user.body is None)
    assert writes(user).total() <= 4, writes(user)


async def test_classes_are_not_read_for_every_machine(
    user: SnapshotUser, leading: Controllers
) -> None:
    user.put_machine_and_claims("data")
    await user.server.until(lambda: "volumeSnapshotStatuses" in user.machine.get("status", {}))
    generation = user.machine["metadata"]["generation"]

    def is_seen() -> bool:
        return bool(user.machine["status"].get("desiredGeneration") == generation)

    for _ in range(3):
        generation += 1
        metadata = user.machine["metadata"] | {"generation": generation}
        user.server.put(VIRTUAL_MACHINES, user.machine | {"metadata": metadata})
        await user.server.until(is_seen)
    plural = VOLUME_SNAPSHOT_CLASSES.plural
    assert len([r for r in user.server.requests if r.path.endswith(plural)]) == 1
