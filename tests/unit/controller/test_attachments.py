"""Pods that hold volumes for running guests: which are made and let go, for whom, what is said of them, and what is in them."""

from datetime import timedelta
from typing import Any

import pytest
from podvisor_common.api import core, v1
from podvisor_controller.vmi import volume_status
from podvisor_controller.vmi.attachment_pod import attachment_pod_name, render_attachment_pod
from podvisor_controller.vmi.attachments import Attach, Attachments, Failure, Release, plan
from podvisor_controller.vmi.claims import Rival, claims_kept, claims_used
from podvisor_controller.vmi.observed import Observed
from podvisor_controller.vmi.outline import outline
from podvisor_controller.vmi.status import has_changed, new_trouble, status_of

from tests.unit.controller.builders import (
    CONFIG,
    IMAGE,
    NOW,
    UID,
    Json,
    claim,
    observed,
    on_claim,
    pod,
    situations,
    stamp,
    vmi,
)
from tests.unit.controller.plugged import (
    LAUNCHER,
    attachments,
    disk,
    holder,
    rival,
    running,
    told,
    volume,
    with_volumes,
)

FIRST, SECOND = attachment_pod_name(UID, "data"), attachment_pod_name(UID, "data", 1)
LATER, EARLIER = Failure("why", NOW + timedelta(seconds=5)), Failure("why", NOW)
DYING = {"deletionTimestamp": stamp(1)}
DYING_SLOWLY = DYING | {"deletionGracePeriodSeconds": 90}
DYING_AT_ONCE = DYING | {"deletionGracePeriodSeconds": 1}


def does(action: Attach | Release) -> str:
    match action:
        case Attach(name, wanted):
            return f"attach {wanted.name} {'first' if name == FIRST else 'second'}"
        case Release(name):
            return f"release {'first' if name == FIRST else 'second'}"


@pytest.mark.parametrize(
    ("now", "expected"),
    situations(
        ("nothing to attach", attachments(running()), []),
        ("a volume came", attachments(running(volume())), ["attach data first"]),
        ("it is held", attachments(running(volume()), holder()), []),
        ("its pod does not run yet", attachments(running(volume()), holder(phase="Pending")), []),
        (
            "its pod is going, and the volume is to stay on the node",
            attachments(running(volume(), status=(told(),)), holder(metadata=DYING)),
            ["attach data second"],
        ),
        (
            "its pod has failed",
            attachments(running(volume(), status=(told(),)), holder(phase="Failed")),
            ["release first", "attach data second"],
        ),
        (
            "it has failed a moment ago",
            attachments(running(volume()), holder(phase="Failed"), failures={"data": LATER}),
            [],
        ),
        (
            "it could not be made a while ago",
            attachments(running(volume()), failures={"data": EARLIER}),
            ["attach data first"],
        ),
        (
            "two hold it, of which the handler knows one",
            attachments(
                running(volume(), status=(told(uid="hp-1"),)),
                holder(),
                holder(attempt=1, uid="hp-1"),
            ),
            ["release first"],
        ),
        (
            "it left, and the guest has it still",
            attachments(running(status=(told(phase="Detaching"),)), holder()),
            [],
        ),
        (
            "the handler has not heard that it left",
            attachments(running(status=(told(phase="Ready"),)), holder()),
            [],
        ),
        (
            "it left, and the guest has let go of it",
            attachments(running(status=(told(phase="UnMountedFromPod"),)), holder()),
            ["release first"],
        ),
        (
            "it left, and the guest has let go of what an earlier pod held",
            attachments(
                running(status=(told(phase="UnMountedFromPod", unmountedPodUID="hp-9"),)), holder()
            ),
            [],
        ),
        (
            "it left, and of which pod the guest has let go is not said",
            attachments(
                running(status=(told(phase="UnMountedFromPod", unmountedPodUID=""),)), holder()
            ),
            [],
        ),
        (
            "the guest has let go of what another pod held",
            attachments(
                running(status=(told(phase="UnMountedFromPod", uid="hp-9"),)), holder(uid="hp-0")
            ),
            ["release first"],
        ),
        (
            "it left before the handler was told",
            attachments(running(), holder()),
            ["release first"],
        ),
        (
            "it left, and the pod is going",
            attachments(running(status=(told(phase="UnMountedFromPod"),)), holder(metadata=DYING)),
            [],
        ),
        (
            "it left, and the pod takes longer to go than it needs",
            attachments(
                running(status=(told(phase="UnMountedFromPod"),)), holder(metadata=DYING_SLOWLY)
            ),
            ["release first"],
        ),
        (
            "it left, and the pod goes at once",
            attachments(
                running(status=(told(phase="UnMountedFromPod"),)), holder(metadata=DYING_AT_ONCE)
            ),
            [],
        ),
        (
            "the garbage collector takes it along with a launcher pod whose guest is still to end",
            attachments(
                running(volume(), status=(told(phase="Ready"),)),
                holder(metadata=DYING_SLOWLY),
                launcher=pod(node="n1", metadata=DYING),
            ),
            [],
        ),
        (
            "it goes with its launcher pod, whose guest has ended",
            attachments(
                running(volume(), status=(told(phase="Ready"),)),
                holder(metadata=DYING_SLOWLY),
                launcher=None,
            ),
            ["release first"],
        ),
        (
            "it left, the guest has it still, and somebody deletes the pod",
            attachments(running(status=(told(phase="Detaching"),)), holder(metadata=DYING_SLOWLY)),
            [],
        ),
        (
            "it left, and the guest may have it by a pod that somebody deletes",
            attachments(
                running(status=(told(phase="Detaching", uid="hp-1"),)),
                holder(metadata=DYING_SLOWLY),
                holder(attempt=1, uid="hp-1"),
            ),
            [],
        ),
        (
            "it is wanted, and held by another than the pod that somebody deletes",
            attachments(
                running(volume(), status=(told(uid="hp-1"),)),
                holder(metadata=DYING_SLOWLY),
                holder(attempt=1, uid="hp-1", phase="Pending"),
            ),
            [],
        ),
        (
            "the guest has ended, and the pod takes longer to go than it needs",
            attachments(running(volume()), holder(metadata=DYING_SLOWLY), launcher=None),
            ["release first"],
        ),
        (
            "the deletion was refused a moment ago",
            attachments(running(), holder(), refused={"hp-0": LATER}),
            [],
        ),
        (
            "another claim by the same name, and the guest has the old one",
            attachments(
                running(volume(claim_name="other"), status=(told(phase="Ready"),)), holder()
            ),
            [],
        ),
        (
            "another claim by the same name, of which the handler was never told",
            attachments(running(volume(claim_name="other")), holder()),
            ["release first"],
        ),
        (
            "the claim by another name, while the old one leaves",
            attachments(running(volume("new"), status=(told(phase="Detaching"),)), holder()),
            [],
        ),
        (
            "two volumes read one claim",
            attachments(
                running(volume(readOnly=True), volume("too", readOnly=True)), holder("too")
            ),
            ["attach data first"],
        ),
        ("no claim", attachments(running(volume()), claims={}), []),
        (
            "a claim that is going",
            attachments(running(volume()), claims={"data": claim(deletionTimestamp=stamp())}),
            [],
        ),
        (
            "the claim waits for its first pod",
            attachments(running(volume()), claims={"data": claim(capacity="")}),
            ["attach data first"],
        ),
        ("no launcher", attachments(running(volume()), launcher=None), []),
        (
            "the guest has ended",
            attachments(running(volume()), holder(), launcher=None),
            ["release first"],
        ),
        (
            "the launcher pod is going, and the guest shuts down",
            attachments(
                running(volume("new"), volume()),
                holder(),
                launcher=pod("Running", node="n1", metadata=DYING | {"uid": "pod-1"}),
            ),
            [],
        ),
        (
            "the instance is being deleted",
            attachments(running(volume("new"), volume(), metadata=DYING), holder()),
            [],
        ),
        (
            "the launcher pod is gone, which proves nothing",
            attachments(running(status=(told(),)), holder(), launcher=None, is_over=False),
            [],
        ),
        (
            "the claim by another name, while the guest has it by a pod that is gone",
            attachments(running(volume("new"), status=(told(phase="Detaching"),))),
            [],
        ),
        (
            "the claim by another name, once the guest has let go of it",
            attachments(running(volume(), status=(told("old", phase="UnMountedFromPod"),))),
            ["attach data first"],
        ),
        (
            "another claim by the same name, while the guest has the old one by a pod that is gone",
            attachments(running(volume(claim_name="other"), status=(told(phase="Ready"),))),
            [],
        ),
        ("the status does not name the node", attachments(vmi(spec=with_volumes(volume()))), []),
    ),
)
def test_plan(now: Attachments, expected: list[str]) -> None:
    assert [does(action) for action in plan(now)] == expected
    assert [does(action) for action in plan(now)] == expected


PLUGGED, FIXED = with_volumes(volume()), on_claim()
READS = with_volumes(volume(readOnly=True))
GONE: Json = {"status": {"volumeStatus": [told(uid="hp-2")]}, "has_pod": False}
LEAVES: Json = {"status": {"volumeStatus": [told(uid="hp-2")]}}


@pytest.mark.parametrize(
    ("mine", "other", "waits"),
    situations(
        ("it is in its pod", PLUGGED, rival(FIXED), True),
        ("it is in its pod, and is younger", PLUGGED, rival(FIXED, age_s=1), True),
        ("it has no pod yet", PLUGGED, rival(FIXED, age_s=90, node=""), False),
        ("it gets a pod now", PLUGGED, rival(FIXED, node="", is_getting_pod=True), True),
        ("it holds it", PLUGGED, rival(PLUGGED, held=frozenset({"data"})), True),
        ("it attaches it as well, and is older", PLUGGED, rival(PLUGGED, age_s=90), True),
        ("it attaches it as well, and is younger", PLUGGED, rival(PLUGGED), False),
        ("it is older, and nowhere yet", PLUGGED, rival(PLUGGED, age_s=90, node=""), False),
        ("its guest has not let go of it", PLUGGED, rival(with_volumes(), **LEAVES), True),
        ("its guest has it, and its pods are gone", PLUGGED, rival(PLUGGED, **GONE), True),
        ("both read", READS, rival(READS, held=frozenset({"data"})), False),
        ("it reads what this one writes to", PLUGGED, rival(READS, held=frozenset({"data"})), True),
        ("it writes to what this one reads", READS, rival(FIXED), True),
        ("another claim", PLUGGED, rival(on_claim("other")), False),
    ),
)
def test_who_may_attach_a_claim(mine: Json, other: Rival, waits: bool) -> None:
    now = attachments(running(spec=mine), rivals=(other,))
    assert [type(action) for action in plan(now)] == ([] if waits else [Attach])
    trouble = now.trouble
    assert (trouble is not None) == waits
    if trouble is not None:
        assert trouble.reason == "VolumeInUse"
        assert 'volume "data" is in use by VirtualMachineInstance shop/other' in trouble.message


def test_what_the_guest_has_is_held_anew_whoever_is_older() -> None:
    now = attachments(running(volume(), status=(told(),)), rivals=(rival(PLUGGED, age_s=90),))
    assert [type(action) for action in plan(now)] == [Attach]


@pytest.mark.parametrize("pair", [(PLUGGED, FIXED), (FIXED, PLUGGED), (PLUGGED, PLUGGED)])
def test_a_volume_counts_as_used_from_the_manifest_on(pair: tuple[Json, Json]) -> None:
    assert all(claims_used(vmi(spec=spec)) == ["shop/data"] for spec in pair)


def test_what_leaves_is_kept_until_its_pod_is_gone() -> None:
    leaving = running(status=(told(phase="Detaching"),))
    assert (claims_used(leaving), claims_kept(leaving)) == (["shop/data"], ["shop/data"])
    gone = running()
    assert (claims_used(gone), claims_kept(gone)) == ([], [])


UNSCHEDULABLE = {
    "type": "PodScheduled",
    "status": "False",
    "reason": "Unschedulable",
    "message": "volume node affinity conflict",
}


def unplaced(seconds_ago: float) -> core.Pod:
    condition = UNSCHEDULABLE | {"lastTransitionTime": stamp(seconds_ago)}
    return holder(phase="Pending", node="", status={"conditions": [condition]})


@pytest.mark.parametrize(
    ("now", "reason", "words"),
    situations(
        ("held", attachments(running(volume()), holder()), None, ""),
        (
            "no claim",
            attachments(running(volume()), claims={}),
            "FailedPvcNotFound",
            "is attached when",
        ),
        (
            "no claim any more, but a pod that holds it",
            attachments(running(volume()), holder(), claims={}),
            None,
            "",
        ),
        (
            "refused",
            attachments(running(volume()), failures={"data": LATER}),
            "FailedHotplugSync",
            "why",
        ),
        ("placed soon, perhaps", attachments(running(volume()), unplaced(1)), None, ""),
        (
            "on another node",
            attachments(running(volume()), unplaced(2)),
            "FailedHotplugSync",
            f'Pod {FIRST} cannot hold volume "data" on the node of the machine: volume node',
        ),
        ("nothing runs", attachments(running(volume()), launcher=None, claims={}), None, ""),
    ),
)
def test_what_is_said_of_a_running_machine(
    now: Attachments, reason: str | None, words: str
) -> None:
    seen = observed(now.vmi, LAUNCHER, attached=now, claims=now.claims)
    body = status_of(seen)
    assert body is not None
    assert "phase" not in body
    found = {condition["type"]: condition for condition in body["conditions"]}
    assert found.keys() == ({"Synchronized"} if reason else set())
    if reason is not None:
        assert found["Synchronized"]["reason"] == reason
        assert words in found["Synchronized"]["message"]
        assert new_trouble(now.vmi, body) == found["Synchronized"]


def test_what_was_said_is_taken_back() -> None:
    said = {"type": "Synchronized", "status": "False", "reason": "FailedHotplugSync"}
    healed = running(volume(), status=(told(),))
    body = status_of(seen(healed, holder()))
    assert body is not None
    told_of = vmi(
        spec=with_volumes(volume()),
        status={
            "phase": "Running",
            "nodeName": "n1",
            "conditions": [said],
            "volumeStatus": [told()],
        },
    )
    assert has_changed(told_of, body)


@pytest.mark.parametrize(
    ("now", "again_s"),
    situations(
        ("nothing", attachments(running(volume()), holder()), 0),
        ("a pause", attachments(running(volume()), failures={"data": LATER}), 5),
        ("a refused deletion", attachments(running(), holder(), refused={"hp-0": LATER}), 5),
        ("the scheduler's second thought", attachments(running(volume()), unplaced(1)), 0.5),
        (
            "who else gets a pod",
            attachments(running(volume()), rivals=(rival(FIXED, is_getting_pod=True),)),
            1,
        ),
    ),
)
def test_when_time_alone_matters(now: Attachments, again_s: float) -> None:
    assert now.look_again_in.total_seconds() == again_s
    seen_all = observed(now.vmi, LAUNCHER, attached=now)
    assert seen_all.look_again_in_s == (again_s or None)


def seen(instance: v1.VirtualMachineInstance, *pods: core.Pod, **changes: Any) -> Observed:
    now = attachments(instance, *pods, **changes)
    return observed(instance, LAUNCHER, attached=now, claims=now.claims)


@pytest.mark.parametrize(
    ("now", "expected", "is_news"),
    situations(
        ("a pod is there", seen(running(volume()), holder()), [told()], True),
        (
            "as said",
            seen(running(volume(), status=(told(phase="Ready"),)), holder()),
            [told()],
            False,
        ),
        (
            "the pod has a successor",
            seen(
                running(volume(), status=(told(),)),
                holder(metadata=DYING),
                holder(attempt=1, uid="hp-1"),
            ),
            [told(hotplugVolume={"attachPodName": SECOND, "attachPodUID": "hp-1"})],
            True,
        ),
        (
            "the pod is going and has none yet",
            seen(running(volume(), status=(told(),)), holder(metadata=DYING)),
            [told()],
            False,
        ),
        (
            "the volume leaves",
            seen(running(status=(told(phase="Detaching"),)), holder()),
            [told()],
            False,
        ),
        (
            "the pod has vanished while the guest has the volume",
            seen(running(volume(), status=(told(phase="Ready"),))),
            [told()],
            False,
        ),
        (
            "the pod has vanished before the guest has let go of the volume",
            seen(running(status=(told(phase="Detaching"),))),
            [told()],
            False,
        ),
        (
            "nothing of the guest's pods is left on a node that is silent",
            seen(running(volume(), status=(told(phase="Ready"),)), launcher=None, is_over=False),
            [told()],
            False,
        ),
        (
            "nothing of its pods is left, and the guest has ended",
            seen(running(volume(), status=(told(phase="Ready"),)), launcher=None),
            [{"name": "data", "persistentVolumeClaimInfo": told()["persistentVolumeClaimInfo"]}],
            True,
        ),
        (
            "the volume has left",
            seen(running(status=(told(phase="UnMountedFromPod"),))),
            None,
            True,
        ),
        (
            "another claim waits for the old one",
            seen(running(volume(claim_name="other"), status=(told(),)), holder()),
            [told()],
            False,
        ),
    ),
)
def test_what_the_handler_is_told(now: Observed, expected: Any, is_news: bool) -> None:
    body = status_of(now)
    assert body is not None
    assert body.get("volumeStatus") == expected
    assert volume_status.has_changed(now.vmi, body) == is_news


def test_a_pod_that_is_not_known_of_is_looked_for() -> None:
    now = attachments(running(volume(), status=(told(uid="hp-7"),)), holder())
    assert [entry.name for entry in now.vanished] == ["data"]
    assert attachments(running(volume(), status=(told(),)), holder()).vanished == []


def rendered(spec: Json, mode: str = "Filesystem") -> Json:
    [wanted] = [v for v in vmi(spec=spec).spec.volumes or () if v.is_hotpluggable]
    instance = running(spec=spec)
    return render_attachment_pod(FIRST, instance, wanted, claim(mode=mode), LAUNCHER, CONFIG)


def test_the_pod() -> None:
    manifest = rendered(with_volumes(volume()))
    metadata, spec = manifest["metadata"], manifest["spec"]
    assert FIRST.startswith("hp-volume-")
    assert len(FIRST) == len("hp-volume-") + 10
    assert (metadata["name"], metadata["namespace"]) == (FIRST, "shop")
    assert metadata["labels"] == {
        "kubevirt.io": "hotplug-disk",
        "kubevirt.io/created-by": UID,
        "podvisor.io/volume": "data",
    }
    assert metadata["annotations"]["kubevirt.io/owner-vmi-name"] == "myvm"
    assert metadata["annotations"]["podvisor.io/claim"] == "data"
    [owner] = metadata["ownerReferences"]
    assert (owner["kind"], owner["uid"], owner["controller"]) == ("Pod", "pod-1", True)
    [term] = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][
        "nodeSelectorTerms"
    ]
    assert term == {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}
    assert spec["tolerations"] == [{"operator": "Exists"}]
    assert not spec["automountServiceAccountToken"]
    # The launcher pod's is 30 seconds more than the guest's.
    assert spec["terminationGracePeriodSeconds"] == running().grace_period_s + 60
    assert spec["securityContext"]["runAsUser"] == 107
    [container] = spec["containers"]
    assert container["image"] == IMAGE
    assert container["command"] == ["/usr/libexec/podvisor/volume-holder"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert {"name": "sockets", "mountPath": "/run/podvisor/sockets"} in container["volumeMounts"]


@pytest.mark.parametrize(
    ("spec", "mode", "mounted"),
    situations(
        (
            "a file system",
            with_volumes(volume()),
            "Filesystem",
            {"name": "volume", "mountPath": "/run/podvisor/volumes/data"},
        ),
        (
            "a file system that is read",
            with_volumes(volume(), disks=(disk(cdrom={"bus": "sata"}),)),
            "Filesystem",
            {"name": "volume", "mountPath": "/run/podvisor/volumes/data", "readOnly": True},
        ),
        (
            "a device",
            with_volumes(volume()),
            "Block",
            {"name": "volume", "devicePath": "/dev/podvisor/data"},
        ),
    ),
)
def test_where_the_volume_is(spec: Json, mode: str, mounted: Json) -> None:
    [container] = rendered(spec, mode)["spec"]["containers"]
    found = container["volumeMounts"][1:] + container.get("volumeDevices", [])
    assert found == [mounted]
    source = rendered(spec, mode)["spec"]["volumes"][1]["persistentVolumeClaim"]
    assert source == {"claimName": "data"} | {k: v for k, v in mounted.items() if k == "readOnly"}


def test_what_the_cache_keeps_of_a_pod_that_holds_a_volume() -> None:
    kept = outline(holder(metadata={"annotations": {"podvisor.io/claim": "data", "x": "y"}}))
    assert kept.metadata.labels == {"podvisor.io/volume": "data"}
    assert kept.metadata.annotations == {"podvisor.io/claim": "data"}
    launcher = pod(metadata={"labels": {"a": "b", "podvisor.io/volume": "x"}})
    assert outline(launcher).metadata.labels is None
