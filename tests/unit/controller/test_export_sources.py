"""Exports of machines and of snapshots, against an API server on a real socket."""

import json

import pytest
from podvisor_common.kube.resources import (
    PERSISTENT_VOLUME_CLAIMS,
    SNAPSHOT_CONTENTS,
    SNAPSHOTS,
    VOLUME_SNAPSHOTS,
    ObjectKey,
)
from podvisor_controller.controllers import Controllers

from tests.unit.controller.api_server import ApiServer, Json
from tests.unit.controller.exports import (
    MACHINE,
    SNAPSHOT,
    ExportUser,
    start,
)
from tests.unit.controller.snapshots import snapshot_body

BASE = "https://virt-export-copy.shop.svc"
CONTENT = ObjectKey("shop", "vmsnapshot-content-1")


async def test_all_claims_of_a_machine(exports: ExportUser, leading: Controllers) -> None:
    exports.provide("data")
    exports.provide("logs", mode="Block")
    exports.put_machine("data", "logs")
    await exports.ask(MACHINE)
    await exports.until_pod()
    exports.run_pod(0, 1)
    links = await exports.until_ready()
    assert [volume["name"] for volume in links["volumes"]] == ["data", "logs"]
    assert links["manifests"][0] == {"type": "all", "url": f"{BASE}/internal/manifests/all"}
    assert exports.status["virtualMachineName"] == "myvm"
    identity = exports.identity
    assert identity is not None
    told = json.loads(identity["manifests.json"])
    assert told["host"] == "virt-export-copy.shop.svc"
    assert told["machine"]["spec"]["runStrategy"] == "Halted"
    assert set(told["machine"]["metadata"]) == {"name", "namespace"}
    assert [claim["name"] for claim in told["claims"]] == ["data", "logs"]
    assert told["claims"][1]["spec"]["volumeMode"] == "Block"


@pytest.mark.parametrize("run_strategy", ["Always", "Halted"])
async def test_a_machine_that_runs_is_not_exported(
    exports: ExportUser,
    leading: Controllers,
    run_strategy: str,
) -> None:
    exports.provide()
    start(exports.server)
    exports.put_machine("data", run_strategy=run_strategy)
    await exports.ask(MACHINE)
    told = await exports.until_reason("InUse")
    assert told["message"] == "Virtual Machine shop/myvm is running"
    assert exports.pod is None


async def test_a_machine_without_claims_is_skipped(
    exports: ExportUser, leading: Controllers
) -> None:
    exports.put_machine()
    await exports.ask(MACHINE)
    await exports.until_reason("VMNoVolumes")
    assert exports.status["phase"] == "Skipped"
    assert exports.pod is None


async def test_a_machine_that_is_not_there_is_waited_for(
    exports: ExportUser, leading: Controllers
) -> None:
    exports.provide()
    await exports.ask(MACHINE)
    await exports.until_reason("VMNotFound")
    exports.put_machine("data")
    await exports.until_pod()


KEPT: Json = {"template": {"spec": {"domain": {"devices": {}}}}}


def put_snapshot(server: ApiServer, *, is_ready: bool = True) -> None:
    name = CONTENT.name
    status = {
        "phase": "Succeeded",
        "readyToUse": is_ready,
        "virtualMachineSnapshotContentName": name,
    }
    body = snapshot_body(status=status)
    del body["metadata"]["resourceVersion"]
    server.put(SNAPSHOTS, body)
    claim = {
        "metadata": {"name": "data"},
        "spec": {
            "storageClassName": "fast",
            "volumeName": "pv-1",
            "selector": {"matchLabels": {"disk": "1"}},
            "volumeAttributesClassName": "gold",
            "dataSourceRef": {"kind": "VolumeSnapshot", "name": "of-another"},
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }
    content = {
        "metadata": {"namespace": "shop", "name": name},
        "spec": {
            "virtualMachineSnapshotName": "before",
            "source": {"virtualMachine": {"metadata": {"name": "myvm"}, "spec": KEPT}},
            "volumeBackups": [
                {
                    "volumeName": "data",
                    "persistentVolumeClaim": claim,
                    "volumeSnapshotName": "vs-data",
                }
            ],
        },
        "status": {"readyToUse": is_ready},
    }
    server.put(SNAPSHOT_CONTENTS, content)
    labels = {"snapshot.kubevirt.io/source-vm-name": "myvm"}
    taken = {
        "metadata": {"namespace": "shop", "name": "vs-data", "labels": labels},
        "status": {"readyToUse": is_ready, "restoreSize": "2Gi"},
    }
    server.put(VOLUME_SNAPSHOTS, taken)


async def test_what_a_snapshot_has_kept(exports: ExportUser, leading: Controllers) -> None:
    server, restored = exports.server, ObjectKey("shop", "copy-data")
    put_snapshot(server)
    await exports.ask(SNAPSHOT)
    await server.until(lambda: server.get(PERSISTENT_VOLUME_CLAIMS, restored) is not None)
    claim = server.get(PERSISTENT_VOLUME_CLAIMS, restored) or {}
    assert claim["spec"] == {
        "storageClassName": "fast",
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "2Gi"}},
        "dataSource": {
            "apiGroup": "snapshot.storage.k8s.io",
            "kind": "VolumeSnapshot",
            "name": "vs-data",
        },
    }
    assert claim["metadata"]["ownerReferences"][0]["kind"] == "VirtualMachineExport"
    await exports.until_pod()
    await exports.until_reason("NotAllPVCsReady", "VolumesCreated")
    server.put(PERSISTENT_VOLUME_CLAIMS, claim | {"status": {"phase": "Bound"}})
    exports.run_pod(0)
    [volume] = (await exports.until_ready())["volumes"]
    assert volume["name"] == "data"
    assert volume["formats"][0]["url"] == f"{BASE}/volumes/copy-data/disk.img"
    assert exports.status["virtualMachineName"] == "myvm"
    await exports.until_reason("AllPVCsReady", "VolumesCreated")
    identity = exports.identity
    assert identity is not None
    told = json.loads(identity["manifests.json"])
    assert told["machine"]["spec"] == KEPT
    assert [(one["name"], one["volume"]) for one in told["claims"]] == [("data", "copy-data")]


@pytest.mark.parametrize(
    "claim",
    [
        {},
        {"metadata": {}, "spec": {}},
        {"metadata": {"name": "data"}, "spec": "x"},
        {"metadata": {"name": "data"}, "spec": {"resources": []}},
    ],
)
async def test_a_damaged_content_is_told_of(
    exports: ExportUser, leading: Controllers, claim: Json
) -> None:
    put_snapshot(exports.server)
    content = exports.server.get(SNAPSHOT_CONTENTS, CONTENT) or {}
    content["spec"]["volumeBackups"][0]["persistentVolumeClaim"] = claim
    exports.server.put(SNAPSHOT_CONTENTS, content)
    await exports.ask(SNAPSHOT)
    message = f'VMSnapshotContent {CONTENT.name} holds no PersistentVolumeClaim of volume "data".'
    await exports.server.until(lambda: exports.condition("Ready").get("message") == message)
    assert exports.pod is None


async def test_a_machine_that_is_kept_damaged_is_told_of_until_it_is_mended(
    exports: ExportUser, leading: Controllers
) -> None:
    put_snapshot(exports.server)
    content = exports.server.get(SNAPSHOT_CONTENTS, CONTENT) or {}
    content["spec"]["source"]["virtualMachine"]["spec"] = "x"
    exports.server.put(SNAPSHOT_CONTENTS, content)
    await exports.ask(SNAPSHOT)
    message = f"VMSnapshotContent {CONTENT.name} holds no VirtualMachine."
    await exports.server.until(lambda: exports.condition("Ready").get("message") == message)
    put_snapshot(exports.server)
    await exports.until_pod()
    await exports.server.until(lambda: not exports.condition("Ready").get("message"))


async def test_a_snapshot_that_is_not_ready_is_waited_for(
    exports: ExportUser, leading: Controllers
) -> None:
    put_snapshot(exports.server, is_ready=False)
    await exports.ask(SNAPSHOT)
    told = await exports.until_reason("NotAllPVCsCreated", "VolumesCreated")
    assert told["message"] == "VirtualMachineSnapshot shop/before is not ready to use"
    put_snapshot(exports.server)
    await exports.until_pod()


async def test_a_claim_of_somebody_elses_is_never_taken_for_a_restored_one(
    exports: ExportUser, leading: Controllers
) -> None:
    exports.provide("copy-data")
    put_snapshot(exports.server)
    await exports.ask(SNAPSHOT)
    why = "PersistentVolumeClaim copy-data is in the way"
    await exports.server.until(lambda: why in exports.condition("Ready").get("message", ""))
    assert exports.pod is None
