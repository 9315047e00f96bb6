"""The settings object: made from the chart's ConfigMap, and a person's afterwards."""

import asyncio

from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.resources import (
    CONFIGMAPS,
    DAEMONSETS,
    KUBEVIRTS,
    PODS,
    VIRTUAL_MACHINE_INSTANCES,
    ObjectKey,
)
from podvisor_controller.controllers import Controllers
from podvisor_controller.settings import Settings

from tests.unit.controller.api_server import ApiServer
from tests.unit.controller.builders import handlers_body, vmi_body
from tests.unit.kube.fake_apiserver import Refuse

KUBEVIRT = ObjectKey("kubevirt", "kubevirt")


async def test_the_settings_object_is_made_and_an_upgrade_changes_it(
    server: ApiServer, leading: Controllers
) -> None:
    kubevirt = server.get(KUBEVIRTS, KUBEVIRT)
    assert kubevirt is not None
    assert kubevirt["spec"]["configuration"]["developerConfiguration"] == {"useEmulation": True}
    assert kubevirt["status"]["phase"] == "Deployed"
    assert leading.config().use_emulation


async def test_the_object_says_so_when_no_handler_is_ready(
    server: ApiServer, leading: Controllers
) -> None:
    def said() -> tuple[str, str]:
        kubevirt = server.get(KUBEVIRTS, KUBEVIRT)
        assert kubevirt is not None
        (available,) = (c for c in kubevirt["status"]["conditions"] if c["type"] == "Available")
        return available["status"], available["message"]

    assert said()[0] == "True"
    server.put(DAEMONSETS, handlers_body(numberAvailable=0))
    await server.until(lambda: said() == ("False", "virt-handler is ready on 0 of 1 nodes."))
    server.put(DAEMONSETS, handlers_body())
    await server.until(lambda: said()[0] == "True")


async def test_settings_changed_by_hand_survive_a_leader(
    server: ApiServer, client: KubeClient, settings: Settings
) -> None:
    """The chart's values are applied again by each new leader, without what somebody else owns."""
    conflict = Refuse(409, "Conflict", 'conflict with "kubectl-edit"')
    server.refuse("PATCH", "/kubevirts/kubevirt", conflict)
    controllers = Controllers(client, settings)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(controllers.watch()), group.create_task(controllers.lead())]
        await server.until(lambda: "status" in (server.get(KUBEVIRTS, KUBEVIRT) or {}))
        for task in tasks:
            task.cancel()
    applied = [r for r in server.requests if r.path.endswith("/kubevirts/kubevirt")]
    assert applied
    assert all("force" not in request.query for request in applied)


async def test_settings_that_make_no_sense_keep_nobody_from_starting(
    server: ApiServer, client: KubeClient, settings: Settings
) -> None:
    name = {"namespace": "kubevirt", "name": "podvisor-config"}
    server.put(CONFIGMAPS, {"metadata": name, "data": {"spec.json": "[1"}})
    controllers = Controllers(client, settings)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(controllers.watch()), group.create_task(controllers.lead())]
        instance = vmi_body()
        del instance["metadata"]["resourceVersion"]
        server.put(VIRTUAL_MACHINE_INSTANCES, instance)
        await server.until(lambda: bool(server.list(PODS)))
        assert server.get(KUBEVIRTS, KUBEVIRT) is None
        server.put(CONFIGMAPS, {"metadata": name, "data": {"spec.json": "{}"}})
        await server.until(lambda: server.get(KUBEVIRTS, KUBEVIRT) is not None)
        for task in tasks:
            task.cancel()
