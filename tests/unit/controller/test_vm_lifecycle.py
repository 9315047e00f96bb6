"""Starts, stops and restarts by request, what a start records, and adoption, against an API server on a real socket."""

import asyncio
from typing import Any

import msgspec
import pytest
from podvisor_common.api import v1
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.resources import (
    CONTROLLER_REVISIONS,
    EVENTS,
    VIRTUAL_MACHINE_INSTANCES,
    VIRTUAL_MACHINES,
)
from podvisor_controller.controllers import Controllers
from podvisor_controller.settings import Settings
from podvisor_controller.vm import revision

from tests.unit.controller.api_server import ApiServer, Json
from tests.unit.controller.scripted_cluster import MYVM, Cluster
from tests.unit.kube.fake_apiserver import Refuse

START = {"action": "Start"}


def stop(uid: str) -> Json:
    return {"action": "Stop", "uid": uid}


def uid_of(obj: Any) -> str:
    uid: str = obj["metadata"]["uid"] if obj else ""
    return uid


async def ask(client: KubeClient, *requests: Json) -> None:
    """Put requests into the status, as the verbs do."""
    patch = {"status": {"stateChangeRequests": list(requests)}}
    await client.merge_patch(VIRTUAL_MACHINES, MYVM, patch, subresource="status")


def says(cluster: Cluster, word: str) -> bool:
    """The machine's status says so, and no request is left."""
    status = cluster.status(cluster.vm)
    return status.get("printableStatus") == word and not status.get("stateChangeRequests")


async def runs(cluster: Cluster, server: ApiServer) -> str:
    """The scheduler's, kubelet's and handler's part of a start; the uid of the instance."""
    await server.until(
        lambda: cluster.vmi is not None and not cluster.status(cluster.vmi).get("phase")
    )
    await cluster.bound_pod()
    cluster.report("Running")
    await server.until(lambda: says(cluster, "Running"))
    await cluster.gate("True")
    return uid_of(cluster.vmi)


def edit(cluster: Cluster, **spec: Any) -> Json:
    """Change the machine's specification, as a user does: the generation grows."""
    vm = cluster.vm
    metadata = vm["metadata"] | {"generation": vm["metadata"]["generation"] + 1}
    return cluster.change(VIRTUAL_MACHINES, vm, metadata=metadata, spec=vm["spec"] | spec)


def template(cluster: Cluster, **spec: Any) -> Json:
    """The machine's template with other fields."""
    old: Json = cluster.vm["spec"]["template"]
    return {**old, "spec": old["spec"] | spec}


async def test_manual_acts_on_requests_only(
    cluster: Cluster, server: ApiServer, client: KubeClient, leading: Controllers
) -> None:
    cluster.apply_vm("Manual")
    await server.until(lambda: says(cluster, "Stopped"))
    assert cluster.vmi is None
    await ask(client, START)
    first = await runs(cluster, server)
    await ask(client, stop("another"))
    await server.until(lambda: says(cluster, "Running"))
    await ask(client, stop(first))
    await cluster.ends_as_asked()
    await server.until(lambda: says(cluster, "Stopped"))
    assert cluster.vmi is None


async def test_a_restart_by_request_costs_what_the_ledger_says(
    cluster: Cluster, server: ApiServer, client: KubeClient, leading: Controllers
) -> None:
    cluster.apply_vm("Manual")
    await ask(client, START)
    first = await runs(cluster, server)
    before = len(cluster.writes())
    await ask(client, stop(first), START)
    await cluster.ends_as_asked()
    await server.until(lambda: uid_of(cluster.vmi) not in ("", first))
    assert await runs(cluster, server) != first
    objects = [write for write in cluster.writes()[before + 1 :] if "events" not in write]
    assert sorted(objects) == sorted(
        [
            "DELETE virtualmachineinstances",
            "DELETE pods",
            "PATCH virtualmachines/status",  # Stopping
            "PATCH virtualmachines/status",  # its guest has ended
            "PATCH virtualmachineinstances",
            "POST virtualmachineinstances",
            "PATCH virtualmachines/status",  # the request is fulfilled
            "POST pods",
            "PATCH virtualmachineinstances/status",
            "PATCH virtualmachines/status",  # its node
            "PATCH virtualmachines/status",  # Running
            "PATCH pods/status",  # its guest goes
        ]
    )


async def test_a_start_that_was_fulfilled_is_not_repeated(
    cluster: Cluster, server: ApiServer, client: KubeClient, leading: Controllers
) -> None:
    cluster.apply_vm("Manual")
    await ask(client, START)
    await server.until(lambda: cluster.vmi is not None and says(cluster, "Starting"))
    await client.delete(VIRTUAL_MACHINE_INSTANCES, MYVM)
    await server.until(lambda: cluster.vmi is None and says(cluster, "Stopped"))


async def test_a_halted_machine_that_is_started_paused_runs_always(
    cluster: Cluster, server: ApiServer, client: KubeClient, leading: Controllers
) -> None:
    cluster.apply_vm("Halted")
    await ask(client, START | {"data": {"paused": "true"}})
    await server.until(lambda: cluster.vmi is not None)
    assert cluster.vm["spec"]["runStrategy"] == "Always"
    assert cluster.vmi["spec"]["startStrategy"] == "Paused"
    await runs(cluster, server)
    await client.delete(VIRTUAL_MACHINE_INSTANCES, MYVM)
    await cluster.ends_as_asked()
    await runs(cluster, server)
    assert "startStrategy" not in cluster.vmi["spec"]


@pytest.mark.parametrize("data", [{}, {"data": {"paused": "true"}}], ids=["running", "paused"])
async def test_a_machine_that_is_halted_and_at_once_started_is_both(
    cluster: Cluster, server: ApiServer, leading: Controllers, data: Json
) -> None:
    """As the verbs write it, before the halt has been acted upon."""
    cluster.apply_vm("Always")
    await cluster.bound_pod()
    cluster.report("Running")
    await server.until(lambda: says(cluster, "Running"))
    vm, first = cluster.vm, uid_of(cluster.vmi)
    status = vm["status"] | {"runStrategy": "Halted", "stateChangeRequests": [START | data]}
    spec = vm["spec"] | {"runStrategy": "Halted"}
    cluster.change(VIRTUAL_MACHINES, vm, spec=spec, status=status)
    await cluster.ends_as_asked()
    await server.until(lambda: uid_of(cluster.vmi) not in ("", first))
    assert cluster.vmi["spec"].get("startStrategy") == ("Paused" if data else None)
    assert cluster.vm["spec"]["runStrategy"] == "Always"


async def test_a_stop_is_for_whatever_instance_there_is(
    cluster: Cluster, server: ApiServer, client: KubeClient, leading: Controllers
) -> None:
    """It was asked for while the instance was being made, of which nobody but the controller knew."""
    cluster.apply_vm("Manual")
    await ask(client, START)
    await server.until(lambda: cluster.vmi is not None)
    await ask(client, {"action": "Stop"})
    await server.until(lambda: cluster.vmi is None and says(cluster, "Stopped"))


async def test_a_stop_of_whatever_there_is_and_a_start_make_one_more_instance(
    cluster: Cluster, server: ApiServer, client: KubeClient, leading: Controllers
) -> None:
    """Which is not taken for the one to be stopped."""
    cluster.apply_vm("Manual")
    await ask(client, START)
    first = await runs(cluster, server)
    await ask(client, {"action": "Stop"}, START)
    await cluster.ends_as_asked()
    await server.until(lambda: uid_of(cluster.vmi) not in ("", first))
    assert await runs(cluster, server) != first
    made = [r for r in server.requests if r.method == "POST" and "instances" in r.path]
    assert len(made) == 2


async def test_a_flag_stays_a_flag(
    cluster: Cluster, server: ApiServer, client: KubeClient, leading: Controllers
) -> None:
    vm = cluster.apply_vm("Halted")
    spec = {"running": False, "template": vm["spec"]["template"]}
    cluster.change(VIRTUAL_MACHINES, vm, spec=spec)
    await ask(client, START)
    await server.until(lambda: cluster.vmi is not None)
    assert cluster.vm["spec"]["running"] is True
    assert "runStrategy" not in cluster.vm["spec"]


async def test_a_failed_machine_is_rerun_and_a_stopped_one_is_not(
    cluster: Cluster,
    server: ApiServer,
    client: KubeClient,
    leading: Controllers,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("podvisor_controller.vm.observed.BACKOFF_UNIT_S", 0)
    cluster.apply_vm("RerunOnFailure")
    first = await runs(cluster, server)
    cluster.report("Failed", ready="False")
    await server.until(lambda: uid_of(cluster.vmi) not in ("", first))
    second = await runs(cluster, server)
    await ask(client, stop(second))
    await cluster.ends_as_asked()
    await server.until(lambda: says(cluster, "Stopped"))
    assert cluster.vmi is None


async def test_what_failed_is_rerun_by_the_next_leader(
    cluster: Cluster, server: ApiServer, client: KubeClient, settings: Settings
) -> None:
    """The failed instance is gone, and its controller before it could make the next."""
    async with asyncio.TaskGroup() as group:

        def lead() -> list[asyncio.Task[None]]:
            controllers = Controllers(client, settings)
            return [
                group.create_task(controllers.watch()),
                group.create_task(controllers.lead()),
            ]

        async def end(tasks: list[asyncio.Task[None]]) -> None:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

        tasks = lead()
        cluster.apply_vm("RerunOnFailure")
        first = await runs(cluster, server)
        cluster.report("Failed", ready="False")
        server.refuse("POST", "/virtualmachineinstances", Refuse(503))
        await server.until(lambda: cluster.vmi is None)
        await end(tasks)
        if cluster.vmi is None:
            assert cluster.status(cluster.vm)["stateChangeRequests"] == [
                {"action": "Start", "uid": first}
            ]
        tasks = lead()
        await server.until(lambda: uid_of(cluster.vmi) not in ("", first))
        await end(tasks)


async def test_a_request_that_arrives_meanwhile_is_not_lost(
    cluster: Cluster, server: ApiServer, client: KubeClient, leading: Controllers
) -> None:
    """Another writer appends to the requests while the controller writes its status on older knowledge."""
    cluster.apply_vm("Manual")
    await ask(client, START)
    first = await runs(cluster, server)
    server.refuse("PATCH", "/virtualmachines/myvm/status", Refuse(409, "Conflict", "modified"))
    vm = cluster.vm
    requests = {"stateChangeRequests": [stop(first), START]}
    cluster.change(VIRTUAL_MACHINES, vm, status=vm["status"] | requests)
    await cluster.ends_as_asked()
    await server.until(lambda: uid_of(cluster.vmi) not in ("", first))
    await runs(cluster, server)


def revisions(server: ApiServer) -> list[str]:
    return [revision["metadata"]["name"] for revision in server.list(CONTROLLER_REVISIONS)]


async def test_each_start_records_what_the_machine_was(
    cluster: Cluster, server: ApiServer, client: KubeClient, leading: Controllers
) -> None:
    vm = cluster.apply_vm()
    await runs(cluster, server)
    [revision] = server.list(CONTROLLER_REVISIONS)
    stem = f"revision-start-vm-{uid_of(vm)}-"
    assert revision["metadata"]["name"] == f"{stem}3"
    assert revision["revision"] == 3
    assert revision["data"]["spec"] == vm["spec"]
    [owner] = revision["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"]) == ("VirtualMachine", uid_of(vm))
    assert cluster.status(cluster.vmi)["virtualMachineRevisionName"] == f"{stem}3"
    assert cluster.status(cluster.vm)["observedGeneration"] == 3
    first = uid_of(cluster.vmi)
    edit(cluster, template=template(cluster, hostname="other"))
    await client.delete(VIRTUAL_MACHINE_INSTANCES, MYVM)
    await cluster.ends_as_asked()
    await server.until(lambda: uid_of(cluster.vmi) not in ("", first))
    await server.until(lambda: revisions(server) == [f"{stem}4"])
    await runs(cluster, server)
    assert cluster.status(cluster.vmi)["virtualMachineRevisionName"] == f"{stem}4"


async def test_an_edit_of_a_running_machine_asks_for_a_restart(
    cluster: Cluster, server: ApiServer, client: KubeClient, leading: Controllers
) -> None:
    cluster.apply_vm()
    first = await runs(cluster, server)
    as_it_was = cluster.vm["spec"]["template"]

    def needs_restart() -> bool:
        return cluster.condition(cluster.vm, "RestartRequired").get("status") == "True"

    edit(cluster, template=template(cluster, hostname="other"))
    await server.until(needs_restart)
    status = cluster.status(cluster.vm)
    assert (status["observedGeneration"], status["desiredGeneration"]) == (3, 4)
    edit(cluster, template=as_it_was)
    await server.until(lambda: cluster.status(cluster.vm)["observedGeneration"] == 5)
    assert not needs_restart()
    assert cluster.vmi["metadata"]["annotations"]["kubevirt.io/vm-generation"] == "5"
    edit(cluster, template=template(cluster, hostname="third"))
    await server.until(needs_restart)
    await ask(client, stop(first), START)
    await cluster.ends_as_asked()
    await server.until(lambda: uid_of(cluster.vmi) not in ("", first))
    await runs(cluster, server)
    assert not needs_restart()
    assert cluster.vmi["spec"]["hostname"] == "third"


async def test_an_edit_beside_the_template_needs_no_restart(
    cluster: Cluster, server: ApiServer, leading: Controllers
) -> None:
    cluster.apply_vm()
    await runs(cluster, server)
    edit(cluster, runStrategy="Manual")
    await server.until(lambda: cluster.status(cluster.vm)["observedGeneration"] == 4)
    assert cluster.condition(cluster.vm, "RestartRequired") == {}


async def test_a_revision_that_cannot_be_read_stops_nobody(
    cluster: Cluster, server: ApiServer, leading: Controllers
) -> None:
    cluster.apply_vm()
    await runs(cluster, server)
    [revision] = revisions(server)
    server.refuse("GET", f"/{revision}", Refuse(403, "Forbidden", "no"))
    edit(cluster, template=template(cluster, hostname="other"))
    await server.until(lambda: cluster.status(cluster.vm)["desiredGeneration"] == 4)
    assert cluster.condition(cluster.vm, "RestartRequired") == {}
    edit(cluster, runStrategy="Halted")
    await cluster.ends_as_asked()
    await server.until(lambda: says(cluster, "Stopped"))


async def test_an_orphan_lives_on_and_is_adopted(
    cluster: Cluster, server: ApiServer, client: KubeClient, leading: Controllers
) -> None:
    vm = cluster.apply_vm()
    uid = await runs(cluster, server)
    finalizers = [*vm["metadata"]["finalizers"], "orphan"]
    cluster.change(
        VIRTUAL_MACHINES, cluster.vm, metadata=cluster.vm["metadata"] | {"finalizers": finalizers}
    )
    await client.delete(VIRTUAL_MACHINES, MYVM)
    await server.until(lambda: cluster.vm["metadata"]["finalizers"] == ["orphan"])
    # The garbage collector's part.
    metadata = {k: v for k, v in cluster.vmi["metadata"].items() if k != "ownerReferences"}
    cluster.change(VIRTUAL_MACHINE_INSTANCES, cluster.vmi, metadata=metadata)
    server.remove(VIRTUAL_MACHINES, MYVM)
    again = cluster.apply_vm()
    await server.until(lambda: says(cluster, "Running"))
    assert uid_of(cluster.vmi) == uid
    [owner] = cluster.vmi["metadata"]["ownerReferences"]
    assert (owner["uid"], owner["controller"]) == (uid_of(again), True)
    assert uid_of(again) != uid_of(vm)
    [revision] = server.list(CONTROLLER_REVISIONS)
    assert revision["metadata"]["ownerReferences"][0]["uid"] == uid_of(again)
    assert "deletionTimestamp" not in cluster.vmi["metadata"]


async def test_a_machine_deleted_while_its_instance_starts_takes_it_along(
    cluster: Cluster, server: ApiServer, client: KubeClient, leading: Controllers
) -> None:
    vm = cluster.apply_vm()
    finalizers = [*vm["metadata"]["finalizers"], "foreign/one"]
    cluster.change(
        VIRTUAL_MACHINES, cluster.vm, metadata=vm["metadata"] | {"finalizers": finalizers}
    )
    await cluster.bound_pod()
    await client.delete(VIRTUAL_MACHINES, MYVM)
    await cluster.ends_as_asked()
    await server.until(lambda: cluster.vm["metadata"]["finalizers"] == ["foreign/one"])
    assert cluster.vmi is None


async def test_nothing_is_written_about_a_machine_that_does_not_change(
    cluster: Cluster, server: ApiServer, client: KubeClient, leading: Controllers
) -> None:
    cluster.apply_vm("Manual")
    await ask(client, START)
    await runs(cluster, server)
    await server.until(lambda: len(server.list(EVENTS)) == 2)
    before = cluster.writes()
    for count in range(20):
        vmi = cluster.vmi
        annotations = vmi["metadata"]["annotations"] | {"touched": str(count)}
        cluster.change(
            VIRTUAL_MACHINE_INSTANCES, vmi, metadata=vmi["metadata"] | {"annotations": annotations}
        )
    # Whoever comes next in the queue comes after those.
    await ask(client, stop("nobody"))
    await server.until(lambda: says(cluster, "Running"))
    asked = ["PATCH virtualmachines/status", "PATCH virtualmachines/status"]
    assert cluster.writes() == before + asked


def test_a_revision_is_written_as_the_api_server_writes_it_itself() -> None:
    """Else no patch of it is accepted, and an orphaned machine never goes."""
    user_data = {"name": "seed", "cloudInitNoCloud": {"userData": "a <b> & c\u2028\té"}}
    spec = {"template": {"spec": {"volumes": [user_data], "domain": {}}}, "runStrategy": "Always"}
    data = revision.RevisionData(msgspec.convert(spec, v1.VirtualMachineSpec))
    assert msgspec.json.encode(revision.as_the_api_server_writes(data)) == (
        rb'{"spec":{"runStrategy":"Always","template":{"spec":{"domain":{},"volumes":[{"cloudInitNoCloud":'
        rb'{"userData":"a \u003cb\u003e \u0026 c\u2028\t'
        + "é".encode()
        + rb'"},"name":"seed"}]}}}}'
    )
