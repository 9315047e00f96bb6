"""What is next for disks that come and go, and what is said of them."""

import pytest
from podvisor.domain.v1 import domain_pb2 as pb
from podvisor_launcher.lifecycle.hotplug_plan import (
    Attached,
    Attachment,
    Change,
    DiskChange,
    Disks,
    Requests,
    asked_again,
    attachments,
    next_change,
)
from podvisor_launcher.lifecycle.spec_changes import adopt_live_fields, restart_required

from tests.unit.launcher.specs import container_disk, spec, volume_disk

PLUG, UNPLUG = DiskChange("a", Change.PLUG), DiskChange("a", Change.UNPLUG)
ASKED = {"a": Requests(1, 700)}


@pytest.mark.parametrize(
    ("situation", "disks", "change", "said"),
    [
        ("nothing", Disks(), None, None),
        ("wanted", Disks(wanted=("a",)), None, Attachment.AWAITED),
        ("looked at", Disks(wanted=("a",), held={"a": False}), None, Attachment.AWAITED),
        ("ready", Disks(wanted=("a",), held={"a": True}), PLUG, Attachment.AWAITED),
        ("there", Disks(wanted=("a",), present=("a",)), None, Attachment.ATTACHED),
        ("not wanted", Disks(present=("a",)), UNPLUG, Attachment.DETACHING),
        (
            "asked for",
            Disks(present=("a",), requests=ASKED),
            DiskChange("a", Change.UNPLUG, 700),
            Attachment.DETACHING,
        ),
        (
            "wanted anew",
            Disks(wanted=("a",), present=("a",), requests=ASKED),
            DiskChange("a", Change.UNPLUG, 700),
            Attachment.DETACHING,
        ),
        ("open, not wanted", Disks(held={"a": False}), None, Attachment.DETACHING),
    ],
)
def test_one_disk(
    situation: str, disks: Disks, change: DiskChange | None, said: Attachment | None
) -> None:
    assert next_change(disks) == change
    assert [each.attachment for each in attachments(disks)] == ([said] if said else [])


def test_what_is_due_first_comes_first() -> None:
    disks = Disks(wanted=("b",), present=("a",), held={"b": True}, requests=ASKED)
    assert next_change(disks) == DiskChange("b", Change.PLUG)


def test_requests_become_rare() -> None:
    asked, pauses = None, []
    for _ in range(6):
        asked = asked_again(asked, 0)
        pauses.append(asked.next_ms)
    assert pauses == [5_000, 10_000, 20_000, 40_000, 60_000, 60_000]


def test_a_problem_is_told_with_its_disk() -> None:
    disks = Disks(wanted=("a", "b"), problems={"b": "broken"})
    assert attachments(disks)[1] == Attached("b", Attachment.AWAITED, "broken")


HANDED_OVER = pb.VolumeDiskSource(handed_over=True, file="disk.img")
ROOT = container_disk()
LATER = volume_disk("later", hotpluggable=True, volume=HANDED_OVER)


def cdrom(**changes: object) -> pb.DiskSpec:
    fields: dict[str, object] = {
        "name": "cd",
        "device": pb.DISK_DEVICE_CDROM,
        "bus": pb.DISK_BUS_SATA,
    }
    return pb.DiskSpec(**(fields | changes))  # type: ignore[arg-type]


EMPTY = cdrom(read_only=True)
LOADED = cdrom(volume=HANDED_OVER, hotpluggable=True)
FIXED = cdrom(container_disk=pb.ContainerDiskSource(image_root="/x"))


@pytest.mark.parametrize(
    ("running", "wanted", "required"),
    [
        ([ROOT], [ROOT, LATER], []),
        ([ROOT, LATER], [ROOT], []),
        ([LATER, ROOT], [ROOT, LATER], []),
        ([EMPTY], [LOADED], []),
        ([LOADED], [EMPTY], []),
        ([FIXED], [LOADED], ["disks[cd]"]),
        ([EMPTY], [], ["disks[cd]"]),
        ([ROOT], [ROOT, LOADED], ["disks[cd]"]),
    ],
)
def test_what_comes_and_goes_needs_no_restart(
    running: list[pb.DiskSpec], wanted: list[pb.DiskSpec], required: list[str]
) -> None:
    assert restart_required(spec(disks=running), spec(disks=wanted)) == required
    adopted = adopt_live_fields(spec(disks=running), spec(disks=wanted))
    if not required:
        assert {disk.name: disk for disk in adopted.disks} == {disk.name: disk for disk in wanted}
    else:
        assert list(adopted.disks) == running
