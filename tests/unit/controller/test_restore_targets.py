"""Targets of restores: stopped, waited for or left alone, and not started meanwhile."""

import asyncio

import pytest
from aiohttp import web
from podvisor_common.kube.resources import PERSISTENT_VOLUME_CLAIMS
from podvisor_controller.controllers import Controllers

from tests.unit.controller.restores import RestoreUser


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
