"""The definitions are structural, described, and the files in the chart are what the types say."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from podvisor_common.api import generate
from podvisor_common.api.crds import all_crds
from podvisor_common.api.emit import to_yaml

REPOSITORY = Path(__file__).parents[3]


def schemas() -> Iterator[tuple[str, dict[str, Any]]]:
    for plural, crd in all_crds().items():
        for version in crd["spec"]["versions"]:
            yield f"{plural} {version['name']}", version["schema"]["openAPIV3Schema"]


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in schema:
            yield from nodes(schema[key], f"{path}[]")


def test_committed_files_are_up_to_date() -> None:
    assert generate.stale_files(REPOSITORY) == []


def test_check_names_stale_files_and_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = tmp_path / "charts" / "podvisor" / "crds" / "old.yaml"
    old.parent.mkdir(parents=True)
    old.write_text("left over")
    assert generate.main(["--check", "--root", str(tmp_path)]) == 1
    told = capsys.readouterr().err
    assert all(name in told for name in ("virtualmachines.yaml", "compatibility.md", "old.yaml"))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [old]
    assert generate.main(["--root", str(tmp_path)]) == 0
    assert generate.main(["--check", "--root", str(tmp_path)]) == 0
    assert not old.exists()


def test_emitted_yaml_reads_back() -> None:
    for crd in all_crds().values():
        assert yaml.safe_load(to_yaml(crd)) == crd


def test_emitter_quotes_what_yaml_would_misread() -> None:
    odd: dict[str, Any] = {
        "a": "yes",
        "b": "1",
        "c": "",
        "d": "x: y",
        "e": [[], {}, None, 1.5, True],
        "on": "é\n#",
    }
    assert yaml.safe_load(to_yaml(odd)) == odd


@pytest.mark.parametrize(("name", "schema"), list(schemas()), ids=lambda value: str(value)[:40])
def test_every_node_has_a_type_and_every_field_a_description(
    name: str, schema: dict[str, Any]
) -> None:
    for path, node in nodes(schema):
        opaque = node.get("x-kubernetes-preserve-unknown-fields") or node.get(
            "x-kubernetes-int-or-string"
        )
        assert opaque or "type" in node, f"{name}{path}"
        assert "$ref" not in node
        # The API server drops it, and every later apply would find a difference.
        assert node.get("properties") != {}, f"{name}{path}"
        if not path.endswith("[]") and path not in (".metadata",):
            assert node.get("description"), f"{name}{path}"


@pytest.mark.parametrize(("name", "schema"), list(schemas()), ids=lambda value: str(value)[:40])
def test_keys_of_list_maps_are_required(name: str, schema: dict[str, Any]) -> None:
    for path, node in nodes(schema):
        for key in node.get("x-kubernetes-list-map-keys", []):
            assert key in node["items"]["required"], f"{name}{path}"


def test_fields_not_implemented_are_opaque() -> None:
    schema = dict(schemas())["virtualmachineinstances v1"]
    devices = schema["properties"]["spec"]["properties"]["domain"]["properties"]["devices"]
    assert devices["properties"]["gpus"] == {
        "description": "Not supported yet.",
        "x-kubernetes-preserve-unknown-fields": True,
    }


def test_settings_not_implemented_are_refused_by_the_api_server() -> None:
    """Each rule is of a field that is there and has a type, which is what CEL can see."""
    spec = dict(schemas())["kubevirts v1"]["properties"]["spec"]
    refused = set()
    for path, node in nodes(spec):
        for rule in node.get("x-kubernetes-validations", []):
            name = rule["fieldPath"].removeprefix(".")
            field = node["properties"][name]
            assert field["description"] == "Not supported yet."
            assert field["type"] != "array" or "type" in field["items"]
            assert rule["rule"].startswith(f"!has(self.{name})")
            assert rule["message"] == f"{name} is not supported yet"
            refused.add(f"{path}.{name}")
    assert {".configuration.migrations", ".infra"} <= refused
    assert ".configuration.developerConfiguration.logVerbosity.virtHandler" in refused
    unsupported = {
        f"{path}" for path, node in nodes(spec) if node.get("description") == "Not supported yet."
    }
    assert unsupported == refused


def test_settings_that_ask_for_nothing_are_let_through() -> None:
    configuration = dict(schemas())["kubevirts v1"]["properties"]["spec"]["properties"][
        "configuration"
    ]
    rules = {
        rule["fieldPath"]: rule["rule"]
        for _, node in nodes(configuration)
        for rule in node.get("x-kubernetes-validations", [])
    }
    assert rules[".ovmfPath"] == "!has(self.ovmfPath) || size(self.ovmfPath) == 0"
    assert rules[".permitSlirpInterface"].endswith(" || !self.permitSlirpInterface")
    assert rules[".migrations"] == "!has(self.migrations)"


def test_feature_gates_may_be_anything() -> None:
    spec = dict(schemas())["kubevirts v1"]["properties"]["spec"]
    developer = spec["properties"]["configuration"]["properties"]["developerConfiguration"]
    for name in ("featureGates", "disabledFeatureGates"):
        gates = developer["properties"][name]
        assert (gates["type"], gates["items"]) == ("array", {"type": "string"})


def test_only_virtual_machines_need_a_conversion_webhook() -> None:
    strategies = {
        plural: crd["spec"]["conversion"]["strategy"] for plural, crd in all_crds().items()
    }
    assert strategies == {
        "virtualmachines": "Webhook",
        "virtualmachineinstances": "None",
        "virtualmachineinstancereplicasets": "None",
        "virtualmachinepools": "None",
        "virtualmachinesnapshots": "None",
        "virtualmachinesnapshotcontents": "None",
        "virtualmachinerestores": "None",
        "virtualmachineexports": "None",
        "virtualmachineclones": "None",
        "kubevirts": "None",
    }


def test_versions() -> None:
    served = {
        plural: [(v["name"], v["storage"]) for v in crd["spec"]["versions"]]
        for plural, crd in all_crds().items()
    }
    assert served == {
        "virtualmachines": [("v1", True), ("v1alpha3", False), ("v1alpha1", False)],
        "virtualmachineinstances": [("v1", True), ("v1alpha3", False)],
        "virtualmachineinstancereplicasets": [("v1", True), ("v1alpha3", False)],
        "virtualmachinepools": [("v1beta1", True), ("v1alpha1", False)],
        "virtualmachinesnapshots": [("v1beta1", True), ("v1alpha1", False)],
        "virtualmachinesnapshotcontents": [("v1beta1", True), ("v1alpha1", False)],
        "virtualmachinerestores": [("v1beta1", True), ("v1alpha1", False)],
        "virtualmachineexports": [("v1", True), ("v1beta1", False)],
        "virtualmachineclones": [("v1beta1", True), ("v1alpha1", False)],
        "kubevirts": [("v1", True), ("v1alpha3", False)],
    }


def test_instances_can_be_selected_by_node() -> None:
    for version in all_crds()["virtualmachineinstances"]["spec"]["versions"]:
        assert version["selectableFields"] == [{"jsonPath": ".status.nodeName"}]
        assert version["subresources"] == {"status": {}}


@pytest.mark.parametrize(
    ("plural", "expected", "is_fixed"),
    [
        (
            "virtualmachinesnapshots",
            ["SourceKind", "SourceName", "Phase", "ReadyToUse", "CreationTime", "Error"],
            True,
        ),
        ("virtualmachinesnapshotcontents", ["ReadyToUse", "CreationTime", "Error"], False),
        (
            "virtualmachinerestores",
            ["TargetKind", "TargetName", "Complete", "RestoreTime"],
            True,
        ),
    ],
)
def test_snapshots_look_like_kubevirts(plural: str, expected: list[str], is_fixed: bool) -> None:
    definition = all_crds()[plural]
    assert definition["metadata"]["name"] == f"{plural}.snapshot.kubevirt.io"
    assert f"vm{plural.removeprefix('virtualmachine')}" in definition["spec"]["names"]["shortNames"]
    for version in definition["spec"]["versions"]:
        columns = [column["name"] for column in version["additionalPrinterColumns"]]
        assert columns == expected
        spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
        rules = [rule["rule"] for rule in spec.get("x-kubernetes-validations", [])]
        assert rules == (["self == oldSelf"] if is_fixed else [])


def test_exports_look_like_kubevirts() -> None:
    definition = all_crds()["virtualmachineexports"]
    assert definition["metadata"]["name"] == "virtualmachineexports.export.kubevirt.io"
    assert definition["spec"]["names"]["shortNames"] == ["vmexport", "vmexports"]
    new, old = definition["spec"]["versions"]
    assert old["deprecationWarning"].startswith("export.kubevirt.io/v1beta1 is deprecated")
    assert "deprecated" not in new
    for version in (new, old):
        columns = [column["name"] for column in version["additionalPrinterColumns"]]
        assert columns == ["SourceKind", "SourceName", "Phase"]
        spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
        assert spec["x-kubernetes-validations"][0]["rule"] == "self == oldSelf"
        assert version["subresources"] == {"status": {}}


@pytest.mark.parametrize("plural", ["virtualmachineinstancereplicasets", "virtualmachinepools"])
def test_sets_can_be_scaled(plural: str) -> None:
    for version in all_crds()[plural]["spec"]["versions"]:
        assert version["subresources"]["scale"] == {
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.labelSelector",
        }
        spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
        # The API server refuses to scale what does not say how many there shall be.
        assert spec["properties"]["replicas"]["default"] == 1
        columns = [column["name"] for column in version["additionalPrinterColumns"]]
        assert columns == ["Desired", "Current", "Ready", "Age"]
