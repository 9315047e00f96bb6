"""Which claims a restore deletes: those whose place it takes, and those it made in vain."""

from typing import Any

import msgspec
import pytest
from podvisor_common.api import core
from podvisor_common.api.meta import ObjectMeta
from podvisor_common.api.snapshot import names
from podvisor_controller.restore import plan
from podvisor_controller.restore.hindrances import failure_of, hindrance_of
from podvisor_controller.snapshot.outline import volume_snapshot_outline

from tests.unit.controller.api_server import Json
from tests.unit.controller.builders import VM_UID, claim_body, situations, stamp, vm
from tests.unit.controller.builders import claim as a_claim
from tests.unit.controller.observed_restores import (
    DELETED,
    IN_PLACE,
    LEAVING,
    MADE,
    READY,
    READY_DATA,
    TOLD,
    begun,
    content,
    made,
)
from tests.unit.controller.restores import restore
from tests.unit.controller.snapshots import DATA, on_claims, snapshot, volume_snapshot

GOING = {"data": msgspec.convert(claim_body("data", **DELETED), core.PersistentVolumeClaim)}
LOCKED = vm("Halted", status={"restoreInProgress": "back"})
LOCKED_WITH_DATA = vm("Halted", spec=on_claims("data"), status={"restoreInProgress": "back"})


@pytest.mark.parametrize(
    ("doubt", "why"),
    situations(
        (
            "a snapshot on its way out",
            {
                "snapshot": msgspec.structs.replace(
                    READY, metadata=snapshot(metadata=DELETED).metadata
                )
            },
            "VMSnapshot before is being deleted",
        ),
        (
            "a snapshot that is not ready any more",
            {"snapshot": snapshot(status={"readyToUse": False, "sourceUID": VM_UID})},
            "VMSnapshot before is not ready to use",
        ),
        (
            "a content on its way out",
            {"content": content(metadata=DELETED)},
            "VMSnapshotContent c is being deleted",
        ),
        (
            "a content that is not ready",
            {"content": content(is_ready=False)},
            "VMSnapshotContent c is not ready to use",
        ),
        (
            "a VolumeSnapshot on its way out",
            {
                "volume_snapshots": {
                    DATA: msgspec.structs.replace(
                        READY_DATA, metadata=ObjectMeta(name=DATA, deletion_timestamp=stamp(1))
                    )
                }
            },
            f"volumeSnapshot {DATA} is being deleted",
        ),
        (
            "a VolumeSnapshot that is not ready",
            {"volume_snapshots": {DATA: volume_snapshot(readyToUse=False)}},
            f"volumeSnapshot {DATA} is not ready to use",
        ),
    ),
)
def test_no_claim_goes_on_the_strength_of_what_may_go(doubt: Json, why: str) -> None:
    now = begun(restore=IN_PLACE, volume_claims=LEAVING, **doubt)
    assert failure_of(now) == why
    assert plan.plan(now) == [plan.UnlockTarget()]


def test_the_outline_of_a_volume_snapshot_says_that_it_goes() -> None:
    going = msgspec.structs.replace(
        READY_DATA, metadata=ObjectMeta(name=DATA, deletion_timestamp=stamp(1))
    )
    assert volume_snapshot_outline(going).metadata.is_being_deleted


def test_in_place_a_claim_goes_only_when_it_can_be_had_again_and_nobody_else_has_it() -> None:
    now = begun(restore=IN_PLACE, volume_claims=LEAVING)
    assert plan.plan(now) == [plan.DeleteClaims(("data",))]
    used = begun(restore=IN_PLACE, volume_claims=LEAVING, other_users={"data": "VM x"})
    assert plan.plan(used) == []
    lost = begun(restore=IN_PLACE, volume_claims=LEAVING, volume_snapshots={})
    assert plan.plan(lost) == [plan.UnlockTarget()]
    assert plan.plan(begun(restore=IN_PLACE, volume_claims=GOING)) == []


@pytest.mark.parametrize(
    ("target", "claim", "goes"),
    situations(
        ("the target's", LOCKED_WITH_DATA, LEAVING["data"], True),
        ("not the target's any more", LOCKED, LEAVING["data"], False),
        ("what was kept, and no target", None, LEAVING["data"], True),
        ("another of its name, and no target", None, a_claim(uid="other"), False),
        (
            "what an earlier restore made, and no target",
            None,
            a_claim(uid="other", annotations={names.LAST_RESTORE_ANNOTATION: "earlier"}),
            True,
        ),
    ),
)
def test_only_what_was_the_machines_is_replaced(target: Any, claim: Any, goes: bool) -> None:
    now = begun(restore=IN_PLACE, target=target, volume_claims={"data": claim})
    assert plan.plan(now) == ([plan.DeleteClaims(("data",))] if goes else [])
    assert ("exists and is not of this restore" in hindrance_of(now)) is not goes


def test_a_claim_that_the_target_names_is_never_abandoned() -> None:
    spec = on_claims(MADE)
    now = begun(target=vm("Halted", spec=spec), volume_claims={MADE: made()})
    assert now.abandoned == []


@pytest.mark.parametrize(
    ("target", "content_"),
    situations(
        ("the machine is gone, and what was kept not looked at", None, None),
        ("the machine has other claims by now", vm("Halted"), None),
        ("it failed", vm("Halted"), content(is_ready=False)),
    ),
)
def test_a_claim_that_took_another_ones_place_is_never_abandoned(
    target: Any, content_: Any
) -> None:
    taken = {"data": made("data")}
    now = begun(restore=IN_PLACE, target=target, content=content_, volume_claims=taken)
    assert now.abandoned == []
    told = [TOLD[0] | {"persistentVolumeClaim": "mine"}]
    override = [{"volumeName": "data", "restoreName": "mine"}]
    beside = restore(
        volumeRestorePolicy="InPlace",
        volumeRestoreOverrides=override,
        status={"restores": told},
    )
    mine = made("mine")
    now = begun(restore=beside, target=target, content=content_, volume_claims={"mine": mine})
    assert now.abandoned == [mine]
