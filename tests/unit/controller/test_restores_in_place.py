"""Restores that take the place of claims: none goes that somebody has, or whose content cannot be had again."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.resources import (
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    RESTORES,
    VIRTUAL_MACHINE_INSTANCES,
    VIRTUAL_MACHINES,
    ObjectKey,
    Resource,
)
from podvisor_controller.controllers import Controllers

from tests.unit.controller.api_server import Fate
from tests.unit.controller.builders import stamp, vm_body, vmi_body
from tests.unit.controller.exports import ExportUser
from tests.unit.controller.restores import MYVM, RestoreUser, restore_body
from tests.unit.controller.snapshots import on_claims


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


async def test_what_a_later_restore_has_made_is_not_undone_by_one_that_waited(
    restorer: RestoreUser, leading: Controllers
) -> None:
    await restorer.keep("data")
    restorer.put_another("other", "data")
    older = ObjectKey("shop", "older")
    metadata = {"name": older.name, "uid": "older", "creationTimestamp": stamp(60)}
    body = restore_body(volumeRestorePolicy="InPlace", metadata=metadata)
    del body["metadata"]["resourceVersion"]
    restorer.server.put(RESTORES, body)
    # The first time the server has its own idea of when that was.
    restorer.server.put(RESTORES, body)

    def says(type_: str, reason: str) -> bool:
        conditions = (restorer.server.get(RESTORES, older) or {})["status"].get("conditions", [])
        return any(one["type"] == type_ and reason in one["reason"] for one in conditions)

    await restorer.server.until(lambda: says("Progressing", "VirtualMachine shop/other has it"))
    await restorer.restore()
    await restorer.until_complete()
    restored = restorer.claim_of("data")["metadata"]["uid"]
    restorer.server.remove(VIRTUAL_MACHINES, ObjectKey("shop", "other"))
    await restorer.server.until(lambda: says("Failure", 'VirtualMachineRestore "back", which was'))
    assert restorer.claim_of("data")["metadata"]["uid"] == restored
    await restorer.server.until(lambda: not restorer.is_locked)


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
