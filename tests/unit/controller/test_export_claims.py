"""Which claims an export has, and who else has them: data in, data out."""

from typing import Any

import msgspec
import pytest
from podvisor_common.api import core, v1
from podvisor_common.kube.resources import ObjectKey
from podvisor_controller.export import users
from podvisor_controller.export.sources import (
    of_claim,
    of_machine,
)
from podvisor_controller.user_pods import UserPod
from podvisor_controller.vmi import claims
from podvisor_controller.vmi.attachments import Attachments

from tests.unit.controller.builders import (
    NOW,
    claim,
    claim_body,
    situations,
    spec_body,
    stamp,
    vm_body,
    vmi_body,
)
from tests.unit.controller.exports import EXPORT_UID, MACHINE, export
from tests.unit.controller.snapshots import on_claims

IN_USE = "PersistentVolumeClaim shop/data is in use by Pod x"


def of_pod(
    volume: dict[str, Any], phase: str = "Running", owner: str = "", name: str = "x"
) -> UserPod:
    references = [{"kind": "K", "name": "n", "uid": owner, "controller": True}] if owner else []
    body = {
        "metadata": {"namespace": "shop", "name": name, "ownerReferences": references},
        "spec": {"volumes": [{"name": "v", **volume}]},
        "status": {"phase": phase},
    }
    return msgspec.convert(body, UserPod)


CLAIMED = {"persistentVolumeClaim": {"claimName": "data"}}


@pytest.mark.parametrize(
    ("carrier", "is_in_the_way"),
    situations(
        ("a pod with the claim", of_pod(CLAIMED), True),
        ("one that is still to be scheduled", of_pod(CLAIMED, phase=""), True),
        ("one that has ended", of_pod(CLAIMED, phase="Failed"), False),
        ("our own", of_pod(CLAIMED, owner=EXPORT_UID), False),
        ("a namesake's", of_pod(CLAIMED, owner="other"), True),
        ("another claim", of_pod({"persistentVolumeClaim": {"claimName": "logs"}}), False),
        (
            "one that only reads",
            of_pod({"persistentVolumeClaim": {"claimName": "data", "readOnly": True}}),
            False,
        ),
        ("no claim", of_pod({"emptyDir": {}}), False),
    ),
)
def test_pods_in_the_way(carrier: UserPod, is_in_the_way: bool) -> None:
    told = users.pod_in_the_way([carrier], {"data"}, export())
    assert told == (IN_USE if is_in_the_way else "")


def instance(volume: dict[str, Any], **disk: Any) -> v1.VirtualMachineInstance:
    domain = spec_body()["domain"]
    domain["devices"] = {"disks": [{"name": "data", **(disk or {"disk": {}})}]}
    body = vmi_body(spec=spec_body(domain=domain, volumes=[{"name": "data", **volume}]))
    return msgspec.convert(body, v1.VirtualMachineInstance)


@pytest.mark.parametrize(
    ("vmi", "is_in_the_way"),
    situations(
        ("it writes", instance(CLAIMED), True),
        ("a read-only disk", instance(CLAIMED, disk={"readonly": True}), False),
        ("over it", instance({"ephemeral": CLAIMED}), False),
        ("another", instance({"persistentVolumeClaim": {"claimName": "logs"}}), False),
    ),
)
def test_instances_in_the_way_of_an_export_and_the_other_way_round(
    vmi: v1.VirtualMachineInstance, is_in_the_way: bool
) -> None:
    assert bool(users.instance_in_the_way("data", [vmi], export())) == is_in_the_way
    exports = {"data": ObjectKey("shop", "copy")}
    told = claims.exported(vmi, exports)
    assert bool(told) == is_in_the_way
    assert ("VirtualMachineExport shop/copy" in told) == is_in_the_way


def test_a_claim_that_is_exported_is_not_attached() -> None:
    volume = {"persistentVolumeClaim": {"claimName": "data", "hotpluggable": True}}
    vmi = instance(volume)
    [plugged] = vmi.spec.volumes or []
    exports = {"data": ObjectKey("shop", "copy")}
    seen = Attachments(vmi, None, NOW, claims={"data": claim()}, exports=exports)
    trouble = seen.obstacle(plugged)
    assert trouble is not None
    assert trouble.reason == "VolumeInUse"
    assert "attached when that has ended" in trouble.message


@pytest.mark.parametrize(
    ("run_strategy", "is_in_the_way"), [("Always", True), ("Halted", False), ("Manual", False)]
)
def test_machines_in_the_way(run_strategy: str, is_in_the_way: bool) -> None:
    vm = msgspec.convert(vm_body(run_strategy, spec=on_claims("data")), v1.VirtualMachine)
    assert bool(users.machine_in_the_way("data", [vm], export())) == is_in_the_way


def test_a_claim_on_its_way_out_is_as_good_as_none() -> None:
    source = of_claim(export(), lambda _: claim(deletionTimestamp=stamp()))
    assert not source.is_available
    assert source.finding.reason == "PVCNotFound"


@pytest.mark.parametrize(
    ("phase", "status", "reason"),
    [("Bound", True, "PVCBound"), ("Pending", False, "PVCPending"), ("Lost", False, "Unknown")],
)
def test_the_worst_of_claims_is_said(phase: str, status: bool, reason: str) -> None:
    body = claim_body()
    body["status"]["phase"] = phase
    found = msgspec.convert(body, core.PersistentVolumeClaim)
    vm = msgspec.convert(vm_body("Halted", spec=on_claims("data", "logs")), v1.VirtualMachine)
    find = {"data": found, "logs": claim("logs")}.get
    source = of_machine(export(MACHINE), vm, None, find)
    assert (source.finding.status, source.finding.reason) == (status, reason)


def test_a_machine_whose_claims_are_not_all_there() -> None:
    vm = msgspec.convert(vm_body("Halted", spec=on_claims("data", "logs")), v1.VirtualMachine)
    source = of_machine(export(MACHINE), vm, None, {"data": claim()}.get)
    assert source.hindrance is not None
    assert source.hindrance.reason == "VolumesNotPopulated"
    assert "PersistentVolumeClaim logs" in source.hindrance.message


def test_a_claim_that_a_machine_has_twice_is_served_once() -> None:
    spec = on_claims("data")
    volumes = spec["template"]["spec"]["volumes"]
    volumes.append({"name": "again", "persistentVolumeClaim": {"claimName": "data"}})
    vm = msgspec.convert(vm_body("Halted", spec=spec), v1.VirtualMachine)
    assert len(of_machine(export(MACHINE), vm, None, {"data": claim()}.get).volumes) == 1
