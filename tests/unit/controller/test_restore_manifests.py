"""The machines and claims that a restore makes of what was kept."""

import msgspec
import pytest
from podvisor_common.api.snapshot import VolumeRestore, names
from podvisor_controller.json_patch import PatchError
from podvisor_controller.restore import claims, machine

from tests.unit.controller.api_server import Json
from tests.unit.controller.builders import claim_body, vm, vm_body
from tests.unit.controller.observed_restores import MADE, MARK, TOLD, content, kept
from tests.unit.controller.restores import restore
from tests.unit.controller.snapshots import DATA, on_claims, volume_snapshot

MAC = "02:00:00:00:00:01"


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
