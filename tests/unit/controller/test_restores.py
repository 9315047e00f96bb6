"""Restores of machines against an API server on a real socket, with a storage driver that does its part."""

from collections.abc import Sequence

import pytest
from podvisor_common.api.snapshot import names
from podvisor_common.kube.resources import PERSISTENT_VOLUME_CLAIMS, STORAGE_CLASSES
from podvisor_controller import json_patch
from podvisor_controller.controllers import Controllers

from tests.unit.controller.restores import RestoreUser, writes


async def test_a_machine_is_what_was_kept_with_claims_made_of_it(
    restorer: RestoreUser, leading: Controllers
) -> None:
    await restorer.keep("data", "logs")
    await restorer.edit("myvm", {"spec": {"template": {"spec": {"hostname": "other"}}}})
    await restorer.restore()
    await restorer.until_complete()
    uid = (restorer.body or {})["metadata"]["uid"]
    mark = f"back-{uid}"
    machine = restorer.machine()
    assert "hostname" not in machine["spec"]["template"]["spec"]
    assert machine["metadata"]["annotations"][names.LAST_RESTORE_ANNOTATION] == mark
    assert not restorer.is_locked
    for volume in ("data", "logs"):
        claim = restorer.claim_of(volume)
        assert claim["metadata"]["name"] == f"restore-{uid}-{volume}"
        assert claim["metadata"]["annotations"] == {
            names.RESTORE_NAME_ANNOTATION: "back",
            names.LAST_RESTORE_ANNOTATION: mark,
        }
        assert claim["metadata"]["labels"][names.RESTORE_SOURCE_NAME_LABEL] == "myvm"
        [owner] = claim["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"]) == ("VirtualMachine", "myvm")
        source = claim["spec"]["dataSource"]
        assert source["kind"] == "VolumeSnapshot"
        assert source["name"].endswith(f"-volume-{volume}")
    # What it had before is its owner's to keep or to delete.
    assert {"data", "logs"} <= set(restorer.claims)
    assert [one["volumeName"] for one in restorer.status["restores"]] == ["data", "logs"]
    assert restorer.status["restoreTime"]
    assert restorer.condition("Ready")["reason"] == "Operation complete"
    events = restorer.snapshots.events
    await restorer.server.until(lambda: bool(events("VirtualMachineRestoreComplete")))
    [owner] = (restorer.body or {})["metadata"]["ownerReferences"]
    assert owner["name"] == "myvm"


async def test_a_restored_machine_starts_with_the_new_claims(
    restorer: RestoreUser, leading: Controllers
) -> None:
    await restorer.keep("data")
    await restorer.restore()
    await restorer.until_complete()
    await restorer.edit("myvm", {"spec": {"runStrategy": "Always"}})
    await restorer.server.until(lambda: restorer.instance() is not None)
    volumes = (restorer.instance() or {})["spec"]["volumes"]
    [claim] = [one["persistentVolumeClaim"] for one in volumes if one["name"] == "data"]
    assert claim["claimName"].startswith("restore-")


async def test_a_new_machine_is_made_that_does_not_run(
    restorer: RestoreUser, leading: Controllers
) -> None:
    await restorer.keep("data", run_strategy="Always")
    await restorer.restore("twin", patches=['{"op":"add","path":"/metadata/labels/a","value":"b"}'])
    await restorer.until_complete()
    twin = restorer.machine("twin")
    assert twin["spec"]["runStrategy"] == "Halted"
    assert twin["metadata"]["labels"]["a"] == "b"
    assert restorer.instance("twin") is None
    assert restorer.instance() is not None
    [owner] = restorer.claim_of("data", "twin")["metadata"]["ownerReferences"]
    assert owner["uid"] == twin["metadata"]["uid"]
    assert restorer.claim_of("data")["metadata"]["name"] == "data"


async def test_patches_are_read_once_to_look_at_them_and_once_to_apply_them(
    restorer: RestoreUser, leading: Controllers, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Sequence[str]] = []

    def parse(texts: Sequence[str]) -> list[json_patch.Operation]:
        read.append(texts)
        return parse_them(texts)

    parse_them = json_patch.parse
    monkeypatch.setattr(json_patch, "parse", parse)
    await restorer.keep("data")
    await restorer.restore("twin", patches=['{"op":"add","path":"/metadata/labels/a","value":"b"}'])
    await restorer.until_complete()
    assert len(read) == 2


async def test_patches_that_make_no_machine_fail_the_restore(
    restorer: RestoreUser, leading: Controllers
) -> None:
    await restorer.keep("data")
    await restorer.restore("twin", patches=['{"op":"remove","path":"/spec/no"}'])
    await restorer.until_reason(
        "Failure", "error patching VM twin: spec.patches[0]: there is nothing"
    )
    assert restorer.claims == ["data"]


async def test_a_claim_that_waits_for_a_guest_holds_up_nothing(
    restorer: RestoreUser, leading: Controllers
) -> None:
    restorer.server.put(
        STORAGE_CLASSES,
        {
            "metadata": {"name": "fast"},
            "provisioner": "csi.test",
            "volumeBindingMode": "WaitForFirstConsumer",
        },
    )
    await restorer.keep("data")
    await restorer.restore()
    await restorer.until_complete()
    assert restorer.claim_of("data").get("status", {}).get("phase") != "Bound"


async def test_a_claim_that_gets_its_volume_at_once_is_waited_for(
    restorer: RestoreUser, leading: Controllers
) -> None:
    restorer.provisioner.works = False
    await restorer.keep("data")
    await restorer.restore()
    await restorer.until_reason("Progressing", "Creating new PVCs")
    await restorer.server.until(lambda: len(restorer.claims) == 2)
    assert restorer.claim_of("data")["metadata"]["name"] == "data"
    assert restorer.is_locked
    restorer.provisioner.works = True
    restorer.server.put(PERSISTENT_VOLUME_CLAIMS, restorer.claim("data") or {})
    await restorer.until_complete()


@pytest.mark.parametrize("policy", ["PrefixTargetName", "RandomizeNames"])
async def test_a_claim_of_somebody_else_is_never_taken(
    restorer: RestoreUser, leading: Controllers, policy: str
) -> None:
    await restorer.keep("data")
    restorer.snapshots.storage.provide("mine")
    override = [{"volumeName": "data", "restoreName": "mine"}]
    await restorer.restore(volumeRestorePolicy=policy, volumeRestoreOverrides=override)
    await restorer.until_reason("Progressing", 'PersistentVolumeClaim "mine" exists')
    assert "annotations" not in (restorer.claim("mine") or {})["metadata"]
    await restorer.delete()
    await restorer.server.until(lambda: restorer.body is None)
    assert restorer.claim("mine") is not None


async def test_a_snapshot_that_is_not_there_is_waited_for(
    restorer: RestoreUser, leading: Controllers
) -> None:
    restorer.snapshots.put_machine()
    await restorer.restore()
    await restorer.until_reason("Ready", "VMSnapshot shop/before does not exist")
    await restorer.snapshots.take()
    await restorer.until_complete()
    assert restorer.status["restores"] == []


async def test_a_restore_costs_what_the_ledger_says(
    restorer: RestoreUser, leading: Controllers
) -> None:
    await restorer.keep("data", "logs")
    restorer.server.requests.clear()
    await restorer.restore()
    await restorer.until_complete()
    await restorer.server.until(lambda: not restorer.is_locked)
    written = writes(restorer.server, "/namespaces/shop/")
    assert written["POST persistentvolumeclaims"] == 2
    assert written.total() <= 2 + 9, written
