"""Why pools are refused: every cause names the path a user wrote."""

import copy
from typing import Any

import pytest
from podvisor_controller.webhooks.validation import warnings_of
from podvisor_controller.webhooks.validation_pools import validate_virtual_machine_pool

from tests.unit.api.machines import Json, machine

TEMPLATE = "spec.virtualMachineTemplate"


def pool(**spec: Any) -> Json:
    """A good pool with parts of its specification replaced, or left out when they are None."""
    template = {"metadata": {"labels": {"app": "web"}}, "spec": machine()["spec"]}
    given = {
        "replicas": 3,
        "selector": {"matchLabels": {"app": "web"}},
        "virtualMachineTemplate": template,
    } | spec
    return {
        "apiVersion": "pool.kubevirt.io/v1beta1",
        "kind": "VirtualMachinePool",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {key: value for key, value in given.items() if value is not None},
    }


def template(**changes: Any) -> Json:
    """A template whose machine has other values at the top of its specification."""
    given: Json = pool()["spec"]["virtualMachineTemplate"]
    return given | {"spec": machine()["spec"] | changes}


def scale_in(**proactive: Any) -> Json:
    return {"scaleInStrategy": {"proactive": proactive}}


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"maxUnavailable": 1},
        {"maxUnavailable": "100%"},
        {"updateStrategy": {"opportunistic": {}}, "scaleInStrategy": {"unmanaged": {}}},
        scale_in(statePreservation="Offline", selectionPolicy={"sortPolicy": "Newest"}),
        {"autohealing": {"startUpFailureThreshold": 1, "minFailingToStartDuration": "1h30m"}},
        {"nameGeneration": {"appendIndexToSecretRefs": True, "appendIndexToConfigMapRefs": True}},
    ],
)
def test_good_pools(spec: Json) -> None:
    assert validate_virtual_machine_pool(pool(**spec)) == []


@pytest.mark.parametrize(
    ("spec", "field", "message"),
    [
        ({"selector": None}, "spec", "missing required field `selector`"),
        ({"virtualMachineTemplate": None}, "spec", "missing required field"),
        ({"selector": {}}, "spec.selector", "must name at least one requirement"),
        (
            {"selector": {"matchLabels": {"app": "other"}}},
            "spec.selector",
            f"{TEMPLATE}.metadata.labels must match it",
        ),
        (
            {"selector": {"matchLabels": {"kubevirt.io/vm-pool-revision-name": "web-1"}}},
            "spec.selector",
            "labels that podvisor changes",
        ),
        ({"replicas": -1}, "spec.replicas", "must be between 0"),
        ({"maxUnavailable": 0}, "spec.maxUnavailable", "'0' must be an integer greater than 0"),
        ({"maxUnavailable": "0%"}, "spec.maxUnavailable", "from 1% to 100%"),
        ({"maxUnavailable": "101%"}, "spec.maxUnavailable", "from 1% to 100%"),
        ({"maxUnavailable": "2"}, "spec.maxUnavailable", "from 1% to 100%"),
        (
            {"updateStrategy": {"opportunistic": {}, "proactive": {}}},
            "spec.updateStrategy",
            "must name one strategy, not 2: proactive, opportunistic",
        ),
        (
            {"scaleInStrategy": {"unmanaged": {}, "proactive": {}}},
            "spec.scaleInStrategy",
            "must name one strategy",
        ),
        (
            scale_in(statePreservation="Online"),
            "spec.scaleInStrategy.proactive.statePreservation",
            "Online is not supported yet",
        ),
        (
            scale_in(statePreservation="Never"),
            "spec.scaleInStrategy.proactive.statePreservation",
            "must be one of: Disabled, Offline",
        ),
        (
            scale_in(selectionPolicy={"sortPolicy": "Biggest"}),
            "spec.scaleInStrategy.proactive.selectionPolicy.sortPolicy",
            "'Biggest' must be one of: AscendingOrder",
        ),
        (
            scale_in(
                selectionPolicy={"selectors": {"labelSelector": {"matchLabels": {"a b": ""}}}}
            ),
            "spec.scaleInStrategy.proactive.selectionPolicy.selectors.labelSelector.matchLabels",
            "is not the key of a label",
        ),
        (
            {
                "updateStrategy": {
                    "proactive": {
                        "selectionPolicy": {
                            "selectors": {
                                "nodeSelectorRequirementMatcher": [
                                    {"key": "zone", "operator": "Gt", "values": ["x"]}
                                ]
                            }
                        }
                    }
                }
            },
            "spec.updateStrategy.proactive.selectionPolicy.selectors"
            ".nodeSelectorRequirementMatcher[0].values[0]",
            "'x' is no integer",
        ),
        (
            {"autohealing": {"startUpFailureThreshold": 0}},
            "spec.autohealing.startUpFailureThreshold",
            "must be greater than 0",
        ),
        (
            {"autohealing": {"minFailingToStartDuration": "soon"}},
            "spec.autohealing.minFailingToStartDuration",
            "'soon' is no duration such as 90s",
        ),
        (
            {"virtualMachineTemplate": template(runStrategy="Sometimes")},
            f"{TEMPLATE}.spec.runStrategy",
            "Invalid RunStrategy ('Sometimes')",
        ),
        (
            {"virtualMachineTemplate": template(dataVolumeTemplates=[{}])},
            f"{TEMPLATE}.spec.dataVolumeTemplates",
            "is not supported yet",
        ),
    ],
)
def test_bad_pools(spec: Json, field: str, message: str) -> None:
    [cause] = validate_virtual_machine_pool(pool(**spec))
    assert cause.field == field
    assert message in cause.message


def test_the_template_is_judged_as_a_machine_under_its_own_path() -> None:
    obj = pool()
    spec = obj["spec"]["virtualMachineTemplate"]["spec"]["template"]["spec"]
    spec["domain"]["devices"]["gpus"] = [{}]
    spec["domain"]["devices"]["disks"][1]["name"] = "nowhere"
    obj["spec"]["virtualMachineTemplate"]["spec"]["template"]["metadata"] = {
        "labels": {"kubevirt.io/nodeName": "n1"}
    }
    causes = validate_virtual_machine_pool(obj)
    inside = f"{TEMPLATE}.spec.template"
    assert {cause.field for cause in causes} >= {
        f"{inside}.spec.domain.devices.gpus",
        f"{inside}.spec.domain.devices.disks[1].name",
        f"{inside}.metadata.labels",
    }
    assert all(cause.message.startswith(inside) for cause in causes)


def test_the_selector_cannot_be_changed() -> None:
    old = pool()
    new = pool(selector={"matchExpressions": [{"key": "app", "operator": "Exists"}]})
    [cause] = validate_virtual_machine_pool(new, old)
    assert cause.field == "spec.selector"
    assert "immutable" in cause.message


@pytest.mark.parametrize(
    ("length", "replicas", "fits"), [(61, 10, True), (61, 11, False), (62, 1, False)]
)
def test_the_name_has_to_leave_room_for_the_index(length: int, replicas: int, fits: bool) -> None:
    obj = pool(replicas=replicas)
    obj["metadata"]["name"] = "x" * length
    causes = validate_virtual_machine_pool(obj)
    assert [cause.field for cause in causes] == ([] if fits else ["metadata.name"])


def test_what_was_admitted_once_can_be_labelled_and_deleted() -> None:
    old = pool(maxUnavailable=0)
    new = copy.deepcopy(old)
    new["metadata"]["labels"] = {"a": "b"}
    assert validate_virtual_machine_pool(new, old) == []


def test_warnings_name_the_path_in_the_pool() -> None:
    obj = pool(virtualMachineTemplate=template(running=True, runStrategy=""))
    deprecated, clear_text = warnings_of(obj)
    assert deprecated.startswith(f"{TEMPLATE}.spec.running is deprecated")
    assert clear_text.startswith(
        f"{TEMPLATE}.spec.template.spec.volumes[1].cloudInitNoCloud.userData"
    )
