"""Edits of a running machine's volumes, and requests for them, against an API server."""

from typing import Any

import msgspec
import pytest
from podvisor_common.api import v1
from podvisor_common.api.v1 import names
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.errors import ApiConflict
from podvisor_common.kube.informer import Informer
from podvisor_common.kube.resources import EVENTS, VIRTUAL_MACHINE_INSTANCES, VIRTUAL_MACHINES
from podvisor_controller.controllers import Controllers
from podvisor_controller.vm.plan import ChangeTemplate
from podvisor_controller.vm.plugger import Plugger

from tests.unit.controller.api_server import ApiServer
from tests.unit.controller.builders import Json, vm_body
from tests.unit.controller.plugged import told, volume, with_volumes
from tests.unit.controller.scripted_cluster import MYVM, Cluster
from tests.unit.controller.test_vm_hotplug import (
    LOADED,
    ONLY_OWN,
    OTHER_MEDIUM,
    PLAIN,
    PLUGGED,
    SERIAL,
    add,
    remove,
    with_own,
)
from tests.unit.controller.test_vm_lifecycle import ask, edit, runs
from tests.unit.kube.fake_apiserver import Refuse


def edit_volumes(cluster: Cluster, spec: Json) -> None:
    template = {**cluster.vm["spec"]["template"], "spec": spec}
    edit(cluster, template=template)


def volumes_of(obj: Any) -> list[str]:
    return [v["name"] for v in (obj or {"spec": {}})["spec"].get("volumes", ())]


async def starts(cluster: Cluster, server: ApiServer) -> None:
    cluster.apply_vm()
    await runs(cluster, server)


async def test_an_edit_of_volumes_reaches_the_guest_and_needs_no_restart(
    cluster: Cluster, server: ApiServer, leading: Controllers
) -> None:
    await starts(cluster, server)
    edit_volumes(cluster, PLUGGED)
    await server.until(lambda: cluster.status(cluster.vm)["observedGeneration"] == 4)
    assert volumes_of(cluster.vmi) == ["root", "seed", "data"]
    assert cluster.vmi["metadata"]["generation"] > 1
    assert cluster.condition(cluster.vm, "RestartRequired") == {}
    edit_volumes(cluster, PLAIN | {"hostname": "x"})
    await server.until(lambda: bool(cluster.condition(cluster.vm, "RestartRequired")))
    assert volumes_of(cluster.vmi) == ["root", "seed"]
    assert "hostname" not in cluster.vmi["spec"]


async def test_volumes_by_request(
    cluster: Cluster, server: ApiServer, client: KubeClient, leading: Controllers
) -> None:
    await starts(cluster, server)
    before = len(cluster.writes())
    patch = {"status": {"volumeRequests": [add(), remove("root"), remove("absent")]}}
    await client.merge_patch(VIRTUAL_MACHINES, MYVM, patch, subresource="status")
    await server.until(lambda: volumes_of(cluster.vmi) == ["root", "seed", "data"])
    await server.until(lambda: "volumeRequests" not in cluster.status(cluster.vm))
    await server.until(lambda: cluster.status(cluster.vm)["observedGeneration"] == 4)
    assert volumes_of({"spec": cluster.vm["spec"]["template"]["spec"]}) == ["root", "seed", "data"]
    ours = [write for write in cluster.writes()[before + 1 :] if "events" not in write]
    assert ours.count("PATCH virtualmachines") == 1
    assert ours.count("PATCH virtualmachines/status") <= 2
    [told_of] = [e for e in server.list(EVENTS) if e["reason"] == "HotPlugVolumeError"]
    assert told_of["type"] == "Warning"
    assert 'Volume "root" is not detached' in told_of["note"]


async def test_a_request_that_admission_refuses_is_dropped(
    cluster: Cluster, server: ApiServer, client: KubeClient, leading: Controllers
) -> None:
    await starts(cluster, server)
    server.refuse("PATCH", "/virtualmachines/myvm", Refuse(422, "Invalid", "bad template"))
    patch = {"status": {"volumeRequests": [add()]}}
    await client.merge_patch(VIRTUAL_MACHINES, MYVM, patch, subresource="status")
    await server.until(
        lambda: any(e["reason"] == "HotPlugVolumeError" for e in server.list(EVENTS))
    )
    assert "volumeRequests" not in cluster.status(cluster.vm)
    assert volumes_of(cluster.vmi) == ["root", "seed"]
    assert server.refused == 1
    # Asked again, it is tried again.
    await client.merge_patch(VIRTUAL_MACHINES, MYVM, patch, subresource="status")
    await server.until(lambda: volumes_of(cluster.vmi) == ["root", "seed", "data"])


async def test_a_request_that_admission_refuses_takes_no_other_one_with_it(
    cluster: Cluster, server: ApiServer, client: KubeClient, leading: Controllers
) -> None:
    await starts(cluster, server)
    server.refuses_change = lambda obj: (
        obj["kind"] == "VirtualMachine" and "bad" in volumes_of({"spec": _template_of(obj)})
    )
    requests = [add("first", "first"), add("bad", "bad"), add("last", "last")]
    patch = {"status": {"volumeRequests": requests}}
    await client.merge_patch(VIRTUAL_MACHINES, MYVM, patch, subresource="status")
    await server.until(lambda: "volumeRequests" not in cluster.status(cluster.vm))
    expected = ["root", "seed", "first", "last"]
    assert volumes_of({"spec": _template_of(cluster.vm)}) == expected
    await server.until(lambda: volumes_of(cluster.vmi) == expected)
    [told_of] = [e for e in server.list(EVENTS) if e["reason"] == "HotPlugVolumeError"]
    assert "not admitted" in told_of["note"]


def _template_of(vm: Json) -> Json:
    spec: Json = vm["spec"]["template"]["spec"]
    return spec


async def test_what_a_request_leaves_alone_is_not_written(
    cluster: Cluster, server: ApiServer, client: KubeClient, leading: Controllers
) -> None:
    cluster.apply_vm("Halted")
    await ask(client)
    # As somebody writes it who says more than has to be said, and more than is known here.
    spec = {**PLUGGED, "futureField": 1}
    spec["domain"]["devices"]["disks"][0] |= {"shareable": False, "cache": "", "futureField": 1}
    edit_volumes(cluster, spec)

    def hostname_is_edited(request: Any) -> bool:
        if request.method == "PATCH" and request.path.endswith("/virtualmachines/myvm"):
            server.is_forbidden = lambda _: False
            edit_volumes(cluster, {**_template_of(cluster.vm), "hostname": "x"})
        return False

    server.is_forbidden = hostname_is_edited
    patch = {"status": {"volumeRequests": [remove(), add("new", "new")]}}
    await client.merge_patch(VIRTUAL_MACHINES, MYVM, patch, subresource="status")
    await server.until(lambda: "volumeRequests" not in cluster.status(cluster.vm))
    found = _template_of(cluster.vm)
    assert (found["hostname"], found["futureField"]) == ("x", 1)
    assert volumes_of({"spec": found}) == ["root", "seed", "new"]
    disks = found["domain"]["devices"]["disks"]
    assert disks[:-1] == spec["domain"]["devices"]["disks"][:-1]
    assert disks[-1]["name"] == "new"
    patches = [
        r
        for r in server.requests
        if r.path.endswith("/virtualmachines/myvm") and r.method == "PATCH"
    ]
    assert len(patches) == 1


async def test_a_volume_that_moves_at_the_last_moment_is_no_refusal(
    cluster: Cluster, server: ApiServer, client: KubeClient
) -> None:
    cluster.apply_vm("Halted")
    edit_volumes(cluster, PLUGGED)
    seen = msgspec.convert(cluster.vm, v1.VirtualMachine)
    wanted = msgspec.convert(PLAIN, v1.VirtualMachineInstanceSpec)
    action = ChangeTemplate(wanted.volumes or [], wanted.domain.devices.disks or [])
    plugger = Plugger(
        client,
        Informer(client, VIRTUAL_MACHINES, v1.VirtualMachine),
        Informer(client, VIRTUAL_MACHINE_INSTANCES, v1.VirtualMachineInstance),
    )

    def another_comes_before_it(request: Any) -> bool:
        if request.method == "PATCH":
            edit_volumes(cluster, with_volumes(volume("new", "new"), volume()))
        return False

    server.is_forbidden = another_comes_before_it
    with pytest.raises(ApiConflict):
        await plugger.change_template(seen, action)
    # Nor is it written to what has other volumes than those that it was decided of.
    with pytest.raises(ApiConflict):
        await plugger.change_template(seen, action)
    assert volumes_of({"spec": _template_of(cluster.vm)}) == ["root", "seed", "new", "data"]


async def test_what_was_attached_to_the_instance_alone_outlives_edits_of_its_machine(
    cluster: Cluster, server: ApiServer, leading: Controllers
) -> None:
    await starts(cluster, server)
    vmi = cluster.vmi
    annotations = vmi["metadata"]["annotations"] | with_own("own")["annotations"]
    annotations[names.VM_GENERATION_ANNOTATION] = vmi["metadata"]["annotations"][
        names.VM_GENERATION_ANNOTATION
    ]
    spec = {**ONLY_OWN, "architecture": vmi["spec"].get("architecture", "")}
    server.put(
        VIRTUAL_MACHINE_INSTANCES,
        {
            **vmi,
            "metadata": {**vmi["metadata"], "annotations": annotations},
            "spec": vmi["spec"] | spec,
        },
    )
    edit_volumes(cluster, PLUGGED)
    await server.until(lambda: volumes_of(cluster.vmi) == ["root", "seed", "own", "data"])
    edit_volumes(cluster, ONLY_OWN)
    await server.until(lambda: volumes_of(cluster.vmi) == ["root", "seed", "own"])
    await server.until(
        lambda: names.EPHEMERAL_VOLUMES_ANNOTATION not in cluster.vmi["metadata"]["annotations"]
    )
    edit_volumes(cluster, PLAIN)
    await server.until(lambda: volumes_of(cluster.vmi) == ["root", "seed"])


async def test_a_request_that_stands_is_tried_again_when_the_machine_is_edited(
    cluster: Cluster, server: ApiServer, client: KubeClient, leading: Controllers
) -> None:
    await starts(cluster, server)
    server.refuse("PATCH", "/virtualmachines/myvm", Refuse(422, "Invalid", "bad template"))
    edited = PLAIN | {"hostname": "x"}

    def is_edited_before_the_request_is_dropped(request: Any) -> bool:
        if server.refused == 0 or not request.path.endswith("/virtualmachines/myvm/status"):
            return False
        server.is_forbidden = lambda _: False
        edit_volumes(cluster, edited)
        return True

    server.is_forbidden = is_edited_before_the_request_is_dropped
    patch = {"status": {"volumeRequests": [add()]}}
    await client.merge_patch(VIRTUAL_MACHINES, MYVM, patch, subresource="status")
    await server.until(lambda: volumes_of(cluster.vmi) == ["root", "seed", "data"])


async def test_a_halted_machine_has_its_template_changed(
    cluster: Cluster, server: ApiServer, client: KubeClient, leading: Controllers
) -> None:
    cluster.apply_vm("Halted")
    await ask(client)
    patch = {"status": {"volumeRequests": [add()]}}
    await client.merge_patch(VIRTUAL_MACHINES, MYVM, patch, subresource="status")
    await server.until(lambda: "volumeRequests" not in cluster.status(cluster.vm))
    spec = cluster.vm["spec"]["template"]["spec"]
    assert volumes_of({"spec": spec}) == ["root", "seed", "data"]
    assert spec["domain"]["devices"]["disks"][-1] == {
        "name": "data",
        **SERIAL,
        "disk": {"bus": "scsi"},
    }
    assert cluster.vmi is None


async def test_volumes_that_are_refused_are_tried_again(
    cluster: Cluster, server: ApiServer, leading: Controllers
) -> None:
    await starts(cluster, server)
    server.refuse("PATCH", "/virtualmachineinstances/myvm", Refuse(422, "Invalid", "not now"))
    edit_volumes(cluster, PLUGGED)
    await server.until(
        lambda: cluster.condition(cluster.vm, "Failure").get("reason") == "HotPlugVolumeError"
    )
    await server.until(lambda: volumes_of(cluster.vmi) == ["root", "seed", "data"])
    await server.until(lambda: cluster.condition(cluster.vm, "Failure") == {})


async def test_another_medium_waits_until_the_first_is_out(
    cluster: Cluster, server: ApiServer, leading: Controllers
) -> None:
    body = vm_body()
    del body["metadata"]["uid"], body["metadata"]["resourceVersion"]
    body["spec"]["template"]["spec"] = LOADED
    server.put(VIRTUAL_MACHINES, body)
    await runs(cluster, server)
    status = cluster.vmi["status"] | {"volumeStatus": [told("drive")]}
    cluster.change(VIRTUAL_MACHINE_INSTANCES, cluster.vmi, status=status)
    edit_volumes(cluster, OTHER_MEDIUM)
    await server.until(lambda: volumes_of(cluster.vmi) == ["root", "seed"])
    status = {k: v for k, v in cluster.vmi["status"].items() if k != "volumeStatus"}
    cluster.change(VIRTUAL_MACHINE_INSTANCES, cluster.vmi, status=status)
    await server.until(lambda: volumes_of(cluster.vmi) == ["root", "seed", "drive"])
    claim = cluster.vmi["spec"]["volumes"][-1]["persistentVolumeClaim"]["claimName"]
    assert claim == "other"
