"""What the controller says in the status of a VirtualMachineInstance.

Invariant: a body holds every field the controller owns at that moment and no other, for a server-side apply gives up what
it leaves out. `phase` and `Ready` are in it only while no guest has run: from Running on they are the handler's.
Nothing here reads a clock; two equal situations give equal bodies.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec
from podvisor_common.api import core, meta, v1
from podvisor_common.api.v1 import names
from podvisor_common.api.v1.names import ConditionType, Phase, Reason

from podvisor_controller.node.health import OUT_OF_SERVICE_TAINT, NodeHealth
from podvisor_controller.vm.revision import revision_name_of
from podvisor_controller.vmi import volume_status
from podvisor_controller.vmi.observed import CONTROLLER_REASONS, Observed
from podvisor_controller.vmi.plan import Finish

Body = dict[str, Any]

_TROUBLES = frozenset({ConditionType.SYNCHRONIZED, ConditionType.POD_SCHEDULED})
# Reasons of Ready that say that nobody on the node tells of the guest.
_LOST = frozenset({Reason.NODE_UNRESPONSIVE, Reason.HANDLER_UNRESPONSIVE})
# What can be said of an instance only while it has no pod.
_BEFORE_THE_POD = frozenset({Reason.FAILED_PVC_NOT_FOUND, Reason.VOLUME_IN_USE})
# Conditions that only the controller sets.
_OURS = frozenset(
    {ConditionType.POD_SCHEDULED, ConditionType.PROVISIONING, ConditionType.EVICTION_REQUESTED}
)
# Lists that are maps, of which each manager has some entries, and their keys.
_KEYS = {"conditions": "type", "phaseTransitionTimestamps": "phase", "volumeStatus": "name"}
_PULLING = frozenset({Reason.ERR_IMAGE_PULL, Reason.IMAGE_PULL_BACK_OFF})


def status_of(now: Observed) -> Body | None:
    """The fields to apply; None while there is nothing worth a write.

    Nothing is worth one before the pod is bound, unless something is wrong.
    """
    vmi, pod = now.vmi, now.pod
    if vmi.metadata.is_being_deleted and now.undeletable is None and not _is_outdated(now):
        return None
    if vmi.is_final:
        # Whoever ended it owns phase; one more word only where Ready was forgotten.
        return _after_start(now) if _ready(now) is not None else None
    if now.has_run or (pod is None and now.was_bound):
        # A pod that vanished from a node that answers is its handler's to tell of.
        is_vanished = pod is None and not now.node.is_silent
        return None if is_vanished else _after_start(now)
    if pod is not None and pod.spec.node_name and now.refusal is None:
        body = {"phase": Phase.SCHEDULED, **_placement(now), **_history(now, Phase.SCHEDULED)}
        return {**body, "conditions": _conditions(now), **_volumes(now)}
    is_fine = now.trouble is None and now.unschedulable is None and not now.provisioning
    if is_fine and not _is_outdated(now):
        return None
    phase = Phase.PENDING if pod is None else Phase.SCHEDULING
    body = {"phase": phase, **_history(now, phase)}
    return {**body, "conditions": _conditions(now), **_volumes(now)}


def _is_outdated(now: Observed) -> bool:
    """The status says what is over: that the pod may not be deleted, and it is going; or why there is none, and there is.

    Once a pod that was to be deleted has gone, so does the object.
    """
    if now.undeletable is not None or now.pod is None or now.vmi.is_final:
        return False
    known = meta.find_condition(now.vmi.status.conditions, ConditionType.SYNCHRONIZED)
    if known is None or now.vmi.metadata.is_being_deleted:
        return known is not None and known.reason == Reason.FAILED_DELETE
    return known.reason == Reason.FAILED_DELETE or known.reason in _BEFORE_THE_POD


def says_missing(vmi: v1.VirtualMachineInstance) -> bool:
    """The status tells of a claim that does not exist."""
    known = meta.find_condition(vmi.status.conditions, ConditionType.SYNCHRONIZED)
    return known is not None and known.reason == Reason.FAILED_PVC_NOT_FOUND


def finished(now: Observed, finish: Finish) -> Body:
    """The fields that end the instance in place of its handler. To be applied with force, once."""
    ready = _condition(now, ConditionType.READY, "False", finish.reason, finish.message)
    return {
        "phase": finish.phase,
        "reason": finish.reason,
        **_placement(now),
        **_history(now, finish.phase),
        "conditions": [ready],
        **_volumes(now),
    }


def has_changed(vmi: v1.VirtualMachineInstance, body: Mapping[str, Any]) -> bool:
    """A reader of the object would see a difference once `body` is applied. Times alone are none."""
    current: Body = msgspec.to_builtins(vmi.status)
    if any(key in current and key not in body for key in ("nodeName", "activePods")):
        return True
    return (
        any(
            current.get(key) != value
            for key, value in body.items()
            if key not in _KEYS and key != "startTimeline"
        )
        or _conditions_differ(vmi.status.conditions or [], body["conditions"])
        or volume_status.has_changed(vmi, body)
        or not _phases(body) <= _phases(current)
        or not body.get("startTimeline", {}).keys() <= current.get("startTimeline", {}).keys()
    )


def without(body: Mapping[str, Any], fields: Iterable[str]) -> Body:
    """`body` less what the paths name, as the API server spells them when another manager owns a field.

    Paths look like `.status.phase` or `.status.conditions[type="Ready"].status`.
    """
    rest = dict(body)
    for field in fields:
        top = field.removeprefix(".status.").split(".", 1)[0]
        name, _, selector = top.partition("[")
        if not selector:
            rest.pop(name, None)
        elif name in rest:
            wanted = selector.rstrip("]").split("=", 1)[1].strip('"')
            rest[name] = [entry for entry in rest[name] if entry[_KEYS[name]] != wanted]
    return rest


def new_trouble(
    vmi: v1.VirtualMachineInstance, body: Mapping[str, Any]
) -> Mapping[str, Any] | None:
    """The condition in `body` that tells of trouble the object does not tell of yet; worth one event."""
    for condition in body["conditions"]:
        is_lost = condition["type"] == ConditionType.READY and condition["reason"] in _LOST
        if condition["type"] not in _TROUBLES and not is_lost:
            continue
        known = meta.find_condition(vmi.status.conditions, condition["type"])
        is_same_pull = (
            known is not None and known.reason in _PULLING and condition["reason"] in _PULLING
        )
        if known is None or (known.reason != condition["reason"] and not is_same_pull):
            return dict(condition)
    return None


def _after_start(now: Observed) -> Body | None:
    """Once a guest may have run: what the handler cannot say, and what was said before."""
    conditions = _conditions(now)
    placement = _placement(now)
    if not placement:
        return None
    return {**placement, **_history(now, None), "conditions": conditions, **_volumes(now)}


def _volumes(now: Observed) -> Body:
    pods = now.attached.told if now.attached is not None else {}
    entries = volume_status.volume_status(now.vmi, now.claims, pods)
    return {"volumeStatus": entries} if entries else {}


def _placement(now: Observed) -> Body:
    """Where the instance is: from the pod, or when that is gone what the status says already."""
    pod, known = now.pod, now.vmi.status
    if pod is None or not pod.spec.node_name:
        if not known.node_name:
            return {}
        fields = ("nodeName", "activePods", "qosClass", "launcherContainerImageVersion")
        current: Body = msgspec.to_builtins(known)
        return {
            **{field: current[field] for field in fields if field in current},
            "runtimeUser": names.LAUNCHER_UID,
            **_revision(now),
        }
    return {
        "nodeName": pod.spec.node_name,
        "activePods": {pod.metadata.uid: pod.spec.node_name},
        "qosClass": pod.status.qos_class or "Burstable",
        "launcherContainerImageVersion": _launcher_image(pod),
        "runtimeUser": names.LAUNCHER_UID,
        **_revision(now),
    }


def _revision(now: Observed) -> Body:
    name = revision_name_of(now.vmi)
    return {"virtualMachineRevisionName": name} if name else {}


def _launcher_image(pod: core.Pod) -> str:
    return next((c.image for c in pod.spec.containers or () if c.name == "compute"), "")


def _history(now: Observed, phase: str | None) -> Body:
    """When the controller's phases began, up to `phase`, and its steps of the start. What is known stays."""
    known = {
        entry.phase: entry.phase_transition_timestamp
        for entry in now.vmi.status.phase_transition_timestamps or ()
    }
    pod, created = now.pod, now.vmi.metadata.creation_timestamp
    began: dict[str, str | None] = {
        Phase.PENDING: created,
        **{step: known[step] for step in (Phase.SCHEDULING, Phase.SCHEDULED) if step in known},
    }
    if pod is not None:
        began[Phase.SCHEDULING] = pod.metadata.creation_timestamp
    if pod is not None and pod.spec.node_name:
        began[Phase.SCHEDULED] = _bound_at(pod)
    if phase is not None and phase not in began:
        began[phase] = None
    if phase not in names.FINAL_PHASES:
        began = {key: value for key, value in began.items() if key in _until(phase)}
    timestamps = [
        {
            "phase": key,
            "phaseTransitionTimestamp": known.get(key) or value or meta.format_time(now.at),
        }
        for key, value in began.items()
    ]
    return {"phaseTransitionTimestamps": timestamps, "startTimeline": _timeline(now)}


def _until(phase: str | None) -> list[str]:
    order: list[str] = [Phase.PENDING, Phase.SCHEDULING, Phase.SCHEDULED]
    return order if phase is None else order[: order.index(phase) + 1]


def _timeline(now: Observed) -> dict[str, int]:
    pod = now.pod
    known: dict[str, int] = (
        msgspec.to_builtins(now.vmi.status.start_timeline) if now.vmi.status.start_timeline else {}
    )
    steps: dict[str, int] = {}
    if pod is not None:
        created_at = now.pod_created_at or meta.parse_time(
            pod.metadata.creation_timestamp or meta.format_time(now.at)
        )
        steps["podCreated"] = _since_creation_ms(now, created_at)
        if pod.spec.node_name:
            steps["podScheduled"] = _since_creation_ms(now, now.at)
    ours = ("podCreated", "podScheduled")
    return steps | {step: known[step] for step in ours if step in known}


def _since_creation_ms(now: Observed, moment: datetime) -> int:
    created = now.vmi.metadata.creation_timestamp
    began = meta.parse_time(created) if created else moment
    return max(0, round((moment - began).total_seconds() * 1000))


def _bound_at(pod: core.Pod) -> str | None:
    scheduled = meta.find_condition(pod.status.conditions, ConditionType.POD_SCHEDULED)
    return scheduled.last_transition_time if scheduled is not None else None


def _conditions(now: Observed) -> list[Body]:
    conditions = []
    if (ready := _ready(now)) is not None:
        conditions.append(ready)
    if (complaint := now.unschedulable) is not None:
        reason, message = complaint.reason, complaint.message
        conditions.append(_condition(now, ConditionType.POD_SCHEDULED, "False", reason, message))
    if why := now.provisioning:
        reason = Reason.WAITING_FOR_VOLUME_BINDING
        conditions.append(_condition(now, ConditionType.PROVISIONING, "True", reason, why))
    is_mine = not now.has_run or now.undeletable is not None
    trouble = now.trouble if is_mine else now.volume_trouble
    if trouble is not None:
        conditions.append(
            _condition(now, ConditionType.SYNCHRONIZED, "False", trouble.reason, trouble.message)
        )
    if now.vmi.status.evacuation_node_name:
        reason, message = Reason.EVICTION_REQUESTED, "VMI is marked for eviction"
        conditions.append(
            _condition(now, ConditionType.EVICTION_REQUESTED, "True", reason, message)
        )
    return conditions


def _ready(now: Observed) -> Body | None:
    """Ready, where no handler can say it."""
    known = meta.find_condition(now.vmi.status.conditions, ConditionType.READY)
    if now.vmi.is_final:
        if known is not None and known.status == "False":
            return None
        message = "The guest has ended."
        return _condition(now, ConditionType.READY, "False", Reason.GUEST_NOT_RUNNING, message)
    if now.was_bound and now.node.is_silent:
        return _condition(now, ConditionType.READY, *_silence(now))
    if now.has_run:
        # Kept until the handler, back again, says otherwise.
        ours = known is not None and known.reason in _LOST
        return _as_body(known) if known is not None and ours else None
    if now.pod is None:
        message = "virt-launcher pod has not yet been scheduled"
        return _condition(now, ConditionType.READY, "False", Reason.POD_NOT_EXISTS, message)
    message = "Guest VM is not reported as running"
    return _condition(now, ConditionType.READY, "False", Reason.GUEST_NOT_RUNNING, message)


def _silence(now: Observed) -> tuple[str, str, str]:
    """Status, reason and message of Ready where nobody on the node tells of the guest.

    As a pod's: not ready where the node cannot be reached, since nobody reaches the guest either.
    """
    node = now.vmi.status.node_name
    if now.node is NodeHealth.UNRESPONSIVE:
        message = (
            f"Node {node} does not answer; the guest may or may not be running. It is given up only when the node is taken"
            f" out of service (taint {OUT_OF_SERVICE_TAINT}) or deleted."
        )
        return "False", Reason.NODE_UNRESPONSIVE, message
    message = f"virt-handler on node {node} is not heard of; what the guest does is not known. Look for its pod there."
    return "Unknown", Reason.HANDLER_UNRESPONSIVE, message


def _condition(now: Observed, type_: str, status: str, reason: str, message: str) -> Body:
    known = meta.find_condition(now.vmi.status.conditions, type_)
    since = known.last_transition_time if known is not None and known.status == status else None
    return {
        "type": type_,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": since or meta.format_time(now.at),
    }


def _as_body(condition: meta.Condition) -> Body:
    body: Body = msgspec.to_builtins(condition)
    return body


def _conditions_differ(
    current: Iterable[meta.Condition], wanted: Iterable[Mapping[str, Any]]
) -> bool:
    have = {c.type: (c.status, c.reason, c.message) for c in current}
    want = {c["type"]: (c["status"], c["reason"], c.get("message", "")) for c in wanted}
    if any(have.get(type_) != value for type_, value in want.items()):
        return True
    gone = [c for c in current if c.type not in want]
    return any(
        c.type in _OURS or (c.type == ConditionType.SYNCHRONIZED and c.reason in CONTROLLER_REASONS)
        for c in gone
    )


def _phases(body: Mapping[str, Any]) -> set[str]:
    return {entry["phase"] for entry in body.get("phaseTransitionTimestamps") or ()}
