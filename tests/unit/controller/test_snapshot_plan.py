"""What a snapshot needs next and what is said of it, as tables of situations."""

from typing import Any

import msgspec
import pytest
from podvisor_common.api.snapshot import VirtualMachineSnapshotStatus
from podvisor_common.api.snapshot.names import SNAPSHOT_FINALIZER, SOURCE_FINALIZER
from podvisor_controller.snapshot import plan, status
from podvisor_controller.snapshot.manifests import as_it_runs
from podvisor_controller.snapshot.observed import Observed

from tests.unit.controller.builders import NOW, instance, situations, stamp, vm
from tests.unit.controller.snapshots import (
    DATA,
    LOCK,
    LOCKED,
    content,
    on_claims,
    snapshot,
    volume_snapshot,
)

DELETED = {"deletionTimestamp": stamp(1)}
TAKEN = {"creationTime": stamp(5), "readyToUse": False}
READY = {"creationTime": stamp(5), "readyToUse": True}
RETAIN = {"deletionPolicy": "Retain"}
SUCCEEDED = {"status": {"phase": "Succeeded", "readyToUse": True}}


def observed(**changes: Any) -> Observed:
    """A new snapshot of a locked machine, thirty seconds old."""
    defaults: dict[str, Any] = {
        "snapshot": snapshot(),
        "at": NOW,
        "vm": vm("Halted", metadata=LOCKED, status=LOCK),
    }
    return Observed(**(defaults | changes))


def unlocked(**changes: Any) -> Observed:
    return observed(vm=vm("Halted"), **changes)


@pytest.mark.parametrize(
    ("now", "expected"),
    situations(
        (
            "first sight",
            unlocked(snapshot=snapshot(metadata={"finalizers": []})),
            [plan.ProtectSnapshot, plan.LockSource],
        ),
        ("protected", unlocked(), [plan.LockSource]),
        (
            "locked by half: ended between the two writes",
            observed(vm=vm("Halted", status=LOCK)),
            [plan.LockSource],
        ),
        ("a claim is not bound", unlocked(hindrance="Not bound."), []),
        ("no machine", observed(vm=None), []),
        ("locked", observed(), [plan.CreateContent]),
        ("content made", observed(content=content("data")), [plan.CreateVolumeSnapshots]),
        (
            "one of two made: ended between them",
            observed(content=content("data", "logs"), volume_snapshots={DATA: volume_snapshot()}),
            [plan.CreateVolumeSnapshots],
        ),
        (
            "all made",
            observed(content=content("data"), volume_snapshots={DATA: volume_snapshot()}),
            [],
        ),
        (
            "taken, and not said yet",
            observed(content=content("data", status=TAKEN)),
            [],
        ),
        (
            "taken, and said",
            observed(
                snapshot=snapshot(status={"phase": "Succeeded"}),
                content=content("data", status=TAKEN),
            ),
            [plan.UnlockSource],
        ),
        ("over", unlocked(snapshot=snapshot(**SUCCEEDED)), []),
        (
            "too late, nothing made",
            observed(snapshot=snapshot(failureDeadline="20s")),
            [plan.UnlockSource],
        ),
        ("too late, and free", unlocked(snapshot=snapshot(failureDeadline="20s")), []),
        (
            "too late, with a content",
            observed(snapshot=snapshot(failureDeadline="20s"), content=content("data")),
            [plan.DeleteContent, plan.ReleaseContent],
        ),
        (
            "too late, but taken in time",
            observed(
                snapshot=snapshot(failureDeadline="20s"), content=content("data", status=TAKEN)
            ),
            [],
        ),
        (
            "old, and without a deadline",
            observed(
                snapshot=snapshot(failureDeadline="0", metadata={"creationTimestamp": stamp(9999)})
            ),
            [plan.CreateContent],
        ),
        (
            "deleted midway",
            observed(snapshot=snapshot(metadata=DELETED), content=content("data")),
            [plan.DeleteContent, plan.ReleaseContent],
        ),
        (
            "deleted while claims are made of it",
            unlocked(
                snapshot=snapshot(metadata=DELETED, **SUCCEEDED),
                content=content("data", status=READY),
                restore="back",
            ),
            [],
        ),
        (
            "deleted, and its content on its way out",
            observed(
                snapshot=snapshot(metadata=DELETED),
                content=content("data", metadata=DELETED | {"finalizers": ["foreground"]}),
            ),
            [],
        ),
        (
            "deleted, content gone",
            observed(snapshot=snapshot(metadata=DELETED)),
            [plan.UnlockSource],
        ),
        (
            "deleted, nothing left",
            unlocked(snapshot=snapshot(metadata=DELETED)),
            [plan.ReleaseSnapshot],
        ),
        (
            "deleted, and to be retained",
            unlocked(
                snapshot=snapshot(metadata=DELETED, **RETAIN, **SUCCEEDED),
                content=content("data", status=READY),
            ),
            [plan.ReleaseContent],
        ),
        (
            "deleted, and retained",
            unlocked(
                snapshot=snapshot(metadata=DELETED, **RETAIN, **SUCCEEDED),
                content=content("data", status=READY, metadata={"finalizers": []}),
            ),
            [plan.ReleaseSnapshot],
        ),
        (
            "nothing could be restored from it: not retained",
            unlocked(
                snapshot=snapshot(metadata=DELETED, **RETAIN), content=content("data", status=TAKEN)
            ),
            [plan.DeleteContent, plan.ReleaseContent],
        ),
        (
            "another snapshot's lock is left alone",
            observed(
                snapshot=snapshot(metadata=DELETED),
                vm=vm("Halted", metadata=LOCKED, status={"snapshotInProgress": "other"}),
            ),
            [plan.ReleaseSnapshot],
        ),
    ),
)
def test_plan(now: Observed, expected: Any) -> None:
    assert [type(action) for action in plan.plan(now)] == expected


@pytest.mark.parametrize(
    ("now", "phase", "progressing"),
    situations(
        ("no machine", observed(vm=None), "InProgress", "Source does not exist"),
        ("hindered", unlocked(hindrance="Not bound."), "InProgress", "Source not locked"),
        ("locked", observed(), "InProgress", "Source locked and operation in progress"),
        ("taken", observed(content=content(status=TAKEN)), "Succeeded", "Operation complete"),
        (
            "over, content gone",
            observed(snapshot=snapshot(**SUCCEEDED)),
            "Succeeded",
            "Operation complete",
        ),
        (
            "too late",
            observed(snapshot=snapshot(failureDeadline="1s")),
            "Failed",
            "Operation failed",
        ),
        (
            "failed once, failed for good",
            observed(snapshot=snapshot(failureDeadline="0", status={"phase": "Failed"})),
            "Failed",
            "Operation failed",
        ),
        (
            "deleted",
            observed(snapshot=snapshot(metadata=DELETED)),
            "Deleting",
            "VM snapshot is deleting",
        ),
        ("refused", observed(refusal="No."), "InProgress", "In error state"),
    ),
)
def test_phase_and_progress(now: Observed, phase: str, progressing: str) -> None:
    told = status.snapshot_status(now)
    [condition] = [c for c in told.conditions or () if c.type == "Progressing"]
    assert (told.phase, condition.reason) == (phase, progressing)


def test_what_is_missing_is_named_for_a_person() -> None:
    [progressing] = [
        c
        for c in status.snapshot_status(unlocked(hindrance="Why.")).conditions or ()
        if c.type == "Progressing"
    ]
    assert progressing.message == "Why."


def test_a_deleted_snapshot_says_which_restore_it_waits_for() -> None:
    going = snapshot(metadata=DELETED, **SUCCEEDED)
    [progressing] = [
        c
        for c in status.snapshot_status(unlocked(snapshot=going, restore="back")).conditions or ()
        if c.type == "Progressing"
    ]
    assert progressing.message == 'VirtualMachineRestore "back" is in progress.'


def test_what_was_waited_for_is_why_it_failed_for_good() -> None:
    waiting = status.snapshot_status(observed(vm=None))
    late = snapshot(failureDeadline="1s")
    for _ in range(2):  # it is said once, and stays
        late = msgspec.structs.replace(late, status=waiting)
        waiting = status.snapshot_status(observed(snapshot=late, vm=None))
        [failure] = [c for c in waiting.conditions or () if c.type == "Failure"]
        assert failure.message == 'There is no VirtualMachine "myvm" in namespace "shop".'


def test_why_it_failed_is_not_forgotten_with_its_content() -> None:
    error = {"time": stamp(3), "message": "VolumeSnapshot x error: full"}
    failed = snapshot(status={"phase": "Failed", "error": error})
    told = status.snapshot_status(unlocked(snapshot=failed))
    assert told.error is not None
    assert msgspec.to_builtins(told.error) == error


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ([], ["NoGuestAgent", "Online"]),
        ([{"type": "Paused", "status": "True"}], ["Online", "Paused"]),
        ([{"type": "Paused", "status": "False"}], ["NoGuestAgent", "Online"]),
    ],
)
def test_a_guest_that_runs_is_indicated(conditions: Any, expected: list[str]) -> None:
    running = instance("Running", status={"conditions": conditions})
    assert status.snapshot_status(observed(vmi=running)).indications == expected


def test_a_guest_that_has_ended_is_no_guest() -> None:
    assert status.snapshot_status(observed(vmi=instance("Failed"))).indications is None


def test_what_was_indicated_stays_when_the_guest_goes_on() -> None:
    paused = snapshot(status={"phase": "InProgress", "indications": ["Online", "Paused"]})
    over = snapshot(status={"phase": "Succeeded", "indications": ["Online", "Paused"]})
    running = instance("Running")
    both = status.snapshot_status(observed(snapshot=paused, vmi=running)).indications
    assert both == ["NoGuestAgent", "Online", "Paused"]
    assert status.snapshot_status(unlocked(snapshot=over, vmi=running)).indications == [
        "Online",
        "Paused",
    ]


def test_claims_that_were_left_out_make_the_snapshot_a_partial_one() -> None:
    told = status.snapshot_status(observed(content=content("data", left=("files",), status=READY)))
    assert told.snapshot_volumes is not None
    assert told.snapshot_volumes.included_volumes == ["data"]
    assert told.snapshot_volumes.excluded_volumes == ["root", "files"]
    assert told.indications == ["PartialSnapshot"]
    whole = status.snapshot_status(observed(content=content("data", status=READY)))
    assert whole.indications is None


@pytest.mark.parametrize(
    ("now", "expected"),
    situations(
        ("configuration alone", observed(content=content()), (True, True, None)),
        ("nothing made yet", observed(content=content("data")), (False, False, None)),
        (
            "asked for",
            observed(content=content("data"), volume_snapshots={DATA: volume_snapshot()}),
            (False, False, None),
        ),
        (
            "taken",
            observed(
                content=content("data"),
                volume_snapshots={DATA: volume_snapshot(creationTime=stamp(1), readyToUse=False)},
            ),
            (True, False, None),
        ),
        (
            "ready",
            observed(
                content=content("data"),
                volume_snapshots={DATA: volume_snapshot(creationTime=stamp(1), readyToUse=True)},
            ),
            (True, True, None),
        ),
        (
            "an old error of what is ready now",
            observed(
                content=content("data"),
                volume_snapshots={
                    DATA: volume_snapshot(
                        creationTime=stamp(1), readyToUse=True, error={"message": "full"}
                    )
                },
            ),
            (True, True, None),
        ),
        (
            "an error",
            observed(
                content=content("data"),
                volume_snapshots={DATA: volume_snapshot(error={"message": "full"})},
            ),
            (False, False, f"VolumeSnapshot {DATA} error: full"),
        ),
        (
            "gone",
            observed(content=content("data", status=READY)),
            (True, False, f"VolumeSnapshots ({DATA}) missing"),
        ),
    ),
)
def test_the_content_says(now: Observed, expected: Any) -> None:
    told = status.content_status(now)
    assert told is not None
    message = told.error.message if told.error is not None else None
    assert (told.creation_time is not None, told.ready_to_use, message) == expected


def test_nothing_is_said_of_a_content_that_goes() -> None:
    assert status.content_status(observed(snapshot=snapshot(metadata=DELETED))) is None
    going = content("data", metadata=DELETED)
    assert status.content_status(observed(content=going)) is None
    late = observed(snapshot=snapshot(failureDeadline="1s"), content=content("data"))
    assert status.content_status(late) is None


def test_two_equal_situations_are_told_in_the_same_words() -> None:
    told = status.snapshot_status(observed(refusal="No."))
    known = msgspec.convert(msgspec.to_builtins(told), VirtualMachineSnapshotStatus)
    again = observed(snapshot=msgspec.structs.replace(snapshot(), status=known), refusal="No.")
    assert status.snapshot_status(again) == told


def test_an_edited_machine_is_kept_as_its_guest_runs_with_the_disks_of_today() -> None:
    machine = {"metadata": {}, "spec": on_claims("data") | {"runStrategy": "Always"}}
    started = on_claims("gone")
    started["template"]["spec"]["domain"]["resources"] = {"requests": {"memory": "32M"}}
    kept = as_it_runs(machine, started)
    spec = kept["spec"]["template"]["spec"]
    assert spec["domain"]["resources"] == {"requests": {"memory": "32M"}}
    assert spec["volumes"] == machine["spec"]["template"]["spec"]["volumes"]
    assert [disk["name"] for disk in spec["domain"]["devices"]["disks"]] == ["root", "data"]
    assert kept["spec"]["runStrategy"] == "Always"
    assert as_it_runs(machine, None) is machine


def test_finalizers_are_kubevirts() -> None:
    assert SNAPSHOT_FINALIZER == "snapshot.kubevirt.io/vmsnapshot-protection"
    assert SOURCE_FINALIZER == "snapshot.kubevirt.io/snapshot-source-protection"
