"""What a clone's target does not get of its source, and the names of what a clone is made by."""

import json
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from podvisor_common.api.snapshot import VirtualMachineRestore, VirtualMachineSnapshotContent
from podvisor_controller.clone import plan, status
from podvisor_controller.clone.manifests import restore_manifest, target_name
from podvisor_controller.clone.observed import Observed
from podvisor_controller.clone.patches import is_kept, patches_of, unknown_interfaces
from podvisor_controller.json_patch import applied, parse
from podvisor_controller.webhooks.defaults import ClusterDefaults

from tests.unit.controller.builders import NOW, vm
from tests.unit.controller.clones import CLONE_UID, OF_SNAPSHOT, clone
from tests.unit.controller.snapshots import snapshot

Json = dict[str, Any]

MAC = "02:00:00:00:00:09"


def kept(firmware: Json | None = None, labels: Json | None = None, *interfaces: Json) -> Json:
    domain: Json = {"devices": {"interfaces": list(interfaces)}}
    if firmware is not None:
        domain["firmware"] = firmware
    spec = {"template": {"metadata": {"labels": labels or {}}, "spec": {"domain": domain}}}
    return {"metadata": {"labels": labels or {}}, "spec": spec}


def operations(machine: Json, **spec: Any) -> list[Json]:
    return [json.loads(one) for one in patches_of(clone(**spec), machine, ClusterDefaults())]


@pytest.mark.parametrize(
    ("filters", "keys"),
    [
        (["*"], {"a", "app/x", "app/y"}),
        (["app/*"], {"app/x", "app/y"}),
        (["*", "!app/*"], {"a"}),
        (["app/x"], {"app/x"}),
        (["!a", "*"], {"app/x", "app/y"}),
        (["!a"], set()),
        ([], set()),
    ],
)
def test_filters(filters: list[str], keys: set[str]) -> None:
    assert {key for key in ("a", "app/x", "app/y") if is_kept(key, filters)} == keys


def test_everything_is_taken_over_without_filters() -> None:
    assert operations(kept(None, {"a": "b"})) == []


def test_what_is_no_interface_has_no_address() -> None:
    machine = kept()
    machine["spec"]["template"]["spec"]["domain"]["devices"]["interfaces"] = ["x", {"name": []}]
    assert operations(machine, newMacAddresses={"default": "02:00:00:00:00:07"}) == []
    assert unknown_interfaces(clone(newMacAddresses={"default": MAC}), machine) == ["default"]


@pytest.mark.parametrize("devices", [None, {}, {"interfaces": []}, {"interfaces": None}])
def test_the_implicit_interface_gets_its_address(devices: Json | None) -> None:
    spec: Json = {"domain": {} if devices is None else {"devices": devices}}
    machine = {"spec": {"template": {"spec": spec}}}
    wanted = clone(newMacAddresses={"default": MAC})
    assert unknown_interfaces(wanted, machine) == []
    for binding in ("bridge", "masquerade"):
        patches = patches_of(wanted, machine, ClusterDefaults(interface_binding=binding))
        told = applied(machine, parse(patches))["spec"]["template"]["spec"]
        assert told["networks"] == [{"name": "default", "pod": {}}]
        interface = {"name": "default", binding: {}, "macAddress": MAC}
        assert told["domain"]["devices"]["interfaces"] == [interface]
    assert operations(machine, newMacAddresses={"default": ""}) == []


@pytest.mark.parametrize(
    ("devices", "networks"),
    [({"autoattachPodInterface": False}, []), ({}, [{"name": "mine", "pod": {}}])],
)
def test_a_machine_without_the_implicit_interface_has_no_address_for_it(
    devices: Json, networks: list[Json]
) -> None:
    spec = {"domain": {"devices": devices}, "networks": networks}
    machine = {"spec": {"template": {"spec": spec}}}
    wanted = clone(newMacAddresses={"default": MAC})
    assert unknown_interfaces(wanted, machine) == ["default"]
    assert patches_of(wanted, machine, ClusterDefaults()) == []


def test_keys_are_named_as_pointers_name_them() -> None:
    found = operations(kept(None, {"a/b~c": "d"}), labelFilters=[])
    assert found == [{"op": "remove", "path": "/metadata/labels/a~1b~0c"}]


@pytest.mark.parametrize(
    ("firmware", "serial", "expected"),
    [
        (None, None, []),
        (None, "new", [("add", "/firmware", {"serial": "new"})]),
        ({"uuid": "u", "serial": "s"}, None, [("remove", "/firmware/uuid", None), ("remove", "/firmware/serial", None)]),
        ({"serial": "s"}, "new", [("add", "/firmware/serial", "new")]),
    ],
)  # fmt: skip
def test_the_identity_is_another(
    firmware: Json | None, serial: str | None, expected: list[tuple[str, str, Any]]
) -> None:
    found = operations(kept(firmware), newSMBiosSerial=serial)
    prefix = "/spec/template/spec/domain"
    assert [
        (one["op"], one["path"].removeprefix(prefix), one.get("value")) for one in found
    ] == expected


def test_addresses_are_new_ones() -> None:
    interfaces = ({"name": "one", "macAddress": "x"}, {"name": "two"}, {"name": "three"})
    found = operations(kept(None, None, *interfaces), newMacAddresses={"three": MAC})
    prefix = "/spec/template/spec/domain/devices/interfaces"
    assert found == [
        {"op": "remove", "path": f"{prefix}/0/macAddress"},
        {"op": "add", "path": f"{prefix}/2/macAddress", "value": MAC},
    ]


def test_a_made_up_name_is_always_the_same_and_fits() -> None:
    source = {"apiGroup": "kubevirt.io", "kind": "VirtualMachine", "name": "m" * 63}
    one = clone(source=source, target=None)
    assert target_name(one) == target_name(clone(source=source, target=None))
    assert len(target_name(one)) == 63
    other = clone(source=source, target=None, metadata={"uid": "other"})
    assert target_name(other) != target_name(one)


def test_why_a_clone_has_failed_stays_as_it_was_said() -> None:
    now = Observed(clone=clone(status={"phase": "RestoreInProgress"}), at=NOW, source=vm())
    told = status.status_of(now)
    assert told.phase == "Failed"
    [news] = status.news_of(now, told)
    assert news.reason == "SnapshotDeleted"
    later = Observed(
        clone=clone(status=msgspec.to_builtins(told)), at=NOW, source=vm(), target=vm("Halted")
    )
    assert status.status_of(later) == told
    assert status.news_of(later, told) == []
    assert plan.plan(later) == []


def test_what_a_failed_clone_made_goes_and_the_restore_first() -> None:
    failed = clone(status={"phase": "Failed"})
    manifest = restore_manifest(failed, [])
    owners = manifest["metadata"]["ownerReferences"]
    taken = snapshot(metadata={"name": f"tmp-snapshot-{CLONE_UID}", "ownerReferences": owners})
    restore = msgspec.convert(manifest, VirtualMachineRestore)
    both = Observed(clone=failed, at=NOW, snapshot=taken, restore=restore)
    assert plan.plan(both) == [plan.DeleteRestore()]
    assert plan.plan(replace(both, restore=None)) == [plan.DeleteSnapshot()]
    del manifest["metadata"]["ownerReferences"]
    stranger = msgspec.convert(manifest, VirtualMachineRestore)
    assert plan.plan(replace(both, snapshot=None, restore=stranger)) == []
    assert plan.plan(replace(both, snapshot=snapshot(), restore=None)) == []


def test_a_clone_is_never_made_by_what_somebody_else_made() -> None:
    name = f"tmp-snapshot-{CLONE_UID}"
    stranger = snapshot(metadata={"name": name}, status={"readyToUse": True})
    now = Observed(clone=clone(), at=NOW, source=vm(), snapshot=stranger)
    assert now.failure is not None
    assert now.failure.message == f"VirtualMachineSnapshot {name} exists and is not of this clone"
    done = clone(status={"phase": "Succeeded"})
    assert plan.plan(Observed(clone=done, at=NOW, snapshot=stranger, target=vm())) == []


@pytest.mark.parametrize(
    ("there", "is_lost"), [([{"volumeSnapshotName": "vs", "readyToUse": False}], False), ([], True)]
)
def test_a_snapshot_that_gets_ready_is_waited_for(there: list[Json], is_lost: bool) -> None:
    trouble = {"readyToUse": False, "phase": "Succeeded", "error": {"message": "it takes time"}}
    backup = {"volumeName": "data", "volumeSnapshotName": "vs", "persistentVolumeClaim": {}}
    body = {
        "metadata": {"name": "kept"},
        "spec": {"source": {}, "volumeBackups": [backup]},
        "status": {"volumeSnapshotStatus": there},
    }
    content = msgspec.convert(body, VirtualMachineSnapshotContent)
    of_snapshot = clone(source=OF_SNAPSHOT)
    for status_ in ({"readyToUse": False}, trouble):
        now = Observed(
            clone=of_snapshot, at=NOW, snapshot=snapshot(status=status_), content=content
        )
        assert (now.failure is not None) == (is_lost and status_ is trouble)


def test_a_restore_that_failed_says_why_rather_than_its_snapshot() -> None:
    lost = {"phase": "Succeeded", "readyToUse": False, "error": {"message": "missing"}}
    of_snapshot = clone(source=OF_SNAPSHOT, status={"phase": "SnapshotInProgress"})
    failure = {"type": "Failure", "status": "True", "reason": "claim is gone"}
    restore = msgspec.convert(
        restore_manifest(of_snapshot, []) | {"status": {"conditions": [failure]}},
        VirtualMachineRestore,
    )
    now = Observed(clone=of_snapshot, at=NOW, snapshot=snapshot(status=lost), restore=restore)
    assert now.failure is not None
    assert now.failure.message == f"restore tmp-restore-{CLONE_UID} failed: claim is gone"
    assert status.status_of(now).phase == "Failed"


def test_a_restore_belongs_to_its_clone() -> None:
    manifest = restore_manifest(clone(volumeNamePolicy="PrefixTargetName"), ["p"])
    assert manifest["metadata"]["name"] == f"tmp-restore-{CLONE_UID}"
    [owner] = manifest["metadata"]["ownerReferences"]
    assert (owner["apiVersion"], owner["kind"]) == (
        "clone.kubevirt.io/v1beta1",
        "VirtualMachineClone",
    )
    assert manifest["spec"] == {
        "target": {"apiGroup": "kubevirt.io", "kind": "VirtualMachine", "name": "twin"},
        "virtualMachineSnapshotName": f"tmp-snapshot-{CLONE_UID}",
        "patches": ["p"],
        "volumeRestorePolicy": "PrefixTargetName",
    }
