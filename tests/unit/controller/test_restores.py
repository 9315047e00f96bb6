"""Restores of machines against an API server on a real socket, with a storage driver that does its part."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest
from aiohttp import web
from podvisor_common.api.snapshot import names
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.resources import (
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    RESTORES,
    STORAGE_CLASSES,
    VIRTUAL_MACHINE_INSTANCES,
    VIRTUAL_MACHINES,
    VOLUME_SNAPSHOTS,
    ObjectKey,
    Resource,
)
from podvisor_controller import json_patch
from podvisor_controller.controllers import Controllers

from tests.unit.controller.api_server import Fate
from tests.unit.controller.builders import vm_body, vmi_body
from tests.unit.controller.exports import ExportUser
from tests.unit.controller.restores import BACK, MYVM, RestoreUser, writes
from tests.unit.controller.snapshots import on_claims


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


async def test_in_place_the_claims_have_their_names_and_no_other_machine_loses_one(
    restorer: RestoreUser, leading: Controllers
) -> None:
    await restorer.keep("data")
    old = (restorer.claim("data") or {})["metadata"]["uid"]
    restorer.put_another("other", "data")
    await restorer.restore(volumeRestorePolicy="InPlace")
    await restorer.until_reason("Progressing", "VirtualMachine shop/other has it")
    assert (restorer.claim("data") or {})["metadata"]["uid"] == old
    restorer.server.remove(VIRTUAL_MACHINES, ObjectKey("shop", "other"))
    await restorer.until_complete()
    claim = restorer.claim_of("data")
    assert claim["metadata"]["name"] == "data"
    assert claim["metadata"]["uid"] != old
    # The machine did not own the one that was there before.
    assert "ownerReferences" not in claim["metadata"]


async def test_whether_a_claim_can_be_had_again_is_asked_of_the_api_server(
    restorer: RestoreUser, leading: Controllers
) -> None:
    await restorer.keep("data")
    [kept] = restorer.snapshots.volume_snapshots
    name = kept["metadata"]["name"]

    def fate_of(request: web.Request) -> Fate:
        # The cache has not heard of it when the answer comes.
        if request.method == "GET" and request.path.endswith(f"/volumesnapshots/{name}"):
            restorer.snapshots.storage.report(kept, readyToUse=False)
        return Fate.ANSWERED

    restorer.server.fate_of = fate_of
    await restorer.restore(volumeRestorePolicy="InPlace")
    await restorer.until_reason("Failure", f"volumeSnapshot {name} is not ready to use")
    assert "annotations" not in (restorer.claim("data") or {})["metadata"]
    await restorer.server.until(lambda: not restorer.is_locked)


async def _with_pod(restorer: RestoreUser, users: KubeClient) -> str:
    volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]
    body = {
        "metadata": {"namespace": "shop", "name": "backup", "ownerReferences": [{"uid": "job"}]},
        "spec": {"volumes": volumes, "nodeName": "n1"},
        "status": {"phase": "Running"},
    }
    restorer.server.put(PODS, body)
    return "Pod shop/backup"


async def _with_export(restorer: RestoreUser, users: KubeClient) -> str:
    exports = ExportUser(restorer.server, users)
    await exports.ask()
    await exports.until_pod()
    return "VirtualMachineExport shop/copy"


async def _with_copy_over_it(restorer: RestoreUser, users: KubeClient) -> str:
    spec = on_claims()
    source = {"persistentVolumeClaim": {"claimName": "data"}}
    spec["template"]["spec"]["volumes"].append({"name": "v", "ephemeral": source})
    body = vm_body("Halted", spec=spec, metadata={"name": "other", "uid": "other"})
    del body["metadata"]["resourceVersion"]
    restorer.server.put(VIRTUAL_MACHINES, body)
    return "VirtualMachine shop/other"


@pytest.mark.parametrize("put", [_with_pod, _with_export, _with_copy_over_it])
async def test_who_has_a_claim_keeps_it(
    restorer: RestoreUser,
    leading: Controllers,
    client: KubeClient,
    put: Callable[[RestoreUser, KubeClient], Awaitable[str]],
) -> None:
    await restorer.keep("data")
    old = (restorer.claim("data") or {})["metadata"]["uid"]
    user = await put(restorer, client)
    await restorer.restore(volumeRestorePolicy="InPlace")
    await restorer.until_reason("Progressing", f"{user} has it")
    assert (restorer.claim("data") or {})["metadata"]["uid"] == old


async def test_a_machine_that_is_about_to_start_is_not_taken_for_stopped(
    restorer: RestoreUser, leading: Controllers
) -> None:
    await restorer.keep("data")
    old = (restorer.claim("data") or {})["metadata"]["uid"]
    may_start, is_asked_for = asyncio.Event(), asyncio.Event()

    def delay_of(request: web.Request) -> asyncio.Event | None:
        if request.method != "POST" or not request.path.endswith("/virtualmachineinstances"):
            return None
        is_asked_for.set()
        return may_start

    restorer.server.delay_of = delay_of
    await restorer.edit("myvm", {"spec": {"runStrategy": "Always"}})
    await is_asked_for.wait()
    await restorer.restore(volumeRestorePolicy="InPlace")
    await restorer.until_reason("Progressing", "Waiting for target to be ready")
    may_start.set()
    await restorer.server.until(lambda: restorer.instance() is not None)
    assert not restorer.is_locked
    assert (restorer.claim("data") or {})["metadata"]["uid"] == old
    await restorer.edit("myvm", {"spec": {"runStrategy": "Halted"}})
    await restorer.until_complete()


async def test_a_refused_start_lets_the_restore_go_on(
    restorer: RestoreUser, leading: Controllers
) -> None:
    await restorer.keep("data")
    may_end, is_asked_for = asyncio.Event(), asyncio.Event()

    def delay_of(request: web.Request) -> asyncio.Event | None:
        if request.method != "POST" or not request.path.endswith("/controllerrevisions"):
            return None
        is_asked_for.set()
        return may_end

    restorer.server.delay_of = delay_of
    restorer.server.is_forbidden = lambda request: (
        request.method == "POST" and request.path.endswith("/virtualmachineinstances")
    )
    await restorer.edit("myvm", {"spec": {"runStrategy": "Always"}})
    await is_asked_for.wait()
    await restorer.restore()
    await restorer.until_reason("Progressing", "Waiting for target to be ready")
    may_end.set()
    await restorer.until_complete()


async def test_whether_there_is_an_instance_is_asked_of_the_api_server(
    restorer: RestoreUser, leading: Controllers
) -> None:
    await restorer.keep("data")
    old = (restorer.claim("data") or {})["metadata"]["uid"]

    def fate_of(request: web.Request) -> Fate:
        if request.method == "GET" and request.path.endswith("/virtualmachineinstances/myvm"):
            restorer.server.fate_of = lambda _: Fate.ANSWERED
            body = vmi_body(owned=True)
            del body["metadata"]["resourceVersion"]
            restorer.server.put(VIRTUAL_MACHINE_INSTANCES, body)
        return Fate.ANSWERED

    restorer.server.fate_of = fate_of
    await restorer.restore(volumeRestorePolicy="InPlace", targetReadinessPolicy="FailImmediate")
    await restorer.until_reason("Failure", "Restore target not ready")
    assert (restorer.claim("data") or {})["metadata"]["uid"] == old


async def test_a_snapshot_stays_until_what_is_restored_from_it_is_there(
    restorer: RestoreUser, leading: Controllers
) -> None:
    await restorer.keep("data")
    old = (restorer.claim("data") or {})["metadata"]["uid"]
    restorer.provisioner.works = False
    await restorer.restore(volumeRestorePolicy="InPlace")
    await restorer.server.until(
        lambda: (restorer.claim("data") or {}).get("metadata", {}).get("uid", old) != old
    )
    await restorer.snapshots.delete()
    await restorer.server.until(
        lambda: (
            restorer.snapshots.condition("Progressing").get("message")
            == 'VirtualMachineRestore "back" is in progress.'
        )
    )
    assert restorer.snapshots.contents
    assert "deletionTimestamp" not in restorer.snapshots.contents[0]["metadata"]
    restorer.provisioner.works = True
    restorer.server.put(PERSISTENT_VOLUME_CLAIMS, restorer.claim("data") or {})
    await restorer.until_complete()
    await restorer.server.until(lambda: restorer.snapshots.body is None)
    assert restorer.claim("data") is not None


@pytest.mark.parametrize("policy", ["RandomizeNames", "InPlace"])
async def test_a_target_that_runs_is_stopped_where_that_is_asked_for(
    policy: str, restorer: RestoreUser, leading: Controllers
) -> None:
    await restorer.keep("data", run_strategy="Always")
    await restorer.restore(targetReadinessPolicy="StopTarget", volumeRestorePolicy=policy)
    await restorer.until_complete()
    assert restorer.machine()["spec"]["runStrategy"] == "Halted"
    assert restorer.instance() is None


async def test_a_machine_under_manual_is_stopped_by_request(
    restorer: RestoreUser, leading: Controllers
) -> None:
    await restorer.keep("data", run_strategy="Manual")
    await restorer.edit("myvm", {"status": {"stateChangeRequests": [{"action": "Start"}]}})
    await restorer.server.until(lambda: restorer.instance() is not None)
    await restorer.restore(targetReadinessPolicy="StopTarget")
    await restorer.until_complete()
    assert restorer.machine()["spec"]["runStrategy"] == "Manual"
    assert restorer.instance() is None


async def test_a_target_that_runs_fails_a_restore_that_does_not_wait(
    restorer: RestoreUser, leading: Controllers
) -> None:
    await restorer.keep("data", run_strategy="Always")
    await restorer.restore(targetReadinessPolicy="FailImmediate")
    await restorer.until_reason("Failure", "Restore target not ready")
    assert restorer.condition("Ready")["reason"] == "Operation failed"
    assert restorer.status["complete"] is False
    assert restorer.claims == ["data"]
    await restorer.delete()
    await restorer.server.until(lambda: restorer.body is None)


async def test_a_target_that_runs_is_waited_for(
    restorer: RestoreUser, leading: Controllers
) -> None:
    await restorer.keep("data", run_strategy="Always")
    await restorer.restore()
    await restorer.until_reason("Progressing", "Waiting for target to be ready")
    await restorer.server.until(lambda: restorer.snapshots.events("RestoreTargetNotReady") != [])
    await restorer.edit("myvm", {"spec": {"runStrategy": "Halted"}})
    await restorer.until_complete()


async def test_a_snapshot_that_is_not_there_is_waited_for(
    restorer: RestoreUser, leading: Controllers
) -> None:
    restorer.snapshots.put_machine()
    await restorer.restore()
    await restorer.until_reason("Ready", "VMSnapshot shop/before does not exist")
    await restorer.snapshots.take()
    await restorer.until_complete()
    assert restorer.status["restores"] == []


async def test_a_machine_that_was_not_kept_is_not_touched(
    restorer: RestoreUser, leading: Controllers
) -> None:
    await restorer.keep("data")
    restorer.put_another("other")
    before = restorer.machine("other")["spec"]
    await restorer.restore("other")
    await restorer.until_reason("Failure", "restore target already exists")
    assert restorer.machine("other")["spec"] == before
    assert "restoreInProgress" not in restorer.machine("other").get("status", {})
    assert restorer.claims == ["data"]


async def test_a_snapshot_of_a_volume_that_is_gone_fails_the_restore_and_frees_the_machine(
    restorer: RestoreUser, leading: Controllers
) -> None:
    await restorer.keep("data")
    restorer.server.is_forbidden = lambda request: (
        request.method == "POST" and request.path.endswith("/persistentvolumeclaims")
    )
    await restorer.restore()
    await restorer.until_reason("Progressing", "The PersistentVolumeClaim cannot be created")
    assert restorer.is_locked
    [one] = restorer.snapshots.volume_snapshots
    restorer.server.remove(VOLUME_SNAPSHOTS, ObjectKey("shop", one["metadata"]["name"]))
    await restorer.until_reason("Failure", "missing volumeSnapshot")
    await restorer.server.until(lambda: not restorer.is_locked)
    assert restorer.claim_of("data")["metadata"]["name"] == "data"


async def test_what_a_restore_made_goes_with_it_while_the_machine_has_not_got_it(
    restorer: RestoreUser, leading: Controllers
) -> None:
    await restorer.keep("data")
    restorer.provisioner.works = False
    await restorer.restore()
    await restorer.server.until(lambda: len(restorer.claims) == 2)
    await restorer.delete()
    await restorer.server.until(lambda: restorer.body is None)
    assert restorer.claims == ["data"]
    assert not restorer.is_locked


async def test_a_claim_goes_with_its_machine_even_if_the_restore_is_deleted_before_it_says_so(
    restorer: RestoreUser, leading: Controllers
) -> None:
    await restorer.keep("data")
    restorer.server.is_forbidden = lambda request: (
        request.method == "PATCH" and "/persistentvolumeclaims/" in request.path
    )
    await restorer.restore("twin")
    await restorer.until_reason("Progressing", "The PersistentVolumeClaim cannot be changed")
    await restorer.delete()
    restorer.server.is_forbidden = lambda _: False
    await restorer.server.until(lambda: restorer.body is None)
    [owner] = restorer.claim_of("data", "twin")["metadata"]["ownerReferences"]
    assert owner["uid"] == restorer.machine("twin")["metadata"]["uid"]


@pytest.mark.parametrize("goes", [RESTORES, VIRTUAL_MACHINES])
async def test_what_took_the_place_of_a_claim_outlives_restore_and_machine(
    restorer: RestoreUser, leading: Controllers, goes: Resource
) -> None:
    await restorer.keep("data")
    restorer.provisioner.works = False
    await restorer.restore(volumeRestorePolicy="InPlace")
    await restorer.server.until(
        lambda: "annotations" in (restorer.claim("data") or {}).get("metadata", {})
    )
    if goes is VIRTUAL_MACHINES:
        restorer.server.remove(VIRTUAL_MACHINES, MYVM)
    await restorer.delete()
    await restorer.server.until(lambda: restorer.body is None)
    assert "deletionTimestamp" not in (restorer.claim("data") or {})["metadata"]


async def test_what_the_machine_has_got_stays_when_the_restore_goes(
    restorer: RestoreUser, leading: Controllers
) -> None:
    await restorer.keep("data")
    await restorer.restore()
    await restorer.until_complete()
    await restorer.delete()
    await restorer.server.until(lambda: restorer.body is None)
    assert restorer.claim_of("data")["metadata"]["name"].startswith("restore-")


async def test_a_machine_does_not_start_while_it_is_being_restored(
    restorer: RestoreUser, leading: Controllers
) -> None:
    await restorer.keep("data")
    restorer.provisioner.works = False
    await restorer.restore()
    await restorer.server.until(lambda: restorer.is_locked)
    await restorer.edit("myvm", {"spec": {"runStrategy": "Always"}})
    await restorer.server.until(lambda: len(restorer.claims) == 2)
    assert restorer.instance() is None
    restorer.provisioner.works = True
    restorer.server.put(PERSISTENT_VOLUME_CLAIMS, restorer.claim("data") or {})
    await restorer.server.until(lambda: restorer.instance() is not None)
    volumes = (restorer.instance() or {})["spec"]["volumes"]
    [claim] = [one["persistentVolumeClaim"] for one in volumes if one["name"] == "data"]
    assert claim["claimName"] != "data"


async def test_the_machine_of_a_restore_that_was_torn_away_is_free(
    restorer: RestoreUser, leading: Controllers
) -> None:
    await restorer.keep("data")
    restorer.provisioner.works = False
    await restorer.restore()
    await restorer.server.until(lambda: restorer.is_locked)
    restorer.server.remove(RESTORES, BACK)
    await restorer.server.until(lambda: not restorer.is_locked)


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
