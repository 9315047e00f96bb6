"""Conversion loses nothing: there and back gives the same specification and status."""

import copy
import json
import random
from typing import Any

import pytest
from podvisor_common.api.v1 import names
from podvisor_controller.webhooks.conversion import ConversionError, convert, written_as_v1alpha1
from podvisor_controller.webhooks.conversion_delta import apply_edits, edits_between

from tests.unit.api.machines import INTRODUCTION, V1, V1ALPHA1, Json

V1ALPHA3 = "kubevirt.io/v1alpha3"

FULL_V1: Json = {
    "apiVersion": V1,
    "kind": "VirtualMachine",
    "metadata": {"name": "vm", "namespace": "shop", "annotations": {"note": "kept"}},
    "spec": {
        "running": True,
        "template": {
            "metadata": {"labels": {"app": "db"}, "creationTimestamp": None},
            "spec": {
                "hostname": "db",
                "terminationGracePeriodSeconds": 0,
                "nodeSelector": {},
                "domain": {
                    "resources": {
                        "requests": {"memory": "1024Mi", "cpu": 1},
                        "limits": {"cpu": "2"},
                    },
                    "memory": {"guest": "1Gi"},
                    "cpu": {"cores": 1, "sockets": 2, "model": "host-model"},
                    "machine": {"type": "q35"},
                    "devices": {
                        "disks": [
                            {"name": "root", "disk": {}, "bootOrder": 1},
                            {
                                "name": "seed",
                                "cdrom": {"bus": "sata", "readonly": True},
                                "serial": "x",
                            },
                        ],
                        "interfaces": [{"name": "default", "masquerade": {}}],
                    },
                },
                "networks": [{"name": "default", "pod": {}}],
                "volumes": [
                    {
                        "name": "root",
                        "containerDisk": {"image": "disk", "imagePullPolicy": "Always"},
                    },
                    {"name": "seed", "cloudInitNoCloud": {"networkData": "version: 2\n"}},
                    {"name": "spare", "emptyDisk": {"capacity": "1Gi"}},
                ],
            },
        },
    },
    "status": {
        "created": True,
        "printableStatus": "Running",
        "phase": "Running",
        "nodeName": "node1",
        "interfaces": [{"name": "default", "ipAddress": "10.1.0.7"}],
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": None}],
        "observedGeneration": 3,
    },
}


def there_and_back(obj: Json, via: str) -> Json:
    return convert(convert(obj, via), obj["apiVersion"])


def test_introduction_becomes_a_v1_machine_that_runs_once() -> None:
    v1 = convert(INTRODUCTION, V1)
    assert v1["spec"] == {
        "runStrategy": "Once",
        "template": {
            "spec": {
                "terminationGracePeriodSeconds": 5,
                "domain": {
                    "resources": {"requests": {"memory": "64M"}},
                    "devices": {
                        "disks": [
                            {"name": "registrydisk", "disk": {"bus": "virtio"}},
                            {"name": "cloudinitdisk", "disk": {"bus": "virtio"}},
                        ]
                    },
                },
                "volumes": [
                    {
                        "name": "registrydisk",
                        "containerDisk": {"image": "kubevirt/cirros-registry-disk-demo:devel"},
                    },
                    {
                        "name": "cloudinitdisk",
                        "cloudInitNoCloud": {"userData": "ssh-authorized-keys:\n"},
                    },
                ],
            }
        },
    }
    assert written_as_v1alpha1(v1)
    assert not written_as_v1alpha1(FULL_V1)


@pytest.mark.parametrize("via", [V1, V1ALPHA3])
def test_introduction_converts_back_without_loss(via: str) -> None:
    assert there_and_back(INTRODUCTION, via) == INTRODUCTION


@pytest.mark.parametrize("via", [V1ALPHA1, V1ALPHA3])
def test_full_v1_converts_back_without_loss(via: str) -> None:
    assert there_and_back(FULL_V1, via) == FULL_V1


def test_v1alpha1_says_of_v1_what_it_can() -> None:
    old = convert(FULL_V1, V1ALPHA1)
    assert old["spec"]["domain"]["devices"]["disks"][1] == {
        "name": "seed",
        "volumeName": "seed",
        "cdrom": {"bus": "sata", "readonly": True},
    }
    assert old["spec"]["volumes"][0] == {"name": "root", "registryDisk": {"image": "disk"}}
    assert old["spec"]["domain"]["resources"] == {"requests": {"memory": "1024Mi", "cpu": 1}}
    assert old["status"]["phase"] == "Running"
    assert "printableStatus" not in old["status"]


def test_of_metadata_only_annotations_change() -> None:
    v1 = convert(INTRODUCTION, V1)
    kept = {k: v for k, v in v1["metadata"].items() if k != "annotations"}
    assert kept == INTRODUCTION["metadata"]
    assert list(v1["metadata"]["annotations"]) == [names.CONVERSION_ANNOTATION]


def test_status_written_to_v1_survives_writes_through_v1alpha1() -> None:
    stored = convert(INTRODUCTION, V1)
    stored["status"] = copy.deepcopy(FULL_V1["status"])
    seen = convert(stored, V1ALPHA1)
    assert seen["spec"] == INTRODUCTION["spec"]
    assert convert(seen, V1) == stored


def test_edits_through_v1alpha1_keep_what_only_v1_says() -> None:
    old = convert(FULL_V1, V1ALPHA1)
    old["spec"]["domain"]["cpu"]["cores"] = 4
    old["spec"]["domain"]["devices"]["disks"].pop(0)
    old["spec"]["volumes"].pop(0)
    v1 = convert(old, V1)
    template = v1["spec"]["template"]["spec"]
    assert v1["spec"]["running"] is True
    assert template["domain"]["cpu"] == {"cores": 4, "sockets": 2, "model": "host-model"}
    assert template["domain"]["devices"]["disks"] == [
        FULL_V1["spec"]["template"]["spec"]["domain"]["devices"]["disks"][1]
    ]
    assert [volume["name"] for volume in template["volumes"]] == ["seed", "spare"]
    assert template["volumes"][1]["emptyDisk"] == {"capacity": "1Gi"}


@pytest.mark.parametrize(
    ("situation", "disks", "volumes"),
    [
        ("one volume behind two disks", [("a", "v"), ("b", "v")], ["v", "w"]),
        ("a disk named like another's volume", [("a", "b"), ("b", "a")], ["a", "b"]),
        ("an unused volume named like a disk", [("a", "v")], ["v", "a", "a-volume"]),
        ("a disk without a volume", [("a", "missing")], []),
        ("a disk without a volume, a volume of its name", [("a", "missing")], ["a"]),
        ("order of volumes unlike that of disks", [("a", "x"), ("b", "y")], ["y", "x"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_names_of_disks_and_volumes(
    situation: str, disks: list[tuple[str, str]], volumes: list[str]
) -> None:
    obj = copy.deepcopy(INTRODUCTION)
    obj["spec"]["domain"]["devices"]["disks"] = [{"name": n, "volumeName": v} for n, v in disks]
    obj["spec"]["volumes"] = [{"name": n, "registryDisk": {"image": f"image-{n}"}} for n in volumes]
    v1 = convert(obj, V1)
    images = {
        v["name"]: v["containerDisk"]["image"] for v in v1["spec"]["template"]["spec"]["volumes"]
    }
    for disk, volume in disks:
        assert images.get(disk) == (f"image-{volume}" if volume in volumes else None)
    assert convert(v1, V1ALPHA1) == obj


def test_two_volumes_of_one_name_stay_two() -> None:
    obj = copy.deepcopy(INTRODUCTION)
    obj["spec"]["volumes"].append(obj["spec"]["volumes"][0])
    v1 = convert(obj, V1)
    volumes = [volume["name"] for volume in v1["spec"]["template"]["spec"]["volumes"]]
    assert volumes[0] == volumes[2]
    assert convert(v1, V1ALPHA1) == obj


@pytest.mark.parametrize(
    "annotation",
    [
        "",
        "{",
        "[]",
        "7",
        '{"origin":"x"}',
        '{"origin":"kubevirt.io/v1","spec":[7,[],[[1]],[["a"],1,2]]}',
    ],
)
def test_nonsense_in_the_annotation_counts_as_absent(annotation: str) -> None:
    obj = copy.deepcopy(INTRODUCTION)
    obj["metadata"]["annotations"] = {names.CONVERSION_ANNOTATION: annotation}
    assert convert(obj, V1)["spec"] == convert(INTRODUCTION, V1)["spec"]


@pytest.mark.parametrize(
    "spec",
    [
        None,
        {},
        {"domain": 7},
        {"domain": {"devices": {"disks": "x"}}, "volumes": {"a": 1}},
        {"volumes": [1]},
        {"volumes": [{"name": ["a"]}, {"name": 7}, {"name": {"a": 1}}, {}]},
        {"domain": {"devices": {"disks": [{"name": ["a"]}, {}]}}, "volumes": [{"name": "a"}]},
    ],
)
def test_values_of_a_wrong_type_reach_validation(spec: Any) -> None:
    obj = {**INTRODUCTION, "spec": spec}
    v1 = convert(obj, V1)
    assert v1["spec"]["template"]["spec"] == spec
    assert convert(convert(v1, V1ALPHA1), V1)["spec"] == v1["spec"]


def test_kinds_with_one_schema_only_change_their_version() -> None:
    vmi = {"apiVersion": V1, "kind": "VirtualMachineInstance", "metadata": {}, "spec": {"x": 1}}
    assert convert(vmi, V1ALPHA3) == {**vmi, "apiVersion": V1ALPHA3}


@pytest.mark.parametrize(
    ("kind", "version"), [("VirtualMachineInstance", V1ALPHA1), ("VirtualMachine", "x/v2")]
)
def test_version_that_is_not_served(kind: str, version: str) -> None:
    with pytest.raises(ConversionError, match="is not served in version"):
        convert({"apiVersion": V1, "kind": kind}, version)


def random_v1alpha1(rng: random.Random) -> Json:
    def maybe(value: Any) -> list[Any]:
        return [value] if rng.random() < 0.5 else []

    def pick(**choices: Any) -> Json:
        return {key: value for key, value in choices.items() if rng.random() < 0.5}

    volumes = []
    for name in rng.sample(["a", "b", "c", "d", "a-volume"], rng.randint(0, 4)):
        source = rng.choice(
            [
                {"registryDisk": {"image": f"i-{name}", **pick(imagePullSecret="s")}},
                {
                    "cloudInitNoCloud": pick(
                        userData="x", networkDataBase64="eA==", secretRef={"name": "n"}
                    )
                },
                {"persistentVolumeClaim": {"claimName": name, **pick(readOnly=True)}},
                {"ephemeral": {"persistentVolumeClaim": {"claimName": name}}},
                {},
            ]
        )
        volumes.append({"name": name, **source})
    disks = [
        {
            "name": name,
            "volumeName": rng.choice(["a", "b", "c", "d", "nothing"]),
            **pick(**{rng.choice(["disk", "cdrom", "lun"]): pick(bus="virtio", readonly=False)}),
        }
        for name in rng.sample(["a", "b", "e", "f"], rng.randint(0, 4))
    ]
    domain = pick(
        resources=pick(requests=pick(memory=rng.choice(["64M", "0.5Gi", 1000000]), cpu="100m")),
        cpu=pick(cores=2),
        devices={
            "disks": disks,
        }
        if maybe(1)
        else {},
    )
    status = pick(
        phase="Running", nodeName="n", interfaces=[{"ipAddress": "1.2.3.4"}], conditions=[]
    )
    spec = {
        "domain": domain,
        **pick(volumes=volumes, nodeSelector={"a": "b"}, terminationGracePeriodSeconds=0),
    }
    return {
        "apiVersion": V1ALPHA1,
        "kind": "VirtualMachine",
        "metadata": {"name": "x", **pick(annotations={"k": "v"}, labels={"l": "1"})},
        "spec": spec,
        **pick(status=status),
    }


def mutated(rng: random.Random, value: Any) -> Any:
    """The value with some parts taken out, put in or changed, as an edit through v1 could."""
    if isinstance(value, dict):
        result = {k: mutated(rng, v) for k, v in value.items() if k == "name" or rng.random() > 0.1}
        return result | (
            {"added": rng.choice([1, "x", None, {}, [{"name": "n"}]])} if rng.random() < 0.1 else {}
        )
    if isinstance(value, list):
        items = [mutated(rng, item) for item in value if rng.random() > 0.1]
        rng.shuffle(items)
        return items
    return rng.choice([value, value, value, "changed"]) if not isinstance(value, str) else value


@pytest.mark.parametrize("seed", range(300))
def test_v1alpha1_to_v1_and_back(seed: int) -> None:
    obj = random_v1alpha1(random.Random(seed))
    assert json.loads(json.dumps(there_and_back(obj, V1))) == obj


@pytest.mark.parametrize("seed", range(300))
def test_v1_to_v1alpha1_and_back(seed: int) -> None:
    rng = random.Random(seed)
    base = convert(random_v1alpha1(rng), V1) if seed % 2 else copy.deepcopy(FULL_V1)
    base["spec"] = mutated(rng, base["spec"])
    back = there_and_back(base, V1ALPHA1)
    assert back["spec"] == base["spec"]
    assert back.get("status") == base.get("status")


@pytest.mark.parametrize("seed", range(300))
def test_edits_lead_from_any_tree_to_any_other(seed: int) -> None:
    rng = random.Random(seed)
    full = mutated(rng, FULL_V1)
    base = mutated(rng, full)
    assert apply_edits(base, edits_between(base, full)) == full


def test_one_true_and_text_are_told_apart() -> None:
    base, full = {"a": 1, "b": [1], "c": "1"}, {"a": True, "b": [1.0], "c": 1}
    result = apply_edits(base, edits_between(base, full))
    assert json.dumps(result) == json.dumps(full)
