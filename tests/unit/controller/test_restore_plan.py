"""What a restore makes of what was kept, and what it needs next."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest
from podvisor_common.api import core
from podvisor_common.api.meta import ObjectMeta
from podvisor_common.api.snapshot import (
    VirtualMachineRestore,
    VirtualMachineSnapshotContent,
    VolumeRestore,
    names,
)
from podvisor_controller.json_patch import PatchError
from podvisor_controller.restore import claims, machine, plan, status
from podvisor_controller.restore.hindrances import failure_of, hindrance_of
from podvisor_controller.restore.observed import Observed
from podvisor_controller.restore.pods import pod_with
from podvisor_controller.snapshot.outline import volume_snapshot_outline

from tests.unit.controller.builders import (
    NOW,
    VM_UID,
    claim_body,
    situations,
    stamp,
    vm,
    vm_body,
    vmi,
)
from tests.unit.controller.builders import (
    claim as a_claim,
)
from tests.unit.controller.restores import RESTORE_UID, restore
from tests.unit.controller.snapshots import DATA, on_claims, snapshot, volume_snapshot

Json = dict[str, Any]

MARK = f"back-{RESTORE_UID}"
MADE = f"restore-{RESTORE_UID}-data"
MAC = "02:00:00:00:00:01"
TOLD = [{"volumeName": "data", "persistentVolumeClaim": MADE, "volumeSnapshotName": DATA}]
READY = snapshot(status={"readyToUse": True, "sourceUID": VM_UID, "phase": "Succeeded"})


def kept(**spec: Any) -> Json:
    body = vm_body("Always", spec=on_claims("data") | spec)
    return {"metadata": body["metadata"], "spec": body["spec"]}


def content(
    claim: Json | None = None,
    *,
    metadata: Json | None = None,
    is_ready: bool = True,
    **of_machine: Any,
) -> VirtualMachineSnapshotContent:
    claim = claim or claim_body("data")
    backup = {
        "volumeName": "data",
        "persistentVolumeClaim": {key: claim[key] for key in ("metadata", "spec")},
        "volumeSnapshotName": DATA,
    }
    source = {"virtualMachine": kept(**of_machine)}
    body = {
        "metadata": {"name": "c"} | (metadata or {}),
        "spec": {"source": source, "volumeBackups": [backup]},
        "status": {"readyToUse": is_ready},
    }
    return msgspec.convert(body, VirtualMachineSnapshotContent)


def made(name: str = MADE, **changes: Any) -> core.PersistentVolumeClaim:
    annotations = {names.LAST_RESTORE_ANNOTATION: MARK}
    body = claim_body(name, annotations=annotations, **changes)
    return msgspec.convert(body, core.PersistentVolumeClaim)


def observed(**changes: Any) -> Observed:
    """A restore that can begin, of a machine that is stopped."""
    given = {
        "restore": restore(),
        "at": NOW,
        "target": vm("Halted"),
        "snapshot": READY,
        "content": content(),
        "volume_snapshots": {DATA: volume_snapshot(readyToUse=True)},
    }
    return Observed(**given | changes)  # type: ignore[arg-type]


def begun(**changes: Any) -> Observed:
    """One that has locked its target and said what there will be."""
    told = restore(status={"restores": TOLD}, **changes.pop("spec", {}))
    locked = vm("Halted", spec=on_claims("data"), status={"restoreInProgress": "back"})
    return observed(**{"restore": told, "target": locked} | changes)


def in_place(*more: Json, **spec: Any) -> VirtualMachineRestore:
    """One that has told that it takes the place of claims."""
    told = [TOLD[0] | {"persistentVolumeClaim": "data"}, *more]
    return restore(volumeRestorePolicy="InPlace", status={"restores": told}, **spec)


def both_in_place() -> VirtualMachineRestore:
    return in_place(
        {"volumeName": "logs", "persistentVolumeClaim": "logs", "volumeSnapshotName": "logs"}
    )


def content_of_two() -> VirtualMachineSnapshotContent:
    one = content()
    [backup] = one.spec.volume_backups or []
    claim = {"metadata": {"name": "logs"}, "spec": {}}
    logs = msgspec.structs.replace(
        backup, volume_name="logs", persistent_volume_claim=claim, volume_snapshot_name="logs"
    )
    spec = msgspec.structs.replace(one.spec, volume_backups=[backup, logs])
    return msgspec.structs.replace(one, spec=spec)


MARKED = vm("Halted", metadata={"annotations": {names.LAST_RESTORE_ANNOTATION: MARK}})
RUNNING = {"target": vm("Always"), "instance": vmi(owned=True)}
DELETED = {"deletionTimestamp": stamp(1)}
IN_PLACE = in_place()
LEAVING = {"data": msgspec.convert(claim_body("data"), core.PersistentVolumeClaim)}
GOING = {"data": msgspec.convert(claim_body("data", **DELETED), core.PersistentVolumeClaim)}
LOCKED = vm("Halted", status={"restoreInProgress": "back"})
LOCKED_WITH_DATA = vm("Halted", spec=on_claims("data"), status={"restoreInProgress": "back"})
READY_DATA = volume_snapshot(readyToUse=True)


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


def test_a_claim_that_has_gone_is_made_again_of_a_snapshot_that_is_to_go() -> None:
    going = msgspec.structs.replace(READY, metadata=snapshot(metadata=DELETED).metadata)
    assert plan.plan(begun(restore=IN_PLACE, snapshot=going)) == [plan.CreateClaims(("data",))]


def test_a_restore_does_not_begin_with_a_snapshot_that_is_to_go() -> None:
    going = msgspec.structs.replace(READY, metadata=snapshot(metadata=DELETED).metadata)
    now = observed(snapshot=going)
    assert hindrance_of(now) == "VMSnapshot shop/before is being deleted"
    assert plan.plan(now) == []


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


@pytest.mark.parametrize(
    ("volume", "phase", "has_it"),
    [
        ({"name": "v", "persistentVolumeClaim": {"claimName": "data"}}, "Running", True),
        (
            {"name": "v", "persistentVolumeClaim": {"claimName": "data", "readOnly": True}},
            "Pending",
            True,
        ),
        ({"name": "v", "persistentVolumeClaim": {"claimName": "data"}}, "Succeeded", False),
        ({"name": "v", "persistentVolumeClaim": {"claimName": "other"}}, "Running", False),
        ({"name": "data", "emptyDir": {}}, "Running", False),
    ],
)
def test_which_pod_has_a_claim(volume: Json, phase: str, has_it: bool) -> None:
    body = {
        "metadata": {"name": "backup", "namespace": "shop"},
        "spec": {"containers": [], "volumes": [volume]},
        "status": {"phase": phase},
    }
    pods = [msgspec.convert(body, core.Pod)]
    assert pod_with("data", pods) == ("Pod shop/backup" if has_it else "")


def test_an_ephemeral_claim_of_a_pod_is_one() -> None:
    body = {
        "metadata": {"name": "da", "namespace": "shop"},
        "spec": {"containers": [], "volumes": [{"name": "ta", "ephemeral": {}}]},
    }
    assert pod_with("da-ta", [msgspec.convert(body, core.Pod)]) == "Pod shop/da"


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


def with_identity() -> Json:
    spec = on_claims("data")
    domain = spec["template"]["spec"]["domain"]
    domain["firmware"] = {"uuid": "u", "serial": "s"}
    domain["devices"]["interfaces"] = [{"name": "default", "macAddress": MAC}]
    return spec


@pytest.mark.parametrize(
    ("lives", "patch", "firmware", "address"),
    [
        (True, None, {}, None),
        (False, None, {"uuid": "u", "serial": "s"}, MAC),
        (True, "02:00:00:00:00:77", {}, "02:00:00:00:00:77"),
    ],
)
def test_a_machine_beside_its_source_has_another_identity(
    lives: bool, patch: str | None, firmware: Json, address: str | None
) -> None:
    path = "/spec/template/spec/domain/devices/interfaces/0/macAddress"
    patches = [f'{{"op":"replace","path":"{path}","value":"{patch}"}}'] if patch else []
    made_of = machine.new_machine(
        restore("twin", patches=patches), kept(**with_identity()), [], source_lives=lives
    )
    domain = made_of["spec"]["template"]["spec"]["domain"]
    assert domain["firmware"] == firmware
    assert domain["devices"]["interfaces"][0].get("macAddress") == address


def test_a_patch_that_does_not_apply_is_refused() -> None:
    wanted = restore("twin", patches=['{"op":"remove","path":"/spec/no"}'])
    with pytest.raises(PatchError):
        machine.new_machine(wanted, kept(), [], source_lives=True)


def test_a_target_keeps_its_own_words_about_when_it_runs() -> None:
    flagged = vm_body("", spec={"running": True})
    del flagged["spec"]["runStrategy"]
    target = msgspec.convert(flagged, type(vm()))
    operations = machine.replacement(restore(), target, kept(), [])
    spec = operations[-1]["value"]
    assert spec["running"] is True
    assert "runStrategy" not in spec


def test_the_volume_of_a_data_volume_gets_its_claim() -> None:
    spec = on_claims()
    volume = {"name": "data", "dataVolume": {"name": "data", "hotpluggable": True}}
    spec["template"]["spec"]["volumes"] = [volume]
    volumes = [msgspec.convert(TOLD[0], VolumeRestore)]
    made_of = machine.new_machine(restore("twin"), kept(**spec), volumes, source_lives=True)
    assert made_of["spec"]["template"]["spec"]["volumes"] == [
        {"name": "data", "persistentVolumeClaim": {"claimName": MADE, "hotpluggable": True}}
    ]


@pytest.mark.parametrize(("needed", "size"), [("20Gi", "20Gi"), ("1Gi", "10Gi"), (None, "10Gi")])
def test_a_claim_is_as_large_as_was_asked_for_and_as_is_needed(
    needed: str | None, size: str
) -> None:
    [backup] = content().spec.volume_backups or []
    taken = volume_snapshot(**({"restoreSize": needed} if needed else {}))
    manifest = claims.manifest_of(restore(), backup, taken, source="myvm", target=vm())
    assert manifest["spec"] == {
        "accessModes": ["ReadWriteOnce"],
        "volumeMode": "Filesystem",
        "resources": {"requests": {"storage": size}},
        "dataSource": {
            "apiGroup": "snapshot.storage.k8s.io",
            "kind": "VolumeSnapshot",
            "name": DATA,
        },
    }


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ({}, MADE),
        ({"volumeRestorePolicy": "InPlace"}, "data"),
        ({"volumeRestorePolicy": "PrefixTargetName"}, "myvm-data"),
        ({"volumeRestoreOverrides": [{"volumeName": "data", "restoreName": "mine"}]}, "mine"),
    ],
)
def test_the_name_of_a_claim(spec: Json, name: str) -> None:
    [volume] = claims.volumes_of(restore(**spec), content())
    assert volume.persistent_volume_claim == name


@pytest.mark.parametrize(
    ("spec", "owners", "is_owned"),
    [
        ({}, [], True),
        ({"volumeOwnershipPolicy": "None"}, [], False),
        ({"volumeRestorePolicy": "InPlace"}, [], False),
        ({"volumeRestorePolicy": "InPlace"}, [{"kind": "VirtualMachine", "name": "myvm"}], True),
    ],
)
def test_who_owns_a_claim(spec: Json, owners: list[Json], is_owned: bool) -> None:
    [backup] = content(claim_body("data", ownerReferences=owners)).spec.volume_backups or []
    manifest = claims.manifest_of(
        restore(**spec), backup, volume_snapshot(), source="myvm", target=vm()
    )
    assert ("ownerReferences" in manifest["metadata"]) is is_owned


def test_what_others_noted_on_a_claim_is_not_taken_over_and_overrides_are() -> None:
    noted = {"pv.kubernetes.io/bound-by-controller": "yes", "mine": "1"}
    [backup] = content(claim_body("data", annotations=noted)).spec.volume_backups or []
    override = {"volumeName": "data", "labels": {"a": "b"}, "annotations": {"mine": "2"}}
    wanted = restore(volumeRestoreOverrides=[override])
    metadata = claims.manifest_of(wanted, backup, volume_snapshot(), source="myvm", target=None)[
        "metadata"
    ]
    assert metadata["annotations"] == {
        "mine": "2",
        names.RESTORE_NAME_ANNOTATION: "back",
        names.LAST_RESTORE_ANNOTATION: MARK,
    }
    assert metadata["labels"]["a"] == "b"


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
