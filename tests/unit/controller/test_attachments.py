"""Pods that hold volumes for running guests: which are made and let go, and for whom."""

import pytest
from podvisor_controller.vmi.attachments import Attach, Attachments, Release, plan
from podvisor_controller.vmi.claims import Rival, claims_kept, claims_used

from tests.unit.controller.builders import (
    Json,
    claim,
    on_claim,
    pod,
    situations,
    stamp,
    vmi,
)
from tests.unit.controller.plugged import (
    DYING,
    EARLIER,
    FIRST,
    FIXED,
    LATER,
    PLUGGED,
    attachments,
    holder,
    rival,
    running,
    told,
    volume,
    with_volumes,
)

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
