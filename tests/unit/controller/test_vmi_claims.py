"""Claims of an instance: what it does with them, whether they are there, and which of two instances goes first."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from podvisor_common.api import v1
from podvisor_common.api.v1.names import Phase
from podvisor_controller.vmi import volume_status
from podvisor_controller.vmi.claims import Rival, claims_kept, claims_used, in_use
from podvisor_controller.vmi.observed import Observed
from podvisor_controller.vmi.plan import CreatePod, Finish, plan
from podvisor_controller.vmi.status import (
    finished,
    has_changed,
    new_trouble,
    says_missing,
    status_of,
    without,
)

from tests.unit.controller.builders import (
    Json,
    claim,
    deleted,
    observed,
    on_claim,
    pod,
    scheduled,
    situations,
    stamp,
    unschedulable_pod,
    vmi,
)

WRITES = on_claim()
READS = on_claim(source={"readOnly": True})
SHARES = on_claim(disk={"disk": {}, "shareable": True})
OVERLAY = on_claim(volume={"ephemeral": {"persistentVolumeClaim": {"claimName": "data"}}})
CDROM = on_claim(disk={"cdrom": {}})
FILES = on_claim() | {"domain": {"devices": {"filesystems": [{"name": "data", "virtiofs": {}}]}}}
COMES = on_claim(source={"hotpluggable": True})
OTHER_CLAIM = on_claim("other")
MISSING = {"type": "Synchronized", "status": "False", "reason": "FailedPvcNotFound"}


def other(spec: Json, *, age_s: float = 30, uid: str = "other", **status: Any) -> Any:
    """Another instance; this one is 60 seconds old."""
    metadata = {"name": "other", "uid": uid, "creationTimestamp": stamp(age_s)}
    return vmi(metadata=metadata, spec=spec, status=status)


@pytest.mark.parametrize(
    ("spec", "used", "kept"),
    situations(
        ("writes", WRITES, ["shop/data"], ["shop/data"]),
        ("reads", READS, ["shop/data"], []),
        ("shares", SHARES, ["shop/data"], []),
        ("writes to an overlay", OVERLAY, ["shop/data"], []),
        ("reads a CD-ROM", CDROM, ["shop/data"], []),
        ("may let it come and go", COMES, ["shop/data"], ["shop/data"]),
        ("shares a tree of files", FILES, ["shop/data"], []),
        ("has none", {}, [], []),
    ),
)
def test_what_an_instance_has(spec: Json, used: list[str], kept: list[str]) -> None:
    assert (claims_used(vmi(spec=spec)), claims_kept(vmi(spec=spec))) == (used, kept)
    ended = vmi(spec=spec, status={"phase": "Failed"})
    assert (claims_used(ended), claims_kept(ended)) == ([], [])


@pytest.mark.parametrize(
    ("mine", "its", "waits"),
    situations(
        ("both write", WRITES, WRITES, True),
        ("it reads what this one would write to", WRITES, READS, True),
        ("it writes to what this one would read", READS, WRITES, True),
        ("it writes to the base of this one's overlay", OVERLAY, WRITES, True),
        ("both read", READS, CDROM, False),
        ("both have overlays", OVERLAY, OVERLAY, False),
        ("both share", SHARES, SHARES, False),
        ("it does not share", SHARES, WRITES, True),
        ("this one does not share", WRITES, SHARES, True),
        ("it attaches it while it runs", WRITES, COMES, True),
        ("another claim", WRITES, OTHER_CLAIM, False),
        ("this one attaches it while it runs", COMES, WRITES, False),
    ),
)
def test_who_may_have_a_claim_beside_another(mine: Json, its: Json, waits: bool) -> None:
    why = in_use(vmi(spec=mine), [Rival(other(its), has_pod=True)])
    assert bool(why) == waits
    assert not waits or ("PVC shop/data" in why and "shop/other" in why)


@pytest.mark.parametrize(
    ("rival", "waits"),
    situations(
        ("older", Rival(other(WRITES, age_s=61), has_pod=False), True),
        ("younger", Rival(other(WRITES), has_pod=False), False),
        ("younger, with a pod", Rival(other(WRITES), has_pod=True), True),
        (
            "younger, and a pod was asked for",
            Rival(other(WRITES), has_pod=False, is_getting_pod=True),
            True,
        ),
        (
            "younger, on a node, whatever became of its pod",
            Rival(other(WRITES, phase="Running", nodeName="n1"), has_pod=False),
            True,
        ),
        ("of the same second, first", Rival(other(WRITES, age_s=60, uid="0"), has_pod=False), True),
        ("of the same second, last", Rival(other(WRITES, age_s=60, uid="2"), has_pod=False), False),
        (
            "older, and deleted before it had a pod",
            Rival(deleted(name="other", uid="0", creationTimestamp=stamp(90)), has_pod=False),
            False,
        ),
    ),
)
def test_who_goes_first(rival: Rival, waits: bool) -> None:
    assert bool(in_use(vmi(spec=WRITES), [rival])) == waits


def test_of_two_one_may_always_go() -> None:
    one, two = vmi(spec=WRITES), other(WRITES, age_s=60)
    waits = [in_use(a, [Rival(b, has_pod=False)]) for a, b in ((one, two), (two, one))]
    assert sorted(map(bool, waits)) == [False, True]


def on_data(spec: Json = WRITES, *pods: Any, **changes: Any) -> Observed:
    instance = vmi(spec=spec, status=changes.pop("status", {}))
    return observed(instance, *pods, **({"claims": {"data": claim()}} | changes))


RIVAL = (Rival(other(WRITES), has_pod=True),)


@pytest.mark.parametrize(
    ("now", "reason", "words"),
    situations(
        ("all is there", on_data(), None, ""),
        ("not bound yet", on_data(claims={"data": claim(capacity="")}), None, ""),
        (
            "no claim",
            on_data(claims={}),
            "FailedPvcNotFound",
            'PVC shop/data does not exist. Volume "data" needs it',
        ),
        (
            "no claim of a DataVolume",
            on_data(on_claim(volume={"dataVolume": {"name": "dv"}}), claims={}),
            "FailedPvcNotFound",
            "PVC shop/dv does not exist.",
        ),
        (
            "a claim that is going",
            on_data(claims={"data": claim(deletionTimestamp=stamp())}),
            "FailedPvcNotFound",
            "PVC shop/data is being deleted.",
        ),
        ("no claim for what comes and goes", on_data(COMES, claims={}), None, ""),
        ("another has it", on_data(rivals=RIVAL), "VolumeInUse", "shop/other"),
    ),
)
def test_what_keeps_a_pod_from_being_made(now: Observed, reason: str | None, words: str) -> None:
    assert [type(action) for action in plan(now)] == ([] if reason else [CreatePod])
    body = status_of(now)
    if reason is None:
        assert body is None
        return
    assert body is not None
    trouble = new_trouble(now.vmi, body)
    assert trouble is not None
    assert (trouble["type"], trouble["status"]) == ("Synchronized", "False")
    assert trouble["reason"] == reason
    assert words in trouble["message"]


def test_an_instance_whose_pod_is_there_keeps_it() -> None:
    now = on_data(WRITES, pod("Running", node="n1"), claims={}, rivals=RIVAL)
    assert plan(now) == []
    assert now.trouble is None


def test_a_disk_of_the_node_needs_its_gate() -> None:
    disk = {"hostDisk": {"path": "/srv/a.img", "type": "Disk"}}
    now = on_data(on_claim(volume=disk))
    assert plan(now) == []
    assert now.trouble is not None
    assert "HostDisk" in now.trouble.message
    allowed = replace(now, config=replace(now.config, host_disks=True))
    assert [type(action) for action in plan(allowed)] == [CreatePod]


def test_what_was_said_of_a_claim_is_taken_back_once_there_is_a_pod() -> None:
    told: Json = {"phase": "Pending", "conditions": [MISSING]}
    waiting = on_data(status=told)
    assert says_missing(waiting.vmi)
    assert status_of(waiting) is None
    body = status_of(on_data(WRITES, pod(), status=told))
    assert body is not None
    assert [c["type"] for c in body["conditions"]] == ["Ready"]
    assert has_changed(waiting.vmi, body)


IMMEDIATE = "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims."


@pytest.mark.parametrize(
    ("message", "capacity", "expected", "words"),
    situations(
        (
            "the claim is to be bound first",
            IMMEDIATE,
            "",
            "Provisioning",
            'PVC shop/data of volume "data"',
        ),
        ("it has been bound since", IMMEDIATE, "10Gi", "Provisioning", "unbound immediate"),
        (
            "it waits for a pod, which fits nowhere",
            "0/1: Insufficient cpu",
            "",
            "PodScheduled",
            "cpu",
        ),
    ),
)
def test_a_pod_that_waits_for_a_claim(
    message: str, capacity: str, expected: str, words: str
) -> None:
    waiting = unschedulable_pod(30)
    [condition] = waiting.status.conditions or ()
    complaint = msgspec.structs.replace(condition, message=message)
    status = msgspec.structs.replace(waiting.status, conditions=(complaint,))
    waiting = msgspec.structs.replace(waiting, status=status)
    body = status_of(on_data(WRITES, waiting, claims={"data": claim(capacity=capacity)}))
    assert body is not None
    types = {c["type"]: c for c in body["conditions"]}
    assert types.keys() == {"Ready", expected}
    assert words in types[expected]["message"]
    assert new_trouble(vmi(), body) == (types[expected] if expected == "PodScheduled" else None)
    instance = vmi(status={"phase": "Scheduling", "conditions": body["conditions"]})
    bound = status_of(observed(instance, pod(node="n1")))
    assert bound is not None
    assert has_changed(instance, bound)


INFO = {
    "claimName": "data",
    "accessModes": ["ReadWriteOnce"],
    "volumeMode": "Filesystem",
    "capacity": {"storage": "10Gi"},
    "requests": {"storage": "10Gi"},
}
ENTRY = {"name": "data", "persistentVolumeClaimInfo": INFO}


def on_node(phase: str, *entries: Json, spec: Json = WRITES, **changes: Any) -> Observed:
    """As it is on node n1, with what is known of its volumes."""
    status = {"phase": phase, "nodeName": "n1", "volumeStatus": list(entries)}
    return on_data(spec, pod("Running", node="n1"), status=status, **changes)


def test_claims_are_told_of_in_the_write_that_tells_of_the_node() -> None:
    body = status_of(on_data(WRITES, pod(node="n1")))
    assert body is not None
    assert body["phase"] == "Scheduled"
    assert body["volumeStatus"] == [ENTRY]


def test_a_machine_without_claims_has_nothing_said_of_them() -> None:
    handlers = {"name": "root", "target": "vda"}
    now = observed(scheduled("Running", volumeStatus=[handlers]), pod("Running", node="n1"))
    body = status_of(now)
    assert body is not None
    assert "volumeStatus" not in body
    assert not volume_status.has_changed(now.vmi, body)


@pytest.mark.parametrize(
    ("now", "entries", "is_news"),
    situations(
        ("as said", on_node("Running", ENTRY), [ENTRY], False),
        (
            "as said, and the handler has more",
            on_node("Running", ENTRY | {"target": "vda", "size": 1}),
            [ENTRY],
            False,
        ),
        ("never said", on_node("Running", {"name": "data", "target": "vda"}), [ENTRY], True),
        (
            "expanded",
            on_node("Running", ENTRY, claims={"data": claim(capacity="20Gi")}),
            [ENTRY | {"persistentVolumeClaimInfo": INFO | {"capacity": {"storage": "20Gi"}}}],
            True,
        ),
        (
            "the claim is gone, its volume is not",
            on_node("Running", ENTRY, claims={}),
            [ENTRY],
            False,
        ),
        ("the volume is gone", on_node("Running", ENTRY, spec={}), None, True),
    ),
)
def test_claims_of_a_running_guest(now: Observed, entries: Any, is_news: bool) -> None:
    body = status_of(now)
    assert body is not None
    assert body.get("volumeStatus") == entries
    assert volume_status.has_changed(now.vmi, body) == is_news


def test_an_end_takes_nothing_back() -> None:
    body = finished(on_node("Running", ENTRY), Finish(Phase.FAILED, "NodeFenced", ""))
    assert body["volumeStatus"] == [ENTRY]


def test_what_another_owns_of_a_volume_is_left_out() -> None:
    body = status_of(on_data(WRITES, pod(node="n1")))
    assert body is not None
    rest = without(body, ['.status.volumeStatus[name="data"].persistentVolumeClaimInfo'])
    assert rest["volumeStatus"] == []
    assert without(body, [".status.phase"])["volumeStatus"] == [ENTRY]


def test_what_is_not_known_of_a_claim_is_not_said() -> None:
    claims = {"data": claim(capacity="")}
    [entry] = volume_status.volume_status(vmi(spec=WRITES), claims)
    assert "capacity" not in entry["persistentVolumeClaimInfo"]
    assert msgspec.convert(entry, v1.VolumeStatus).persistent_volume_claim_info is not None
