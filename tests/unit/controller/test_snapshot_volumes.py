"""Which volumes there can be a snapshot of, by which class, and why not of the others."""

from typing import Any

import msgspec
import pytest
from podvisor_common.api import core, v1
from podvisor_common.api.snapshot import VirtualMachineSnapshotContent
from podvisor_common.api.storage import StorageClass, VolumeSnapshotClass
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.resources import (
    STORAGE_CLASSES,
    VOLUME_SNAPSHOT_CLASSES,
    ObjectKey,
)
from podvisor_controller.snapshot import volumes
from podvisor_controller.snapshot.class_reader import ClassReader
from podvisor_controller.snapshot.classes import SnapshotClasses, matched
from podvisor_controller.snapshot.outline import content_outline, kept_volumes
from podvisor_controller.vmi.outline import claim_outline

from tests.unit.controller.api_server import ApiServer, Json
from tests.unit.controller.builders import claim, claim_body, vm
from tests.unit.controller.snapshots import on_claims, volume_statuses
from tests.unit.kube.fake_apiserver import Refuse

CLASSES = SnapshotClasses({"fast": "snaps"})


def storage_class(name: str, provisioner: str) -> StorageClass:
    body = {"metadata": {"name": name}, "provisioner": provisioner}
    return msgspec.convert(body, StorageClass)


def snapshot_class(name: str, driver: str, *, is_default: str = "") -> VolumeSnapshotClass:
    annotations = {"snapshot.storage.kubernetes.io/is-default-class": is_default}
    body = {"metadata": {"name": name, "annotations": annotations}, "driver": driver}
    return msgspec.convert(body, VolumeSnapshotClass)


def claim_of(name: str, storage: str | None = "fast", **changes: Any) -> core.PersistentVolumeClaim:
    body = claim_body(name, **changes)
    if storage is not None:
        body["spec"]["storageClassName"] = storage
    return msgspec.convert(body, core.PersistentVolumeClaim)


def machine(*claims: str, more: list[Json] | None = None) -> v1.VirtualMachine:
    spec = on_claims(*claims)
    spec["template"]["spec"]["volumes"] += more or []
    return vm(spec=spec)


def test_the_default_class_of_a_driver_goes_before_the_first_by_name() -> None:
    storage = [storage_class("fast", "a"), storage_class("slow", "b"), storage_class("none", "c")]
    snapshots = [
        snapshot_class("z", "a"),
        snapshot_class("y", "b"),
        snapshot_class("x", "b", is_default="true"),
        snapshot_class("b", "a", is_default="false"),
    ]
    assert matched(storage, snapshots).of_storage_class == {"fast": "b", "slow": "x"}


def test_only_claims_of_the_machines_own_are_kept() -> None:
    ephemeral = {"name": "copy", "ephemeral": {"persistentVolumeClaim": {"claimName": "base"}}}
    disk = {"name": "disk", "dataVolume": {"name": "disk"}}
    plugged = {
        "name": "plugged",
        "persistentVolumeClaim": {"claimName": "plugged", "hotpluggable": True},
    }
    known = {name: claim_of(name) for name in ("data", "base", "disk", "plugged")}
    known["slow"] = claim_of("slow", "slow")
    kept = volumes.to_keep(
        machine("data", "slow", more=[ephemeral, disk, plugged]), known.get, CLASSES
    )
    assert [volume.name for volume in kept] == ["data", "disk", "plugged"]


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (claim_of("data"), ""),
        (None, 'Volume "data": PersistentVolumeClaim "data" does not exist.'),
        (
            claim_of("data", capacity=""),
            'Volume "data": PersistentVolumeClaim "data" is not bound yet.',
        ),
        (
            claim_of("data", deletionTimestamp="2026-01-01T00:00:00Z"),
            'Volume "data": PersistentVolumeClaim "data" is being deleted.',
        ),
        # It is left out, whatever becomes of it.
        (claim_of("data", "slow", capacity=""), ""),
        (claim_of("data", None, capacity=""), ""),
    ],
)
def test_a_claim_that_is_kept_must_be_there(
    found: core.PersistentVolumeClaim | None, why: str
) -> None:
    assert volumes.hindrance(machine("data"), lambda _: found, CLASSES) == why


def test_a_claim_of_a_stopped_machine_must_be_nobody_elses() -> None:
    user = ObjectKey("shop", "other")
    assert "in use by VirtualMachineInstance shop/other" in volumes.contention(
        machine("data"), lambda _: [user]
    )
    assert volumes.contention(machine("data"), lambda _: []) == ""


def test_every_volume_has_a_status() -> None:
    told = volumes.statuses(machine("data", "lost"), {"data": claim_of("data")}.get, CLASSES)
    assert [(one.name, one.enabled, one.reason) for one in told] == [
        ("root", False, "Snapshot is not supported for this volumeSource type [root]"),
        ("data", True, ""),
        ("lost", False, "PVC not found"),
    ]


def test_the_cache_knows_the_class_of_a_claim() -> None:
    assert claim_outline(claim_of("data")).spec.storage_class_name == "fast"
    assert claim_outline(claim("data")).spec.storage_class_name is None


def test_the_cache_has_no_more_of_a_content_than_names() -> None:
    source = {
        "metadata": {"name": "myvm", "annotations": {"a": "b"}},
        "spec": {
            "template": {
                "spec": {
                    "domain": {"large": "x" * 100},
                    "volumes": [{"name": "seed", "cloudInitNoCloud": {"userData": "hunter2"}}],
                }
            }
        },
    }
    backup = {
        "volumeName": "data",
        "persistentVolumeClaim": {
            "metadata": {"name": "data", "labels": {"a": "b"}},
            "spec": {"storageClassName": "fast", "volumeMode": "Block"},
        },
    }
    body = {
        "metadata": {"name": "c", "namespace": "shop"},
        "spec": {"source": {"virtualMachine": source}, "volumeBackups": [backup]},
    }
    kept = content_outline(msgspec.convert(body, VirtualMachineSnapshotContent))
    assert kept_volumes(kept) == [{"name": "seed", "cloudInitNoCloud": {}}]
    text = msgspec.json.encode(kept).decode()
    assert "hunter2" not in text
    assert "large" not in text
    [one] = kept.spec.volume_backups or []
    assert one.persistent_volume_claim == {
        "metadata": {"name": "data"},
        "spec": {"storageClassName": "fast"},
    }


@pytest.mark.parametrize("machine_of", [None, {"spec": None}, {"spec": {"template": []}}])
def test_a_content_of_somebodys_own_making_harms_nobody(machine_of: Any) -> None:
    source = {} if machine_of is None else {"virtualMachine": machine_of}
    body = {"metadata": {"name": "c"}, "spec": {"source": source}}
    assert kept_volumes(content_outline(msgspec.convert(body, VirtualMachineSnapshotContent))) == []


async def test_classes_are_read_once_in_a_while(server: ApiServer, client: KubeClient) -> None:
    server.put(STORAGE_CLASSES, {"metadata": {"name": "fast"}, "provisioner": "a"})
    server.put(VOLUME_SNAPSHOT_CLASSES, {"metadata": {"name": "snaps"}, "driver": "a"})
    reader = ClassReader(client)
    assert (await reader.read()).find("fast") == "snaps"
    server.put(VOLUME_SNAPSHOT_CLASSES, {"metadata": {"name": "a-first"}, "driver": "a"})
    assert (await reader.read()).find("fast") == "snaps"
    assert len([r for r in server.requests if "classes" in r.path]) == 2
    assert (await reader.read(at_most_s=0)).find("fast") == "a-first"


async def test_a_cluster_without_snapshots_has_no_classes(
    server: ApiServer, client: KubeClient
) -> None:
    server.absent.add("snapshot.storage.k8s.io")
    reader = ClassReader(client)
    assert (await reader.read()).find("fast") is None
    await reader.read()
    assert len(server.absent_asked) == 1


async def test_what_cannot_be_found_out_stays_as_it_was_said(
    server: ApiServer, client: KubeClient
) -> None:
    said = [{"name": "data", "enabled": True}]
    spoken_of = vm(spec=on_claims("data"), status={"volumeSnapshotStatuses": said})
    server.refuse("GET", "/volumesnapshotclasses", Refuse(503))
    statuses = volume_statuses(client)
    # The second time, nobody is asked: the answer would come late, or be the same.
    for _ in range(2):
        assert await statuses.of(spoken_of) == spoken_of.status.volume_snapshot_statuses
    assert server.requests == []
