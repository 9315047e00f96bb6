"""What a restore needs next."""

import msgspec
import pytest
from podvisor_common.api.snapshot import names
from podvisor_controller.restore import plan
from podvisor_controller.restore.hindrances import hindrance_of
from podvisor_controller.restore.observed import Observed

from tests.unit.controller.builders import situations, vm, vmi
from tests.unit.controller.observed_restores import (
    DELETED,
    IN_PLACE,
    LEAVING,
    MADE,
    MARK,
    MARKED,
    READY,
    READY_DATA,
    RUNNING,
    TOLD,
    begun,
    both_in_place,
    content_of_two,
    made,
    observed,
)
from tests.unit.controller.restores import restore
from tests.unit.controller.snapshots import DATA, snapshot, volume_snapshot


@pytest.mark.parametrize(
    ("now", "expected"),
    situations(
        ("stopped", observed(), [plan.LockTarget()]),
        (
            "not protected",
            observed(restore=restore(metadata={"finalizers": []})),
            [plan.ProtectRestore(), plan.LockTarget()],
        ),
        ("runs", observed(**RUNNING), []),
        (
            "runs and is to be stopped",
            observed(restore=restore(targetReadinessPolicy="StopTarget"), **RUNNING),
            [plan.StopTarget()],
        ),
        (
            "is being stopped",
            observed(
                restore=restore(targetReadinessPolicy="StopTarget"),
                target=vm("Halted"),
                instance=vmi(owned=True),
            ),
            [],
        ),
        ("an instance is being asked for", observed(is_starting=True), []),
        (
            "in place, and an instance is being asked for",
            begun(restore=IN_PLACE, volume_claims=LEAVING, is_starting=True),
            [],
        ),
        (
            "in place, and an instance came when its claim had gone",
            begun(restore=IN_PLACE, instance=vmi(owned=True)),
            [plan.CreateClaims(("data",))],
        ),
        (
            "in place, and an instance came when one of two claims had gone",
            begun(
                restore=both_in_place(),
                content=content_of_two(),
                volume_claims=LEAVING,
                volume_snapshots={
                    DATA: READY_DATA,
                    "logs": volume_snapshot("logs", readyToUse=True),
                },
                instance=vmi(owned=True),
            ),
            [],
        ),
        ("no snapshot", observed(snapshot=None, content=None), []),
        (
            "being kept",
            observed(target=vm("Halted", status={"snapshotInProgress": "other"})),
            [],
        ),
        (
            "another restore",
            observed(target=vm("Halted", status={"restoreInProgress": "other"})),
            [],
        ),
        (
            "locked, and nothing told yet",
            observed(target=vm("Halted", status={"restoreInProgress": "back"})),
            [],
        ),
        (
            "an override of no volume",
            observed(
                restore=restore(volumeRestoreOverrides=[{"volumeName": "x", "restoreName": "y"}])
            ),
            [],
        ),
        ("told", begun(), [plan.CreateClaims(("data",))]),
        ("a claim without a volume", begun(volume_claims={MADE: made(capacity="")}), []),
        (
            "one that waits for a guest",
            begun(volume_claims={MADE: made(capacity="")}, late_bound=frozenset({MADE})),
            [plan.ReplaceTarget()],
        ),
        ("claims made", begun(volume_claims={MADE: made()}), [plan.ReplaceTarget()]),
        ("a new target", begun(target=None, volume_claims={MADE: made()}), [plan.CreateTarget()]),
        (
            "restored, with a claim of nobody's",
            begun(target=MARKED, volume_claims={MADE: made()}),
            [plan.OwnClaims((MADE,))],
        ),
        (
            "restored, and locked",
            begun(
                target=vm(
                    "Halted",
                    metadata={"annotations": {names.LAST_RESTORE_ANNOTATION: MARK}},
                    status={"restoreInProgress": "back"},
                ),
                spec={"volumeOwnershipPolicy": "None"},
                volume_claims={MADE: made()},
            ),
            [plan.UnlockTarget()],
        ),
        (
            "failed with the lock and a claim",
            begun(volume_claims={MADE: made()}, snapshot=None, content=None),
            [plan.UnlockTarget(), plan.AbandonClaims()],
        ),
        (
            "deleted halfway",
            begun(
                restore=restore(status={"restores": TOLD}, metadata=DELETED),
                volume_claims={MADE: made()},
            ),
            [plan.UnlockTarget(), plan.AbandonClaims(), plan.ReleaseRestore()],
        ),
        (
            "deleted when its target was there, with a claim of nobody's",
            begun(
                restore=restore(status={"restores": TOLD}, metadata=DELETED),
                target=MARKED,
                content=None,
                volume_claims={MADE: made()},
            ),
            [plan.OwnClaims((MADE,)), plan.ReleaseRestore()],
        ),
        (
            "deleted when it was complete",
            begun(
                restore=restore(status={"restores": TOLD, "complete": True}, metadata=DELETED),
                target=MARKED,
                volume_claims={MADE: made()},
            ),
            [plan.ReleaseRestore()],
        ),
        ("complete", observed(restore=restore(status={"complete": True})), []),
    ),
)
def test_plan(now: Observed, expected: list[plan.Action]) -> None:
    assert plan.plan(now) == expected


def test_a_restore_does_not_begin_with_a_snapshot_that_is_to_go() -> None:
    going = msgspec.structs.replace(READY, metadata=snapshot(metadata=DELETED).metadata)
    now = observed(snapshot=going)
    assert hindrance_of(now) == "VMSnapshot shop/before is being deleted"
    assert plan.plan(now) == []


def test_a_claim_that_has_gone_is_made_again_of_a_snapshot_that_is_to_go() -> None:
    going = msgspec.structs.replace(READY, metadata=snapshot(metadata=DELETED).metadata)
    assert plan.plan(begun(restore=IN_PLACE, snapshot=going)) == [plan.CreateClaims(("data",))]
