"""What a launcher pod asks of Multus."""

import json
from typing import Any

import msgspec
import pytest
from podvisor_common.api import v1
from podvisor_common.network_selections import UnreadableNetworks, read_networks
from podvisor_controller.vmi.pod import render_pod
from podvisor_controller.vmi.pod_networks import changed_networks

from tests.unit.controller.builders import CONFIG, Json, pod, situations, vmi

NETWORKS, DEFAULT = "k8s.v1.cni.cncf.io/networks", "v1.multus-cni.io/default-network"
POD = {"name": "default", "pod": {}}


def lan(name: str, definition: str, **changes: Any) -> Json:
    return {"name": name, "multus": {"networkName": definition} | changes}


def attached(*networks: Json, **interfaces: Json) -> v1.VirtualMachineInstance:
    """An instance on these networks; of each interface by its name what is not plain."""
    nics = [{"name": n["name"], "bridge": {}} | interfaces.get(n["name"], {}) for n in networks]
    domain = {"devices": {"interfaces": nics}}
    return vmi(spec={"networks": list(networks), "domain": domain})


def asked(instance: v1.VirtualMachineInstance) -> tuple[Any, str | None]:
    """The networks beside the pod's own, and the one in place of it."""
    annotations = render_pod(instance, CONFIG, {})["metadata"]["annotations"]
    text = annotations.get(NETWORKS)
    return None if text is None else json.loads(text), annotations.get(DEFAULT)


# As upstream's scheme has it: the beginning of sha256 of the network's name.
BLUE, RED = "pod16477688c0e", "podb1f51a511f1"


@pytest.mark.parametrize(
    ("instance", "networks", "default"),
    situations(
        ("nothing said", vmi(), None, None),
        ("the pod network", attached(POD), None, None),
        (
            "two more",
            attached(POD, lan("blue", "lan"), lan("red", "shared/lan")),
            [
                {"name": "lan", "namespace": "shop", "interface": BLUE},
                {"name": "lan", "namespace": "shared", "interface": RED},
            ],
            None,
        ),
        (
            "with a hardware address",
            attached(lan("blue", "lan"), blue={"macAddress": "02-00-00-00-0A-01"}),
            [
                {
                    "name": "lan",
                    "namespace": "shop",
                    "interface": BLUE,
                    "mac": "02:00:00:00:0a:01",
                }
            ],
            None,
        ),
        (
            "in place of the pod network",
            attached(lan("red", "shared/lan", default=True), lan("blue", "lan")),
            [{"name": "lan", "namespace": "shop", "interface": BLUE}],
            "shared/lan",
        ),
        ("unplugged", attached(POD, lan("blue", "lan"), blue={"state": "absent"}), None, None),
        (
            "without carrier",
            attached(lan("blue", "lan"), blue={"state": "down"}),
            [{"name": "lan", "namespace": "shop", "interface": BLUE}],
            None,
        ),
    ),
)
def test_networks(instance: v1.VirtualMachineInstance, networks: Any, default: str | None) -> None:
    assert asked(instance) == (networks, default)


def selection(interface: str, name: str = "lan") -> Json:
    return {"name": name, "namespace": "shop", "interface": interface}


OTHERS: Json = {"name": "mesh-cni", "namespace": "mesh"}
# As a pool of hardware addresses writes to every pod that is made.
GIVEN = selection(BLUE) | {"mac": "02:00:00:00:0a:01"}
PLUGGED = attached(POD, lan("blue", "lan"))
GOING = attached(POD, lan("blue", "lan"), blue={"state": "absent"})
ATTACHED = {"interfaces": [{"name": "blue", "infoSource": "domain"}]}


def with_status(instance: v1.VirtualMachineInstance, status: Json) -> v1.VirtualMachineInstance:
    return msgspec.structs.replace(
        instance, status=msgspec.convert(status, v1.VirtualMachineInstanceStatus)
    )


@pytest.mark.parametrize(
    ("instance", "asked_for", "written"),
    situations(
        ("nothing", vmi(), None, None),
        ("as it was made", PLUGGED, [selection(BLUE)], None),
        ("one comes", PLUGGED, None, [selection(BLUE)]),
        (
            "one comes beside another",
            attached(POD, lan("red", "lan"), lan("blue", "lan")),
            [selection(RED)],
            [selection(RED), selection(BLUE)],
        ),
        (
            "in another order",
            attached(POD, lan("red", "lan"), lan("blue", "lan")),
            [selection(BLUE), selection(RED)],
            None,
        ),
        ("it goes", with_status(GOING, ATTACHED), [selection(BLUE)], None),
        ("it has gone", GOING, [selection(BLUE)], []),
        ("it is forgotten", attached(POD), [selection(BLUE)], []),
        ("others' stay", PLUGGED, [OTHERS], [OTHERS, selection(BLUE)]),
        ("others' stay alone", attached(POD), [OTHERS, selection(BLUE)], [OTHERS]),
        ("others' alone", vmi(), [OTHERS], None),
        (
            "one comes, and others' behind ours keep their places",
            attached(POD, lan("red", "lan"), lan("blue", "lan")),
            [selection(RED), OTHERS],
            [selection(RED), OTHERS, selection(BLUE)],
        ),
        (
            "ours changes where it stands",
            PLUGGED,
            [OTHERS, selection(BLUE, "old"), OTHERS],
            [OTHERS, selection(BLUE), OTHERS],
        ),
        (
            "one goes in front of others', whose names came of their places",
            attached(POD),
            [OTHERS, selection(BLUE), OTHERS, {"name": "b", "interface": "x"}, {"name": "c"}],
            [
                OTHERS,
                OTHERS | {"interface": "net3"},
                {"name": "b", "interface": "x"},
                {"name": "c", "interface": "net5"},
            ],
        ),
        (
            "one goes and one comes",
            PLUGGED,
            [selection(RED), OTHERS | {"interface": None}],
            [OTHERS | {"interface": "net2"}, selection(BLUE)],
        ),
        ("a webhook gave ours a hardware address", PLUGGED, [GIVEN], None),
        (
            "what a webhook gave ours goes on when another comes",
            attached(POD, lan("blue", "lan"), lan("red", "lan")),
            [GIVEN],
            [GIVEN, selection(RED)],
        ),
        (
            "a hardware address of the manifest is ours to give",
            attached(POD, lan("blue", "lan"), blue={"macAddress": "02:00:00:00:0a:02"}),
            [GIVEN | {"ips": ["10.1.0.7/24"]}],
            [GIVEN | {"ips": ["10.1.0.7/24"], "mac": "02:00:00:00:0a:02"}],
        ),
        (
            "what was given for another definition goes with it",
            attached(POD, lan("blue", "other")),
            [GIVEN],
            [selection(BLUE, "other")],
        ),
        (
            "ours stands there twice",
            PLUGGED,
            [selection(BLUE), selection(BLUE), OTHERS],
            [selection(BLUE), OTHERS | {"interface": "net3"}],
        ),
        (
            "others' as people write it",
            PLUGGED,
            "mesh/mesh-cni, b@net7",
            [OTHERS, {"name": "b", "interface": "net7"}, selection(BLUE)],
        ),
        ("others' as people write it, alone", attached(POD), "a,b@x", None),
        ("nonsense, and nothing to add", attached(POD), '{"a": 1}', None),
    ),
)
def test_what_a_pod_is_to_ask_for_later(
    instance: v1.VirtualMachineInstance, asked_for: Any, written: Any
) -> None:
    text = asked_for if isinstance(asked_for, str) else json.dumps(asked_for)
    annotations = {} if asked_for is None else {NETWORKS: text}
    found = changed_networks(instance, pod(metadata={"annotations": annotations}))
    if written is None:
        assert found is None
        return
    assert found is not None
    assert json.loads(found[NETWORKS] or "[]") == written
    assert found[NETWORKS] is not None or not written


def test_what_cannot_be_read_is_not_written_over() -> None:
    annotated = pod(metadata={"annotations": {NETWORKS: "a/b/c"}})
    with pytest.raises(UnreadableNetworks, match='"a/b/c" is no network'):
        changed_networks(PLUGGED, annotated)
    assert changed_networks(GOING, annotated) is None


@pytest.mark.parametrize(
    ("text", "found"),
    situations(
        ("nothing", " ", []),
        ("one", "lan", [{"name": "lan"}]),
        (
            "several",
            "lan, shared/lan ,lan@eth7,shared/lan@eth8",
            [
                {"name": "lan"},
                {"namespace": "shared", "name": "lan"},
                {"name": "lan", "interface": "eth7"},
                {"namespace": "shared", "name": "lan", "interface": "eth8"},
            ],
        ),
        (
            "JSON",
            ' [{"name": "lan", "ips": ["10.0.0.1/24"]}]',
            [{"name": "lan", "ips": ["10.0.0.1/24"]}],
        ),
        ("too many parts", "a/b/c", None),
        ("two interfaces", "a@b@c", None),
        ("no name", "a,", None),
        ("no name after a namespace", "a/", None),
        ("no interface", "a@", None),
        ("capitals", "Lan", None),
        ("JSON that is no list", '{"name": "lan"}', None),
        ("JSON of no networks", '["lan"]', None),
        ("JSON without a name", '[{"interface": "net1"}]', None),
        ("half of JSON", '[{"name": "lan"', None),
    ),
)
def test_both_forms_of_the_annotation(text: str, found: Any) -> None:
    if found is None:
        with pytest.raises(UnreadableNetworks):
            read_networks(text)
        return
    assert read_networks(text) == found


def annotated(instance: v1.VirtualMachineInstance, text: str) -> v1.VirtualMachineInstance:
    metadata = msgspec.structs.replace(instance.metadata, annotations={NETWORKS: text})
    return msgspec.structs.replace(instance, metadata=metadata)


def test_what_people_ask_for_stays_beside_what_the_instance_has() -> None:
    theirs = [{"name": "a"}, {"name": "b", "interface": "x"}]
    assert asked(annotated(PLUGGED, "a,b@x")) == ([*theirs, selection(BLUE)], None)
    assert asked(annotated(PLUGGED, json.dumps(theirs))) == ([*theirs, selection(BLUE)], None)
    copied = annotated(PLUGGED, json.dumps([selection(BLUE, "old"), *theirs]))
    assert asked(copied) == ([selection(BLUE), *theirs], None)


# As anybody's may be called.
THEIRS = {"name": "c", "interface": "pod00000000000"}


@pytest.mark.parametrize(
    ("instance", "networks"),
    situations(
        ("beside ours", PLUGGED, [THEIRS, selection(BLUE)]),
        ("beside one that has gone", GOING, [THEIRS]),
        ("alone", attached(POD), [THEIRS]),
    ),
)
def test_an_interface_that_is_called_as_ours_are_is_its_owners(
    instance: v1.VirtualMachineInstance, networks: Any
) -> None:
    mine = annotated(instance, json.dumps([THEIRS]))
    assert asked(mine) == (networks, None)
    made = pod(metadata={"annotations": {NETWORKS: json.dumps([THEIRS, selection(BLUE)])}})
    found = changed_networks(mine, made)
    if instance is PLUGGED:
        assert found is None
        return
    assert found is not None
    assert json.loads(found[NETWORKS] or "") == networks


def test_an_annotation_that_cannot_be_read_asks_for_no_interface() -> None:
    made = pod(metadata={"annotations": {NETWORKS: json.dumps([THEIRS, selection(BLUE)])}})
    found = changed_networks(annotated(PLUGGED, "a/b/c"), made)
    assert found is not None
    assert json.loads(found[NETWORKS] or "") == [selection(BLUE)]


@pytest.mark.parametrize(
    ("instance", "text"), [(attached(POD), "a,b@x"), (PLUGGED, "a/b/c"), (vmi(), "[]")]
)
def test_what_there_is_nothing_to_add_to_stays_as_it_is(
    instance: v1.VirtualMachineInstance, text: str
) -> None:
    manifest = render_pod(annotated(instance, text), CONFIG, {})
    assert manifest["metadata"]["annotations"][NETWORKS] == text
