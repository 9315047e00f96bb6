"""What the controller keeps of a pod or a claim is all that it reads of one, and costs half or less."""

import msgspec
from podvisor_common.api import core
from podvisor_common.api.v1.names import UNPAUSED_CONDITION
from podvisor_controller.vmi.outline import claim_outline, outline

from tests.support.memory import cost_of_each
from tests.unit.controller.builders import IMAGE, Json, claim, pod, stamp

LIMIT_BYTES = 2_200
CLAIM_LIMIT_BYTES = 600
TYPES = (
    *("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"),
    UNPAUSED_CONDITION,
)


def _pod() -> core.Pod:
    conditions = [{"type": t, "status": "True", "lastTransitionTime": stamp()} for t in TYPES]
    states: list[Json] = [
        {"name": n, "state": {"running": {}}} for n in ("compute", "guest-console-log")
    ]
    resources = {"requests": {"cpu": "100m", "memory": "264278016"}, "limits": {"memory": "1Gi"}}
    containers = [
        {"name": state["name"], "image": IMAGE, "resources": resources} for state in states
    ]
    found = pod(
        "Running",
        node="n1",
        metadata={
            "labels": {"kubevirt.io": "virt-launcher", "vmi.kubevirt.io/id": "myvm"},
            "annotations": {"kubevirt.io/domain": "myvm"},
        },
        status={"conditions": conditions, "containerStatuses": states},
    )
    gates = [{"conditionType": "feature.test/ready"}, {"conditionType": UNPAUSED_CONDITION}]
    body = {"nodeName": "n1", "containers": containers, "readinessGates": gates}
    spec = msgspec.convert(body, core.PodSpec)
    return msgspec.structs.replace(found, spec=spec)


def test_what_is_read_stays() -> None:
    whole = _pod()
    kept = outline(whole)
    bare = msgspec.structs.replace(whole.metadata, labels=None, annotations=None)
    assert (kept.metadata, kept.spec.node_name) == (bare, "n1")
    assert [(c.name, c.image) for c in kept.spec.containers or ()] == [
        ("compute", IMAGE),
        ("guest-console-log", IMAGE),
    ]
    assert [c.type for c in kept.status.conditions or ()] == ["PodScheduled", UNPAUSED_CONDITION]
    assert kept.spec.readiness_gates == (core.PodReadinessGate(UNPAUSED_CONDITION),)
    assert kept.status.container_statuses == whole.status.container_statuses
    assert outline(kept) == kept


def test_the_networks_that_a_launcher_pod_asks_for_stay() -> None:
    asked = {"k8s.v1.cni.cncf.io/networks": "[]"}
    found = pod(metadata={"annotations": {"kubevirt.io/domain": "myvm"} | asked})
    assert outline(found).metadata.annotations == asked


def test_it_costs_half() -> None:
    raw = msgspec.json.encode(_pod())
    decode = msgspec.json.Decoder(core.Pod).decode
    assert cost_of_each(lambda: outline(decode(raw))) < LIMIT_BYTES


def _claim() -> core.PersistentVolumeClaim:
    return claim(
        resourceVersion="123456",
        creationTimestamp=stamp(),
        labels={"app": "demo"},
        annotations={
            "pv.kubernetes.io/bind-completed": "yes",
            "volume.kubernetes.io/storage-provisioner": "hostpath.csi.k8s.io",
        },
        finalizers=["kubernetes.io/pvc-protection"],
    )


def test_what_is_read_of_a_claim_stays() -> None:
    whole = _claim()
    kept = claim_outline(whole)
    assert (kept.spec, kept.status) == (whole.spec, whole.status)
    for field in ("name", "namespace", "uid", "resource_version", "deletion_timestamp"):
        assert getattr(kept.metadata, field) == getattr(whole.metadata, field)
    assert kept.metadata.annotations is None
    assert kept.metadata.finalizers is None
    going = claim(deletionTimestamp=stamp(), capacity="", mode="Block")
    assert claim_outline(going).metadata.is_being_deleted
    assert (claim_outline(going).is_block, claim_outline(going).is_bound) == (True, False)
    assert claim_outline(kept) == kept


def test_of_a_claim_that_a_restore_made_it_is_known_by_which_and_whose_it_is() -> None:
    marks = {
        "restore.kubevirt.io/name": "back",
        "restore.kubevirt.io/lastRestoreUID": "back-1",
    }
    owner = {"kind": "VirtualMachine", "name": "myvm", "uid": "u"}
    made = claim(annotations=marks | {"other": "x"}, ownerReferences=[owner])
    kept = claim_outline(made).metadata
    assert kept.annotations == marks
    assert kept.owner_references == made.metadata.owner_references
    assert claim_outline(claim(ownerReferences=[owner])).metadata.owner_references is None


def test_a_claim_costs_little() -> None:
    raw = msgspec.json.encode(_claim())
    decode = msgspec.json.Decoder(core.PersistentVolumeClaim).decode
    kept, whole = (
        cost_of_each(lambda: claim_outline(decode(raw))),
        cost_of_each(lambda: decode(raw)),
    )
    assert kept < min(CLAIM_LIMIT_BYTES, whole / 2)
