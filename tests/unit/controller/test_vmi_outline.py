"""What the controller keeps of a pod is all that it reads of one, and costs half."""

import tracemalloc

import msgspec
from podvisor_common.api import core
from podvisor_controller.vmi.outline import outline

from tests.unit.controller.builders import IMAGE, Json, pod, stamp

COPIES = 200
LIMIT_BYTES = 2_200
TYPES = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")


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
    spec = msgspec.convert({"nodeName": "n1", "containers": containers}, core.PodSpec)
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
    assert [c.type for c in kept.status.conditions or ()] == ["PodScheduled"]
    assert kept.status.container_statuses == whole.status.container_statuses
    assert outline(kept) == kept


def test_it_costs_half() -> None:
    raw = msgspec.json.encode(_pod())
    decode = msgspec.json.Decoder(core.Pod).decode
    kept = [outline(decode(raw))]
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        kept += [outline(decode(raw)) for _ in range(COPIES)]
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (after - before) / COPIES < LIMIT_BYTES
