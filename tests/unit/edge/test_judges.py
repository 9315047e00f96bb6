"""The real webhooks behind their paths: what a client of each version gets back."""

import base64
import json
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from podvisor_controller.webhooks.defaults import ClusterDefaults
from podvisor_controller.webhooks.judges import webhooks_for
from podvisor_controller.webhooks.registration import (
    CLONE_VALIDATE,
    EXPORT_VALIDATE,
    POOL_VALIDATE,
    REPLICA_SET_VALIDATE,
    RESTORE_VALIDATE,
    SNAPSHOT_VALIDATE,
    VM_MUTATE,
    VM_VALIDATE,
    VMI_MUTATE,
    VMI_VALIDATE_CREATE,
    VMI_VALIDATE_UPDATE,
)
from podvisor_controller.webhooks.review import (
    Refused,
    admission_reply,
    parse_admission,
)
from podvisor_controller.webhooks.server import Webhooks

from tests.unit.edge.webhook_session import nobody_evicts

WEBHOOKS = webhooks_for("kubevirt", ClusterDefaults, nobody_evicts)
WITH_HOST_DISKS = webhooks_for(
    "kubevirt", lambda: ClusterDefaults(feature_gates=frozenset({"HostDisk"})), nobody_evicts
)
VM_FINALIZER = "kubevirt.io/virtualMachineControllerFinalize"
VMI_FINALIZER = "kubevirt.io/foregroundDeleteVirtualMachine"


def instance_spec(memory: str = "64M") -> dict[str, Any]:
    return {
        "domain": {
            "devices": {"disks": [{"name": "root", "disk": {"bus": "virtio"}}]},
            "resources": {"requests": {"memory": memory}},
        },
        "volumes": [{"name": "root", "containerDisk": {"image": "example/disk:1"}}],
    }


def machine(memory: str = "64M", finalizers: list[str] | None = None) -> dict[str, Any]:
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": {"name": "a", "namespace": "shop", "finalizers": finalizers or []},
        "spec": {"runStrategy": "Always", "template": {"spec": instance_spec(memory)}},
    }


def instance(memory: str = "64M") -> dict[str, Any]:
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": "a", "namespace": "shop"},
        "spec": instance_spec(memory),
    }


def answer(
    path: str,
    obj: Any,
    old: Mapping[str, Any] | None = None,
    *,
    version: str = "v1",
    user: str = "me",
    webhooks: Webhooks = WEBHOOKS,
) -> dict[str, Any]:
    body = {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "u",
            "operation": "CREATE" if old is None else "UPDATE",
            "requestKind": {"group": "kubevirt.io", "version": version, "kind": "X"},
            "userInfo": {"username": user},
            "object": obj,
            "oldObject": old,
        },
    }
    request = parse_admission(json.dumps(body).encode())
    reply = admission_reply(request.uid, webhooks.judges[path](request))
    response: dict[str, Any] = msgspec.json.decode(reply)["response"]
    if "patch" in response:
        response["patch"] = json.loads(base64.b64decode(response["patch"]))
    return response


@pytest.mark.parametrize(
    ("path", "obj", "finalizer"),
    [(VM_MUTATE, machine(), VM_FINALIZER), (VMI_MUTATE, instance(), VMI_FINALIZER)],
)
def test_a_new_object_gets_its_finalizer(path: str, obj: dict[str, Any], finalizer: str) -> None:
    response = answer(path, obj)
    assert response["allowed"]
    assert finalizer in json.dumps(response["patch"])


def test_replacing_a_machine_does_not_lose_the_finalizer() -> None:
    response = answer(VM_MUTATE, machine(), machine(finalizers=[VM_FINALIZER]))
    assert response["patch"] == [
        {"op": "add", "path": "/metadata/finalizers", "value": [VM_FINALIZER]}
    ]
    kept = machine(finalizers=[VM_FINALIZER])
    assert answer(VM_MUTATE, kept, kept) == {"uid": "u", "allowed": True}


@pytest.mark.parametrize("path", [VM_VALIDATE, VMI_VALIDATE_CREATE])
def test_a_good_object_is_admitted(path: str) -> None:
    obj = machine() if path == VM_VALIDATE else instance()
    assert answer(path, obj)["allowed"] is True


def test_a_set_is_judged_as_a_whole() -> None:
    template = {"metadata": {"labels": {"app": "web"}}, "spec": instance_spec()}
    obj = machine() | {"kind": "VirtualMachineInstanceReplicaSet"}
    obj["spec"] = {"selector": {"matchLabels": {"app": "web"}}, "template": template}
    assert answer(REPLICA_SET_VALIDATE, obj) == {"uid": "u", "allowed": True}
    bad = {**obj, "spec": obj["spec"] | {"selector": {"matchLabels": {"app": "db"}}}}
    response = answer(REPLICA_SET_VALIDATE, bad, obj)
    assert [cause["field"] for cause in response["status"]["details"]["causes"]] == [
        "spec.selector"
    ]
    # What stands there already may be labelled, and finished.
    assert answer(REPLICA_SET_VALIDATE, bad, bad)["allowed"] is True


def test_a_pool_is_judged_as_a_whole() -> None:
    template = {"metadata": {"labels": {"app": "web"}}, "spec": machine()["spec"]}
    selector = {"matchLabels": {"app": "web"}}
    obj = machine() | {"apiVersion": "pool.kubevirt.io/v1beta1", "kind": "VirtualMachinePool"}
    obj["spec"] = {"selector": selector, "virtualMachineTemplate": template}
    assert answer(POOL_VALIDATE, obj) == {"uid": "u", "allowed": True}
    bad = {**obj, "spec": obj["spec"] | {"maxUnavailable": 0}}
    response = answer(POOL_VALIDATE, bad, obj)
    assert [cause["field"] for cause in response["status"]["details"]["causes"]] == [
        "spec.maxUnavailable"
    ]
    # What stands there already may be labelled, and finished.
    assert answer(POOL_VALIDATE, bad, bad)["allowed"] is True


def test_a_snapshot_is_judged() -> None:
    source = {"apiGroup": "kubevirt.io", "kind": "VirtualMachine", "name": "myvm"}
    obj = {"metadata": {"name": "before"}, "spec": {"source": source}}
    assert answer(SNAPSHOT_VALIDATE, obj) == {"uid": "u", "allowed": True}
    bad = {**obj, "spec": {"source": source | {"kind": "Pod"}}}
    response = answer(SNAPSHOT_VALIDATE, bad)
    assert [cause["field"] for cause in response["status"]["details"]["causes"]] == [
        "spec.source.kind"
    ]


def test_an_export_is_judged() -> None:
    source = {"kind": "PersistentVolumeClaim", "name": "data"}
    obj = {"metadata": {"name": "copy"}, "spec": {"source": source}}
    assert answer(EXPORT_VALIDATE, obj) == {"uid": "u", "allowed": True}
    bad = {**obj, "spec": {"source": source | {"kind": "Pod"}}}
    response = answer(EXPORT_VALIDATE, bad)
    assert [cause["field"] for cause in response["status"]["details"]["causes"]] == [
        "spec.source.kind"
    ]
    assert answer(EXPORT_VALIDATE, bad, bad)["allowed"] is True


def test_a_restore_and_a_clone_are_judged() -> None:
    machine = {"apiGroup": "kubevirt.io", "kind": "VirtualMachine", "name": "myvm"}
    restore = {"target": machine, "virtualMachineSnapshotName": "before"}
    clone = {"source": machine, "target": machine | {"name": "twin"}}
    for path, spec, place in (
        (RESTORE_VALIDATE, restore, "target"),
        (CLONE_VALIDATE, clone, "source"),
    ):
        obj = {"metadata": {"name": "one"}, "spec": spec}
        assert answer(path, obj) == {"uid": "u", "allowed": True}
        bad = obj | {"spec": spec | {place: machine | {"kind": "Pod"}}}
        causes = answer(path, bad)["status"]["details"]["causes"]
        assert [cause["field"] for cause in causes] == [f"spec.{place}.kind"]


@pytest.mark.parametrize(
    ("version", "field"),
    [
        ("v1", "spec.template.spec.domain.resources.requests.memory"),
        ("v1alpha3", "spec.template.spec.domain.resources.requests.memory"),
        ("v1alpha1", "spec.domain.resources.requests.memory"),
    ],
)
def test_a_bad_field_is_named_as_the_client_wrote_it(version: str, field: str) -> None:
    response = answer(VM_VALIDATE, machine(memory="-1"), version=version)
    assert response["allowed"] is False
    assert [cause["field"] for cause in response["status"]["details"]["causes"]] == [field]
    assert field in response["status"]["message"]


def test_nobody_changes_what_a_guest_was_started_with() -> None:
    new, old = instance("128M"), instance()
    for user in ("me", "system:serviceaccount:kubevirt:virt-controller"):
        assert answer(VMI_VALIDATE_UPDATE, new, old, user=user)["allowed"] is False


def test_disks_of_nodes_are_for_every_kind_that_asks_where_their_gate_is_on() -> None:
    spec = instance_spec()
    spec["volumes"] = [{"name": "root", "hostDisk": {"path": "/a.img", "type": "Disk"}}]
    template = {"metadata": {"labels": {"app": "web"}}, "spec": spec}
    selector = {"matchLabels": {"app": "web"}}
    of_machine = machine()["spec"] | {"template": template}
    of_pool = {"metadata": template["metadata"], "spec": of_machine}
    for path, own in (
        (VM_VALIDATE, of_machine),
        (VMI_VALIDATE_CREATE, spec),
        (REPLICA_SET_VALIDATE, {"selector": selector, "template": template}),
        (POOL_VALIDATE, {"selector": selector, "virtualMachineTemplate": of_pool}),
    ):
        obj = machine() | {"spec": own}
        response = answer(path, obj)
        [cause] = response["status"]["details"]["causes"]
        assert cause["field"].endswith("spec.volumes[0].hostDisk")
        assert answer(path, obj, webhooks=WITH_HOST_DISKS)["allowed"] is True


def test_clear_text_user_data_is_admitted_with_a_warning() -> None:
    obj = machine()
    spec = obj["spec"]["template"]["spec"]
    spec["volumes"].append({"name": "seed", "cloudInitNoCloud": {"userData": "hush"}})
    response = answer(VM_VALIDATE, obj)
    assert response["allowed"] is True
    assert any("userData" in warning for warning in response["warnings"])
    assert "hush" not in json.dumps(response)


@pytest.mark.parametrize("obj", [None, [], "x", {"metadata": None}])
def test_what_is_no_object_is_refused(obj: Any) -> None:
    with pytest.raises(Refused):
        answer(VM_VALIDATE, obj)


def plugged(bus: str = "") -> dict[str, Any]:
    """instance() with a volume that may come and go."""
    obj = instance()
    obj["spec"]["architecture"] = "amd64"
    source = {"claimName": "data", "hotpluggable": True}
    obj["spec"]["volumes"].append({"name": "data", "persistentVolumeClaim": source})
    target = {"bus": bus} if bus else {}
    obj["spec"]["domain"]["devices"]["disks"].append({"name": "data", "disk": target})
    return obj


@pytest.mark.parametrize(
    ("user", "allowed"),
    [
        ("system:serviceaccount:kubevirt:virt-controller", True),
        ("system:serviceaccount:kubevirt:virt-handler", False),
        ("system:serviceaccount:shop:virt-controller", False),
        ("me", False),
    ],
)
def test_who_gives_a_running_instance_other_volumes(user: str, allowed: bool) -> None:
    old = instance()
    old["spec"]["architecture"] = "amd64"
    assert answer(VMI_VALIDATE_UPDATE, plugged("scsi"), old, user=user)["allowed"] == allowed


@pytest.mark.parametrize(("order", "allowed"), [(2, True), (1, False), (0, False)])
def test_the_boot_order_of_a_disk_that_comes_is_as_good_as_any(order: int, allowed: bool) -> None:
    old, new = instance(), plugged("scsi")
    old["spec"]["architecture"] = "amd64"
    for obj in (old, new):
        obj["spec"]["domain"]["devices"]["disks"][0]["bootOrder"] = 1
    new["spec"]["domain"]["devices"]["disks"][-1]["bootOrder"] = order
    user = "system:serviceaccount:kubevirt:virt-controller"
    assert answer(VMI_VALIDATE_UPDATE, new, old, user=user)["allowed"] == allowed


def test_a_disk_that_comes_to_a_running_guest_is_made_whole_and_nothing_else_is() -> None:
    """Whatever the cluster's defaults are by now: they would be a change that is refused."""
    webhooks = webhooks_for(
        "kubevirt",
        lambda: ClusterDefaults(cpu_model="host-model", eviction_strategy="External"),
        nobody_evicts,
    )
    user = "system:serviceaccount:kubevirt:virt-controller"
    response = answer(VMI_MUTATE, plugged(), instance(), user=user, webhooks=webhooks)
    [operation] = response["patch"]
    assert "scsi" in json.dumps(operation)
    assert "host-model" not in json.dumps(operation)
    unchanged = answer(VMI_MUTATE, instance(), instance(), user=user, webhooks=webhooks)
    assert "patch" not in unchanged
