"""Why a restore fails or waits, and that it says so."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest
from podvisor_common.api import core
from podvisor_controller.restore import machine, plan, status
from podvisor_controller.restore.hindrances import failure_of, hindrance_of
from podvisor_controller.restore.observed import Observed

from tests.unit.controller.api_server import Json
from tests.unit.controller.builders import NOW, claim_body, situations, stamp, vm, vmi
from tests.unit.controller.observed_restores import (
    IN_PLACE,
    MADE,
    MARKED,
    RUNNING,
    begun,
    content,
    content_of_two,
    in_place,
    kept,
    observed,
)
from tests.unit.controller.restores import restore
from tests.unit.controller.snapshots import DATA, snapshot

LOSS = snapshot(
    status={
        "readyToUse": False,
        "phase": "Succeeded",
        "error": {"message": f"VolumeSnapshots ({DATA}) missing"},
    }
)

LATER = restore(metadata={"name": "later", "creationTimestamp": stamp(10)})


@pytest.mark.parametrize(
    ("now", "why"),
    situations(
        (
            "runs and may not",
            observed(restore=restore(targetReadinessPolicy="FailImmediate"), **RUNNING),
            "Restore target not ready",
        ),
        (
            "ran too long",
            observed(at=NOW + timedelta(minutes=5), **RUNNING),
            "Restore target failed to be ready within 5m0s",
        ),
        (
            "may run as long as it wants",
            observed(
                restore=restore(targetReadinessPolicy="WaitEventually"),
                at=NOW + timedelta(days=5),
                **RUNNING,
            ),
            "",
        ),
        (
            "runs and may not, but what it had has gone",
            begun(
                restore=in_place(targetReadinessPolicy="FailImmediate"),
                instance=vmi(owned=True),
            ),
            "",
        ),
        (
            "ran too long, but what it had has gone",
            begun(restore=IN_PLACE, at=NOW + timedelta(minutes=5), instance=vmi(owned=True)),
            "",
        ),
        (
            "a later restore was faster",
            observed(last_restore=LATER),
            'VirtualMachineRestore "later", which was made later, has restored the target meanwhile.'
            " Make a new restore if this one is wanted all the same.",
        ),
        ("a later restore was faster, but this one has begun", begun(last_restore=LATER), ""),
        (
            "an earlier restore was before it",
            observed(last_restore=restore(metadata={"creationTimestamp": stamp(90)})),
            "",
        ),
        (
            "failed snapshot",
            observed(snapshot=snapshot(status={"phase": "Failed"})),
            "VMSnapshot shop/before failed and is invalid to use",
        ),
        (
            "another machine",
            observed(target=vm("Halted", metadata={"uid": "other"})),
            "restore source and restore target are different but restore target already exists",
        ),
        (
            "a patch that cannot be applied",
            observed(
                target=None,
                patch_fault=machine.patch_fault(
                    restore(patches=['{"op":"remove","path":"/spec/no"}']), kept(), []
                ),
            ),
            "error patching VM myvm: spec.patches[0]: there is nothing at the path",
        ),
        (
            "a patch of what no patch may touch",
            observed(
                target=None,
                patch_fault=machine.patch_fault(
                    restore(patches=['{"op":"add","path":"/metadata/name","value":"x"}']),
                    kept(),
                    [],
                ),
            ),
            "error patching VM myvm: spec.patches[0]: patching is valid only for elements under /spec/,"
            " /metadata/labels/ or /metadata/annotations/",
        ),
        (
            "two volumes with one claim between them",
            observed(
                content=content_of_two(),
                restore=restore(
                    volumeRestorePolicy="InPlace",
                    volumeRestoreOverrides=[{"volumeName": "data", "restoreName": "logs"}],
                ),
            ),
            'volumes "data" and "logs" would both get PVC "logs"',
        ),
        ("a VolumeSnapshot gone", observed(volume_snapshots={}), f"missing volumeSnapshot {DATA}"),
        (
            "an override of no volume",
            observed(
                restore=restore(
                    volumeRestoreOverrides=[
                        {"volumeName": "data", "restoreName": "mine"},
                        {"volumeName": "date", "restoreName": "yours"},
                    ]
                )
            ),
            'spec.volumeRestoreOverrides[1].volumeName: VMSnapshot shop/before has no volume "date"',
        ),
        (
            "a VolumeSnapshot gone, which the snapshot tells",
            observed(snapshot=LOSS, volume_snapshots={}),
            f"VolumeSnapshots ({DATA}) missing",
        ),
        ("taken, and its driver is at it still", observed(snapshot=LOSS), ""),
        (
            "still being taken",
            observed(snapshot=snapshot(status={"phase": "InProgress"}), volume_snapshots={}),
            "",
        ),
        (
            "what can never be made",
            begun(verdict="The VirtualMachine cannot be"),
            "The VirtualMachine cannot be",
        ),
        (
            "what can never be made, when a claim has gone",
            begun(restore=IN_PLACE, verdict="no"),
            "",
        ),
        ("nothing", observed(), ""),
    ),
)
def test_what_is_a_failure(now: Observed, why: str) -> None:
    assert failure_of(now) == why


@pytest.mark.parametrize(
    ("kept_claim", "kept_machine"),
    [
        ({"metadata": "x", "spec": {}}, {}),
        ({"metadata": {"name": "data", "labels": "x"}, "spec": {}}, {}),
        ({"metadata": {"name": "data", "annotations": ["x"]}, "spec": {}}, {}),
        ({"metadata": {"name": "data", "ownerReferences": ["x"]}, "spec": {}}, {}),
        ({"metadata": {"name": "data"}, "spec": "x"}, {}),
        ({"metadata": {"name": "data"}, "spec": {"resources": {"requests": "x"}}}, {}),
        ({"metadata": {"name": ""}, "spec": {}}, {}),
        (None, {"template": {"spec": {"volumes": ["x"]}}}),
        (None, {"template": {"spec": {"volumes": [{"name": "v", "dataVolume": "x"}]}}}),
        (None, {"template": {"spec": {"volumes": "x"}}}),
        (None, {"template": "x"}),
    ],
)
@pytest.mark.parametrize("target", [vm("Halted"), MARKED, None])
@pytest.mark.parametrize("policy", ["RandomizeNames", "InPlace"])
def test_what_nothing_can_be_made_of_is_a_failure(
    kept_claim: Any, kept_machine: Json, target: Any, policy: str
) -> None:
    wanted = restore(volumeRestorePolicy=policy)
    now = observed(restore=wanted, target=target, content=content(kept_claim, **kept_machine))
    if target is not MARKED:
        assert failure_of(now).startswith("VMSnapshotContent c holds no ")
        assert plan.plan(now) == []
    status.status_of(now)


def test_what_is_waited_for_is_said() -> None:
    assert hindrance_of(observed(snapshot=snapshot())) == "VMSnapshot shop/before not ready"
    stranger = msgspec.convert(claim_body(MADE), core.PersistentVolumeClaim)
    assert "exists and is not of this restore" in hindrance_of(
        begun(volume_claims={MADE: stranger})
    )


def test_the_status_of_a_restore_is_told_once() -> None:
    now = observed(restore=restore(targetReadinessPolicy="FailImmediate"), **RUNNING)
    wanted = status.status_of(now)
    news = status.news_of(now, wanted)
    assert news is not None
    assert news.reason == "VirtualMachineRestoreError"
    again = observed(
        restore=restore(targetReadinessPolicy="FailImmediate", status=msgspec.to_builtins(wanted)),
        **RUNNING,
    )
    assert status.news_of(again, status.status_of(again)) is None
