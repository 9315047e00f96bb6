"""Edits of a running machine's volumes, and requests for them: what reaches the guest, what waits, what is refused."""

from typing import Any

import msgspec
import pytest
from podvisor_common.api import v1
from podvisor_common.api.v1 import names
from podvisor_controller.vm.hotplug import fixed_part, has, plugged
from podvisor_controller.vm.plan import ChangeTemplate, FollowGeneration, PlugVolumes, plan
from podvisor_controller.vm.status import status_of
from podvisor_controller.vm.volume_requests import outcome_of

from tests.unit.controller.builders import (
    Json,
    instance,
    situations,
    spec_body,
    stamp,
    vm,
    vm_observed,
)
from tests.unit.controller.plugged import disk, told, volume, with_volumes

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
PLUGGED_AND_OWN = with_volumes(volume(), volume("own", "own"))
ONLY_OWN = with_volumes(volume("own", "own"))
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


def with_own(*own: str) -> Json:
    """The metadata of an instance that volumes of these names were attached to alone."""
    text = msgspec.json.encode(list(own)).decode()
    return {
        "annotations": {
            names.VM_GENERATION_ANNOTATION: "2",
            names.EPHEMERAL_VOLUMES_ANNOTATION: text,
        }
    }


@pytest.mark.parametrize(
    ("template", "had", "own", "expected", "left", "is_whole"),
    situations(
        ("it stays", PLAIN, ONLY_OWN, ["own"], ONLY_OWN, ["own"], True),
        ("another goes", PLAIN, PLUGGED_AND_OWN, ["own"], ONLY_OWN, ["own"], True),
        (
            "another comes",
            PLUGGED,
            ONLY_OWN,
            ["own"],
            with_volumes(volume("own", "own"), volume()),
            ["own"],
            True,
        ),
        ("it becomes the machine's", PLUGGED, PLUGGED, ["data"], PLUGGED, [], True),
        ("it was detached", PLAIN, PLAIN, ["own"], PLAIN, [], True),
        ("its name is asked for", OTHER_CLAIM, PLUGGED, ["data"], PLUGGED, ["data"], False),
        ("a medium", EMPTY_DRIVE, LOADED, ["drive"], LOADED, ["drive"], True),
    ),
)
def test_what_was_attached_to_an_instance_alone_stays(
    template: Json, had: Json, own: list[str], expected: Json, left: list[str], is_whole: bool
) -> None:
    found = plugged(machine(template), guest(had, metadata=with_own(*own)))
    assert has(guest(expected, metadata=with_own(*left)), found)
    assert not left or not has(guest(expected), found)
    assert found.is_whole == is_whole


def test_an_annotation_that_makes_no_sense_names_no_volume() -> None:
    annotations = {
        names.VM_GENERATION_ANNOTATION: "2",
        names.EPHEMERAL_VOLUMES_ANNOTATION: '{"data"',
    }
    found = plugged(machine(PLAIN), guest(PLUGGED, metadata={"annotations": annotations}))
    assert has(guest(PLAIN), found)


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
ASKED_AND_MORE = with_volumes(volume(), volume("more"), disks=(disk() | SERIAL, disk("more")))


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
        ("detach and attach", ASKED_AND_MORE, [remove(), add()], ASKED_AND_MORE),
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


def test_requests_that_were_refused_together_have_each_its_own_verdict() -> None:
    spec, asked = machine(PLAIN).spec.template.spec, requested(add(), add("more", "more"))
    first = outcome_of(spec, asked, one_by_one=True)
    assert [v.name for v in first.volumes] == ["root", "seed", "data"]
    assert (first.rest, first.is_change) == (asked, True)
    dropped = outcome_of(spec, asked, refusal="no", one_by_one=True)
    assert (dropped.rest, dropped.refusals, dropped.is_change) == (asked[1:], ["no"], False)
    done = outcome_of(machine(ASKED).spec.template.spec, asked, one_by_one=True)
    assert (done.rest, done.refusals, done.is_change) == (asked[1:], [], False)


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
