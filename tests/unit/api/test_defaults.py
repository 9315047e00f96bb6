"""Admission fills in what is missing, never changes what is given, and leaves v1alpha1 specifications alone."""

import copy
from itertools import count
from typing import Any

import msgspec
import pytest
import yaml
from podvisor_common.api import v1
from podvisor_controller.webhooks.conversion import convert
from podvisor_controller.webhooks.defaults import (
    ClusterDefaults,
    default_instance_update,
    default_virtual_machine,
    default_virtual_machine_instance,
)
from podvisor_controller.webhooks.defaults_instance import instance_of
from podvisor_controller.webhooks.defaults_patch import patch_between

from tests.support.cluster import ROOT
from tests.unit.api.admitted import Json, apply, defaulted, instance


def test_a_bare_instance_says_everything_afterwards() -> None:
    obj = instance(
        domain={"resources": {"requests": {"memory": "64M"}}, "devices": {}},
        volumes=[{"name": "root", "containerDisk": {"image": "cirros"}}],
    )
    result = defaulted(obj)
    assert result["metadata"]["finalizers"] == ["kubevirt.io/foregroundDeleteVirtualMachine"]
    assert result["spec"] == {
        "architecture": "amd64",
        "domain": {
            "resources": {"requests": {"memory": "64M"}},
            "machine": {"type": "q35"},
            "cpu": {"sockets": 1, "cores": 1, "threads": 1},
            "memory": {"guest": "64M"},
            "devices": {
                "disks": [{"name": "root", "disk": {"bus": "sata"}}],
                "interfaces": [{"name": "default", "bridge": {}}],
            },
        },
        "networks": [{"name": "default", "pod": {}}],
        "volumes": [
            {"name": "root", "containerDisk": {"image": "cirros", "imagePullPolicy": "Always"}}
        ],
    }


def test_defaulting_twice_changes_nothing_more() -> None:
    once = defaulted(instance(volumes=[{"name": "a"}]))
    assert default_virtual_machine_instance(once) == []


def test_an_instance_applied_again_is_as_it_was() -> None:
    """kubectl replaces lists as a whole: what they were given is gone with them."""
    given = instance(volumes=[{"name": "root", "containerDisk": {"image": "demo"}}])
    made = defaulted(given)
    made["metadata"]["finalizers"] = []
    assert made["spec"]["volumes"] != given["spec"]["volumes"]
    again = made | {"spec": made["spec"] | {"volumes": given["spec"]["volumes"]}}
    assert apply(again, default_instance_update(again, made)) == made
    assert default_instance_update(made, made) == []


def test_what_is_given_stays() -> None:
    given = instance(
        architecture="arm64",
        domain={
            "machine": {"type": "virt-9.2"},
            "cpu": {"cores": 3, "model": "max"},
            "memory": {"guest": "2Gi"},
            "resources": {"requests": {"memory": "1Gi", "cpu": "100m"}},
            "devices": {
                "disks": [
                    {"name": "a", "cdrom": {"bus": "scsi", "readonly": False, "tray": "open"}}
                ],
                "interfaces": [{"name": "net", "masquerade": {}}],
            },
        },
        networks=[{"name": "net", "pod": {}}],
        volumes=[{"name": "a", "containerDisk": {"image": "x:latest", "imagePullPolicy": "Never"}}],
    )
    result = defaulted(given, ClusterDefaults(cpu_model="host-model", machine_type="q35"))
    expected = copy.deepcopy(given["spec"])
    expected["domain"]["cpu"] |= {"sockets": 1, "threads": 1}
    assert result["spec"] == expected


@pytest.mark.parametrize(
    ("resources", "sockets", "requests"),
    [
        ({}, 1, None),
        ({"requests": {"cpu": "1500m"}}, 2, {"cpu": "1500m"}),
        ({"limits": {"cpu": 3}}, 3, {"cpu": 3}),
        ({"requests": {"cpu": "1"}, "limits": {"cpu": "4"}}, 4, {"cpu": "1"}),
        ({"requests": {"cpu": "lots"}}, 1, {"cpu": "lots"}),
    ],
)
def test_processors_from_resources(resources: Json, sockets: int, requests: Json | None) -> None:
    domain = defaulted(instance(domain={"devices": {}, "resources": resources}))["spec"]["domain"]
    assert domain["cpu"]["sockets"] == sockets
    assert domain["resources"].get("requests") == requests


def test_cluster_settings_reach_guests() -> None:
    configuration = msgspec.convert(
        {"machineType": "pc-q35-10.0", "cpuModel": "max", "cpuRequest": "250m"},
        v1.KubeVirtConfiguration,
    )
    domain = defaulted(instance(), ClusterDefaults.of(configuration, "amd64"))["spec"]["domain"]
    assert domain["machine"]["type"] == "pc-q35-10.0"
    assert domain["cpu"]["model"] == "max"
    assert domain["resources"] == {"requests": {"cpu": "250m"}}


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("a", "Always"),
        ("a:latest", "Always"),
        ("a:1", "IfNotPresent"),
        ("a@sha256:0", "IfNotPresent"),
        ("registry:5000/a", "IfNotPresent"),
    ],
)
def test_pull_policy(image: str, policy: str) -> None:
    result = defaulted(instance(volumes=[{"name": "a", "containerDisk": {"image": image}}]))
    assert result["spec"]["volumes"][0]["containerDisk"]["imagePullPolicy"] == policy


@pytest.mark.parametrize(
    ("network", "binding"),
    [
        (None, "bridge"),
        ({}, "bridge"),
        ({"defaultNetworkInterface": "bridge"}, "bridge"),
        ({"defaultNetworkInterface": "masquerade"}, "masquerade"),
    ],
)
def test_the_cluster_names_the_binding_of_who_names_no_network(
    network: Json | None, binding: str
) -> None:
    settings = msgspec.convert({"network": network}, v1.KubeVirtConfiguration)
    introduction = yaml.safe_load((ROOT / "examples/myvm.yaml").read_text())
    introduction["metadata"] |= {"namespace": "default", "uid": "u-1"}
    made = instance_of(convert(introduction, "kubevirt.io/v1"))
    for obj in (instance(), made):
        spec = defaulted(obj, ClusterDefaults.of(settings, "amd64"))["spec"]
        assert spec["networks"] == [{"name": "default", "pod": {}}]
        assert spec["domain"]["devices"]["interfaces"] == [{"name": "default", binding: {}}]


@pytest.mark.parametrize(
    ("network", "is_permitted"),
    [
        (None, True),
        ({"permitBridgeInterfaceOnPodNetwork": True}, True),
        ({"permitBridgeInterfaceOnPodNetwork": False}, False),
    ],
)
def test_the_cluster_may_forbid_bridges(network: Json | None, is_permitted: bool) -> None:
    settings = msgspec.convert({"network": network}, v1.KubeVirtConfiguration)
    permitted = ClusterDefaults.of(settings, "amd64").permitted
    assert permitted.bridge_on_pod_network == is_permitted


def test_no_network_when_none_is_wanted() -> None:
    result = defaulted(instance(domain={"devices": {"autoattachPodInterface": False}}))
    assert "networks" not in result["spec"]
    assert "interfaces" not in result["spec"]["domain"]["devices"]


@pytest.mark.parametrize(
    "spec",
    [
        None,
        {},
        {"domain": None},
        {"domain": {"devices": None, "cpu": 7, "memory": "x", "machine": 1}},
        {
            "domain": {"devices": {"disks": {"a": 1}}, "resources": []},
            "volumes": [1, {"name": "a"}],
        },
        {
            "domain": {"devices": {"disks": [{"name": ["a"], "cdrom": {"tray": 1}}]}},
            "architecture": ["amd64"],
            "volumes": [{"name": ["a"], "dataVolume": {"hotpluggable": True}}],
        },
    ],
)
def test_nonsense_is_left_for_validation(spec: Any) -> None:
    obj = instance() | {"spec": spec}
    apply(obj, default_virtual_machine_instance(obj))
    machine = {"metadata": {}, "spec": {"template": {"spec": spec}}}
    apply(machine, default_virtual_machine(machine))


@pytest.mark.parametrize("wrong", [[], {}, 0, False], ids=repr)
def test_a_wrong_type_is_not_taken_for_nothing(wrong: Any) -> None:
    disk: Json = {"name": "a", "disk": {}}
    volume: Json = {"name": "a", "containerDisk": {"image": "x"}}
    obj = instance(
        domain={"machine": {}, "devices": {"disks": [disk]}}, volumes=[volume], networks=[]
    )
    places: list[tuple[Json, str]] = [
        (obj["spec"], "architecture"),
        (obj["spec"]["domain"]["machine"], "type"),
        (disk["disk"], "bus"),
        (volume["containerDisk"], "imagePullPolicy"),
    ]
    places += [(obj["spec"], "networks")] if wrong != [] else []
    for place, key in places:
        place[key] = wrong
    after = defaulted(obj)["spec"]
    assert after["architecture"] == wrong
    assert after["domain"]["machine"]["type"] == wrong
    assert after["domain"]["devices"]["disks"] == [disk]
    assert after["volumes"] == [volume]
    assert wrong == [] or after["networks"] == wrong


@pytest.mark.parametrize("resources", [[], {"requests": [], "limits": {"cpu": 1}}, {"requests": 7}])
def test_no_request_is_added_to_what_is_no_object(resources: Any) -> None:
    obj = instance(domain={"devices": {}, "resources": resources})
    after = defaulted(obj, ClusterDefaults(cpu_request="100m"))
    assert after["spec"]["domain"]["resources"] == resources


def machine(**metadata: Any) -> Json:
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": {"name": "x", "namespace": "shop", "uid": "u-1", "generation": 7, **metadata},
        "spec": {"runStrategy": "Always", "template": {"spec": {"domain": {"devices": {}}}}},
    }


def test_machine_gets_an_identity_that_lasts() -> None:
    numbers = count(1)
    obj = machine(finalizers=["other/one"])
    result = apply(obj, default_virtual_machine(obj, make_uuid=lambda: f"uuid-{next(numbers)}"))
    assert result["metadata"]["finalizers"] == [
        "other/one",
        "kubevirt.io/virtualMachineControllerFinalize",
    ]
    spec = result["spec"]["template"]["spec"]
    assert spec["domain"]["firmware"] == {"uuid": "uuid-1", "serial": "uuid-2"}
    assert spec["domain"]["machine"] == {"type": "q35"}
    assert spec["architecture"] == "amd64"


def first_machine() -> Json:
    return {
        "apiVersion": "kubevirt.io/v1alpha1",
        "kind": "VirtualMachine",
        "metadata": {"name": "x", "namespace": "shop", "uid": "u-1", "labels": {"app": "web"}},
        "spec": {"domain": {"resources": {"requests": {"memory": "64M"}}, "devices": {}}},
    }


def test_specification_written_as_v1alpha1_reads_back_as_written() -> None:
    obj = first_machine()
    stored = convert(obj, "kubevirt.io/v1")
    stored = apply(stored, default_virtual_machine(stored))
    assert stored["metadata"]["finalizers"] == ["kubevirt.io/virtualMachineControllerFinalize"]
    assert convert(stored, "kubevirt.io/v1alpha1")["spec"] == obj["spec"]


def test_instance_of_a_machine() -> None:
    obj = machine(labels={"vm": "label"}, annotations={"vm": "annotation"})
    obj["spec"]["template"]["metadata"] = {"labels": {"app": "web"}, "annotations": {"a": "b"}}
    result = instance_of(obj)
    assert result["kind"] == "VirtualMachineInstance"
    metadata = result["metadata"]
    assert (metadata["name"], metadata["namespace"]) == ("x", "shop")
    assert metadata["labels"] == {"app": "web"}
    assert metadata["annotations"] == {"a": "b", "kubevirt.io/vm-generation": "7"}
    assert metadata["ownerReferences"] == [
        {
            "apiVersion": "kubevirt.io/v1",
            "kind": "VirtualMachine",
            "name": "x",
            "uid": "u-1",
            "controller": True,
            "blockOwnerDeletion": True,
        }
    ]
    assert "firmware" not in obj["spec"]["template"]["spec"]["domain"]


def test_instances_of_one_machine_have_one_identity() -> None:
    first, second = instance_of(machine()), instance_of(machine(generation=8))
    other = instance_of(machine(uid="u-2"))
    uuids = [each["spec"]["domain"]["firmware"]["uuid"] for each in (first, second, other)]
    assert uuids[0] == uuids[1] != uuids[2]


def test_struct_and_manifest_give_the_same_instance() -> None:
    obj = machine()
    assert instance_of(msgspec.convert(obj, v1.VirtualMachine)) == instance_of(obj)


def test_labels_of_a_v1alpha1_machine_are_its_instances() -> None:
    stored = convert(first_machine(), "kubevirt.io/v1")
    assert instance_of(stored)["metadata"]["labels"] == {"app": "web"}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"a/b": {"~": 1}}),
        ({"a": [1, 2]}, {"a": [1, 3, 4]}),
        ({"a": [1, 2]}, {"a": [1]}),
        ({"a": 1, "b": 2}, {"b": {"c": None}}),
        ([], {"a": 1}),
    ],
)
def test_patches_lead_from_before_to_after(before: Any, after: Any) -> None:
    assert apply(before, patch_between(before, after)) == after


SPEC_OF = {
    "machine type": ({"machineType": "pc-q35-9.2"}, ("domain", "machine", "type"), "pc-q35-9.2"),
    "machine type of the architecture": (
        {
            "machineType": "q35",
            "architectureConfiguration": {"amd64": {"machineType": "pc-q35-8.2"}},
        },
        ("domain", "machine", "type"),
        "pc-q35-8.2",
    ),
    "machine type of another architecture": (
        {"architectureConfiguration": {"arm64": {"machineType": "virt-9.2"}}},
        ("domain", "machine", "type"),
        "q35",
    ),
    "CPU model": ({"cpuModel": "Nehalem"}, ("domain", "cpu", "model"), "Nehalem"),
    "CPU request": ({"cpuRequest": "300m"}, ("domain", "resources", "requests", "cpu"), "300m"),
    "eviction strategy": ({"evictionStrategy": "External"}, ("evictionStrategy",), "External"),
}


@pytest.mark.parametrize(
    ("configuration", "path", "value"), list(SPEC_OF.values()), ids=list(SPEC_OF)
)
def test_settings_are_in_the_next_instance(
    configuration: Json, path: tuple[str, ...], value: str
) -> None:
    settings = msgspec.convert(configuration, v1.KubeVirtConfiguration)
    result = defaulted(instance(), ClusterDefaults.of(settings, "amd64"))["spec"]
    for key in path:
        result = result[key]
    assert result == value


@pytest.mark.parametrize("strategy", ["None", "LiveMigrateIfPossible"])
def test_an_eviction_strategy_that_is_given_stays(strategy: str) -> None:
    given = instance(evictionStrategy=strategy)
    result = defaulted(given, ClusterDefaults(eviction_strategy="External"))
    assert result["spec"]["evictionStrategy"] == strategy
    assert "evictionStrategy" not in defaulted(instance())["spec"]


def test_an_eviction_strategy_that_is_not_served_is_not_filled_in() -> None:
    settings = v1.KubeVirtConfiguration(eviction_strategy="LiveMigrate")
    defaults = ClusterDefaults.of(settings, "amd64")
    assert "evictionStrategy" not in defaulted(instance(), defaults)["spec"]
