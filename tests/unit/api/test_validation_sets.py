"""What admission refuses of sets."""

import copy
from typing import Any

import pytest
from podvisor_controller.webhooks.validation import warnings_of
from podvisor_controller.webhooks.validation_sets import validate_replica_set

from tests.unit.api.machines import Json, changed, machine

LABELS = "spec.template.metadata.labels"


def replica_set(base: Json | None = None, **spec: Any) -> Json:
    """A good set, with fields of its specification replaced; None takes one away."""
    template = (base or machine())["spec"]["template"]
    fields = {
        "replicas": 3,
        "selector": {"matchLabels": {"app": "web"}},
        "template": template,
    } | spec
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstanceReplicaSet",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {key: value for key, value in fields.items() if value is not None},
    }


def expressions(*requirements: Json) -> Json:
    return {"matchExpressions": list(requirements)}


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"replicas": None},
        {"replicas": 0},
        {"selector": expressions({"key": "app", "operator": "In", "values": ["web", "db"]})},
        {"selector": expressions({"key": "tier", "operator": "DoesNotExist"})},
    ],
)
def test_good_set_is_admitted(spec: Json) -> None:
    assert validate_replica_set(replica_set(**spec)) == []


@pytest.mark.parametrize(
    ("spec", "field", "message"),
    [
        ({"template": None}, "spec.template", "missing virtual machine template."),
        ({"selector": None}, "spec.selector", "missing selector."),
        ({"replicas": -1}, "spec.replicas", "must be between 0 and 2147483647."),
        ({"replicas": 2**31}, "spec.replicas", "must be between 0 and 2147483647."),
        ({"selector": {}}, "spec.selector", "must name at least one requirement"),
        ({"selector": {"matchLabels": {"app": "db"}}}, "spec.selector", LABELS),
        (
            {"selector": {"matchLabels": {"app": "web", "tier": "x"}}},
            "spec.selector",
            f"spec.selector does not select what is made: {LABELS} must match it.",
        ),
        (
            {"selector": expressions({"key": "app", "operator": "NotIn", "values": ["web"]})},
            "spec.selector",
            LABELS,
        ),
        (
            {"selector": expressions({"key": "app", "operator": "Like", "values": ["w"]})},
            "spec.selector.matchExpressions[0].operator",
            "'Like' is not supported",
        ),
        (
            {"selector": expressions({"key": "kubevirt.io/nodeName", "operator": "DoesNotExist"})},
            "spec.selector",
            "holds kubevirt.io/nodeName: labels that podvisor changes",
        ),
        ({"selector": {"matchLabels": {"app": 1}}}, "spec.selector.matchLabels[...]", "str"),
    ],
)
def test_bad_set(spec: Json, field: str, message: str) -> None:
    [cause] = validate_replica_set(replica_set(**spec))
    assert cause.field == field
    assert message in cause.message


def test_without_labels_nothing_is_selected() -> None:
    template = machine()["spec"]["template"]
    [cause] = validate_replica_set(replica_set(template={"spec": template["spec"]}))
    assert cause.field == "spec.selector"


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("domain/devices/disks/0/name", "ghost", "domain.devices.disks[0].name"),
        ("domain/resources/requests/memory", "0", "domain.resources.requests.memory"),
        ("livenessProbe", {}, "livenessProbe"),
    ],
)
def test_the_template_is_judged_as_a_machines(path: str, value: Any, field: str) -> None:
    causes = validate_replica_set(replica_set(changed(path, value)))
    assert f"spec.template.spec.{field}" in [cause.field for cause in causes]


def test_reserved_labels_are_refused_in_the_template() -> None:
    obj = replica_set()
    obj["spec"]["template"]["metadata"]["labels"]["kubevirt.io/nodeName"] = "n1"
    [cause] = validate_replica_set(obj)
    assert cause.field == LABELS


def test_an_update_is_judged_where_it_changes_something() -> None:
    bad = replica_set(selector={"matchLabels": {"app": "db"}})
    labelled = copy.deepcopy(bad)
    labelled["metadata"]["labels"] = {"x": "y"}
    assert validate_replica_set(labelled, bad) == []
    assert validate_replica_set(bad, replica_set())


def test_clear_text_in_the_template_earns_a_warning() -> None:
    [warning] = warnings_of(replica_set())
    assert warning.startswith("spec.template.spec.volumes[1].cloudInitNoCloud.userData")
