"""Edits of a running machine's volumes, and requests for them: what reaches the guest, what waits, what is refused."""

from typing import Any

import msgspec
import pytest
from podvisor_common.api import v1
from podvisor_common.api.v1 import names
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.resources import EVENTS, VIRTUAL_MACHINE_INSTANCES, VIRTUAL_MACHINES
from podvisor_controller.controllers import Controllers
from podvisor_controller.vm.hotplug import fixed_part, has, plugged
from podvisor_controller.vm.plan import ChangeTemplate, FollowGeneration, PlugVolumes, plan
from podvisor_controller.vm.status import status_of
from podvisor_controller.vm.volume_requests import outcome_of

from tests.unit.controller.api_server import ApiServer
from tests.unit.controller.builders import (
    Json,
    instance,
    situations,
    spec_body,
    stamp,
    vm,
    vm_body,
    vm_observed,
)
from tests.unit.controller.plugged import disk, told, volume, with_volumes
from tests.unit.controller.scripted_cluster import MYVM, Cluster
from tests.unit.controller.test_vm_lifecycle import ask, edit, runs
from tests.unit.kube.fake_apiserver import Refuse

DRIVE = {"name": "drive", "cdrom": {"bus": "sata", "readonly": True, "tray": "closed"}}
WRITTEN_DRIVE = {"name": "drive", "cdrom": {}}


def machine(spec: Json, **changes: Any) -> v1.VirtualMachine:
    return vm(spec={"runStrategy": "Always", "template": {"spec": spec}}, **changes)


def guest(spec: Json, *entries: Json, generation: str = "2", **changes: Any) -> Any:
    """The running instance of machine(), made at that generation of it, with what is said of its volumes."""
    annotations = {names.VM_GENERATION_ANNOTATION: generation}
    spec = spec | {"architecture": "amd64"}
    metadata = {"annotations": annotations} | changes.pop("metadata", {})
    status = {"volumeStatus": list(entries)}
    return instance("Running", spec=spec, status=status, metadata=metadata)


PLAIN = with_volumes()
PLUGGED = with_volumes(volume())
OTHER_CLAIM = with_volumes(volume(claim_name="other"))
FIXED = with_volumes(volume(hotpluggable=False))
EMPTY_DRIVE = with_volumes(disks=(DRIVE,))
LOADED = with_volumes(volume("drive"), disks=(DRIVE,))
OTHER_MEDIUM = with_volumes(volume("drive", "other"), disks=(DRIVE,))
VIRTIO = with_volumes(volume(), disks=(disk(disk={"bus": "virtio"}),))
LEAVES, DRIVE_LEAVES = told(phase="Detaching"), told("drive", phase="Detaching")


@pytest.mark.parametrize(
    ("template", "had", "entries", "expected", "is_whole"),
    situations(
        ("nothing to do", PLAIN, PLAIN, [], PLAIN, True),
        ("a volume comes", PLUGGED, PLAIN, [], PLUGGED, True),
        ("a volume goes", PLAIN, PLUGGED, [told()], PLAIN, True),
        ("a volume stays", PLUGGED, PLUGGED, [told()], PLUGGED, True),
        (
            "one comes beside another",
            with_volumes(volume("first"), volume()),
            PLUGGED,
            [],
            with_volumes(volume(), volume("first")),
            True,
        ),
        (
            "one goes and another comes",
            with_volumes(volume("new", "new")),
            PLUGGED,
            [told()],
            with_volumes(volume("new", "new")),
            True,
        ),
        ("its name leaves still", PLUGGED, PLAIN, [LEAVES], PLAIN, False),
        ("another claim has its name", OTHER_CLAIM, PLUGGED, [told()], PLAIN, False),
        ("its disk is another", VIRTIO, PLUGGED, [told()], PLAIN, False),
        (
            "its disk says what is the default",
            with_volumes(volume(), disks=({"name": "data", "disk": {}},)),
            PLUGGED,
            [],
            PLUGGED,
            True,
        ),
        (
            "its disk is not mentioned",
            with_volumes(volume(), disks=()),
            PLAIN,
            [],
            PLUGGED,
            True,
        ),
        ("a medium is put in", LOADED, EMPTY_DRIVE, [], LOADED, True),
        ("a medium is taken out", EMPTY_DRIVE, LOADED, [told("drive")], EMPTY_DRIVE, True),
        ("another medium", OTHER_MEDIUM, LOADED, [told("drive")], EMPTY_DRIVE, False),
        ("the old one leaves", OTHER_MEDIUM, EMPTY_DRIVE, [DRIVE_LEAVES], EMPTY_DRIVE, False),
        ("the old one has left", OTHER_MEDIUM, EMPTY_DRIVE, [], OTHER_MEDIUM, True),
        (
            "as a person writes a drive",
            with_volumes(volume("drive"), disks=(WRITTEN_DRIVE,)),
            EMPTY_DRIVE,
            [],
            LOADED,
            True,
        ),
        ("a drive comes with its medium", LOADED, PLAIN, [], PLAIN, True),
        ("a drive goes with its medium", PLAIN, LOADED, [told("drive")], EMPTY_DRIVE, True),
        ("a volume becomes a fixed part", FIXED, PLUGGED, [told()], PLUGGED, True),
        ("a fixed part becomes a volume that may go", PLUGGED, FIXED, [], FIXED, False),
        ("a fixed volume comes", FIXED, PLAIN, [], PLAIN, True),
        ("a fixed volume goes", PLAIN, FIXED, [], FIXED, True),
        (
            "a disk becomes a drive",
            with_volumes(volume(), disks=({"name": "data", "cdrom": {}},)),
            PLUGGED,
            [told()],
            PLUGGED,
            True,
        ),
    ),
)
def test_what_reaches_the_guest(
    template: Json, had: Json, entries: list[Json], expected: Json, is_whole: bool
) -> None:
    vmi = guest(had, *entries)
    found = plugged(machine(template), vmi)
    assert has(guest(expected), found)
    assert found.is_whole == is_whole


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    situations(
        ("a volume that may go", PLAIN, PLUGGED, True),
        ("its disk", PLUGGED, VIRTIO, True),
        ("a medium", EMPTY_DRIVE, LOADED, True),
        ("a drive", PLAIN, EMPTY_DRIVE, False),
        ("a drive and its medium", PLAIN, LOADED, False),
        ("a fixed volume", PLAIN, FIXED, False),
        ("whether a volume may go", PLUGGED, FIXED, False),
        ("another field", PLAIN, spec_body(hostname="x"), False),
    ),
)
def test_what_needs_a_restart(one: Json, other: Json, is_same: bool) -> None:
    made, wanted = (machine(spec).spec.template for spec in (one, other))
    assert (fixed_part(made.spec) == fixed_part(wanted.spec)) == is_same
    now = vm_observed(machine(other), guest(one), made_from=made)
    assert now.needs_restart == (not is_same)


GONE: Json = {"deletionTimestamp": stamp(1)}


@pytest.mark.parametrize(
    ("now", "expected"),
    situations(
        ("in step", vm_observed(machine(PLUGGED), guest(PLUGGED, generation="3")), []),
        (
            "somebody else's volume stays as long as the machine is not edited",
            vm_observed(machine(PLAIN), guest(PLUGGED, generation="3")),
            [],
        ),
        ("a volume comes", vm_observed(machine(PLUGGED), guest(PLAIN)), [PlugVolumes]),
        (
            "it has come, and that is all",
            vm_observed(machine(PLUGGED), guest(PLUGGED), made_from=machine(PLAIN).spec.template),
            [FollowGeneration],
        ),
        (
            "it has come, and there is more",
            vm_observed(
                machine(PLUGGED | {"hostname": "x"}),
                guest(PLUGGED),
                made_from=machine(PLAIN).spec.template,
            ),
            [],
        ),
        (
            "it waits for another to leave",
            vm_observed(
                machine(OTHER_CLAIM),
                guest(PLAIN, LEAVES),
                made_from=machine(PLUGGED).spec.template,
            ),
            [],
        ),
        (
            "it was refused a moment ago",
            vm_observed(
                machine(PLUGGED),
                guest(PLAIN),
                unplugged="no",
                plug_retry_at=vm_observed(vm()).at.replace(minute=2),
            ),
            [],
        ),
        (
            "the guest has ended",
            vm_observed(
                machine(PLUGGED),
                instance("Succeeded", metadata={"annotations": {}}, spec=PLAIN),
                made_from=machine(PLAIN).spec.template,
            ),
            [],
        ),
        ("it is being deleted", vm_observed(machine(PLUGGED), guest(PLAIN, metadata=GONE)), []),
    ),
)
def test_plan(now: Any, expected: list[Any]) -> None:
    actions = [a for a in plan(now) if isinstance(a, PlugVolumes | FollowGeneration)]
    assert [type(action) for action in actions] == expected


def add(name: str = "data", claim: str = "data", **options: Any) -> Json:
    source = {"persistentVolumeClaim": {"claimName": claim}}
    return {"addVolumeOptions": {"name": name, "volumeSource": source} | options}


def remove(name: str = "data", **options: Any) -> Json:
    return {"removeVolumeOptions": {"name": name} | options}


SERIAL = {"serial": "data"}
ASKED = with_volumes(volume(), disks=(disk() | SERIAL,))


def requested(*requests: Json) -> list[v1.VirtualMachineVolumeRequest]:
    return msgspec.convert(list(requests), list[v1.VirtualMachineVolumeRequest])


@pytest.mark.parametrize(
    ("template", "requests", "expected"),
    situations(
        ("attach", PLAIN, [add()], ASKED),
        ("attach what is there", PLUGGED, [add()], PLUGGED),
        ("detach", PLUGGED, [remove()], PLAIN),
        ("detach what is not there", PLAIN, [remove()], PLAIN),
        ("attach and detach", PLAIN, [add(), remove()], PLAIN),
        ("dry runs", PLUGGED, [add("x", dryRun=["All"]), remove(dryRun=["All"])], PLUGGED),
        (
            "a DataVolume",
            PLAIN,
            [add(volumeSource={"dataVolume": {"name": "data"}})],
            with_volumes(
                {"name": "data", "dataVolume": {"name": "data", "hotpluggable": True}},
                disks=(disk() | SERIAL,),
            ),
        ),
        (
            "with a disk",
            PLAIN,
            [add(disk={"name": "", "disk": {"bus": "virtio"}, "serial": "s", "cache": "none"})],
            with_volumes(
                volume(),
                disks=(disk(disk={"bus": "virtio"}) | {"serial": "s", "cache": "none"},),
            ),
        ),
        (
            "as a unit",
            PLAIN,
            [add(disk={"name": "data", "lun": {}})],
            with_volumes(volume(), disks=(disk(lun={"bus": "scsi"}) | SERIAL,)),
        ),
        ("into a drive", EMPTY_DRIVE, [add("drive")], LOADED),
        ("out of a drive", LOADED, [remove("drive")], EMPTY_DRIVE),
    ),
)
def test_what_requests_make_of_a_template(
    template: Json, requests: list[Json], expected: Json
) -> None:
    found = outcome_of(machine(template).spec.template.spec, requested(*requests))
    wanted = machine(expected).spec.template.spec
    assert (found.volumes, found.disks) == (wanted.volumes, wanted.domain.devices.disks)
    assert found.refusals == []
    assert bool(found.rest) == (template != expected)
    again = outcome_of(wanted, requested(*requests))
    assert (again.volumes, again.rest) == (wanted.volumes, [])


@pytest.mark.parametrize(
    ("template", "request_", "words"),
    situations(
        ("neither", PLAIN, {}, "either addVolumeOptions or"),
        ("both", PLAIN, add() | remove(), "either addVolumeOptions or"),
        ("no source", PLAIN, add(volumeSource={}), "exactly one of"),
        ("no claim", PLAIN, add(claim=""), "names no claim"),
        ("another volume's name", PLAIN, add("root"), "another volume of that name"),
        ("another claim", PLUGGED, add(claim="other"), "another volume of that name"),
        ("a fixed one is there", FIXED, add(), "another volume of that name"),
        ("a drive", PLAIN, add(disk={"name": "data", "cdrom": {}}), "no CD-ROM drive"),
        ("bus", PLAIN, add(disk={"name": "data", "disk": {"bus": "sata"}}), "scsi or virtio"),
        ("unit", PLAIN, add(disk={"name": "data", "lun": {"bus": "virtio"}}), "must be on scsi."),
        ("detach a fixed one", FIXED, remove(), "not hotpluggable"),
    ),
)
def test_what_is_not_carried_out(template: Json, request_: Json, words: str) -> None:
    spec = machine(template).spec.template.spec
    found = outcome_of(spec, requested(request_, add("good", "good")))
    [refusal] = found.refusals
    assert words in refusal
    assert found.rest == requested(add("good", "good"))
    assert outcome_of(spec, requested(request_)).rest == []


def test_a_template_that_is_refused_drops_its_requests() -> None:
    spec = machine(PLAIN).spec.template.spec
    found = outcome_of(spec, requested(add()), refusal="no")
    assert (found.rest, found.refusals) == ([], ["no"])
    assert found.volumes == spec.volumes


def test_requests_stand_in_the_status_until_they_are_carried_out() -> None:
    asks = {"status": {"volumeRequests": [add()]}}
    now = vm_observed(machine(PLAIN, **asks), guest(PLAIN, generation="3"))
    assert [type(action) for action in plan(now)] == [ChangeTemplate]
    status = status_of(now)
    assert status is not None
    assert status.volume_requests == requested(add())
    done = status_of(vm_observed(machine(ASKED, **asks), guest(PLAIN)))
    assert done is not None
    assert done.volume_requests is None


def test_why_a_guest_does_not_get_its_volumes_is_a_condition() -> None:
    status = status_of(vm_observed(machine(PLUGGED), guest(PLAIN), unplugged="no"))
    assert status is not None
    [failure] = [c for c in status.conditions or () if c.type == "Failure"]
    assert (failure.status, failure.reason, failure.message) == ("True", "HotPlugVolumeError", "no")


# Against an API server.


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
    [told_of] = [e for e in server.list(EVENTS) if e["reason"] == "VolumeRequestRefused"]
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
        lambda: any(e["reason"] == "VolumeRequestRefused" for e in server.list(EVENTS))
    )
    assert "volumeRequests" not in cluster.status(cluster.vm)
    assert volumes_of(cluster.vmi) == ["root", "seed"]
    assert server.refused == 1
    # Asked again, it is tried again.
    await client.merge_patch(VIRTUAL_MACHINES, MYVM, patch, subresource="status")
    await server.until(lambda: volumes_of(cluster.vmi) == ["root", "seed", "data"])


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
