"""What the webhook configurations cover and, more important, what they must not."""

from typing import Any

import pytest
from podvisor_controller.vmi.pod import launcher_pod_name
from podvisor_controller.webhooks import eviction_review, registration

MUTATING = registration.mutating_configuration("kubevirt", b"CA")
VALIDATING = registration.validating_configuration("kubevirt", b"CA")
EVICTION: dict[str, Any] = VALIDATING["webhooks"][-1]
WEBHOOKS: list[dict[str, Any]] = [*MUTATING["webhooks"], *VALIDATING["webhooks"][:-1]]


@pytest.mark.parametrize("webhook", WEBHOOKS, ids=lambda webhook: webhook["name"])
def test_nothing_stands_in_the_way_of_a_deletion(webhook: dict[str, Any]) -> None:
    for rule in webhook["rules"]:
        assert "DELETE" not in rule["operations"]
        assert not [name for name in rule["resources"] if "/" in name or "*" in name]
        assert "kubevirts" not in rule["resources"]
    conditions = [one["expression"] for one in webhook["matchConditions"]]
    assert "!has(object.metadata.deletionTimestamp)" in conditions


@pytest.mark.parametrize("webhook", WEBHOOKS, ids=lambda webhook: webhook["name"])
def test_every_version_is_judged_in_its_stored_form_or_refused(webhook: dict[str, Any]) -> None:
    assert webhook["matchPolicy"] == "Equivalent"
    assert webhook["failurePolicy"] == "Fail"
    assert webhook["sideEffects"] == "None"
    assert webhook["timeoutSeconds"] == 10
    [rule] = webhook["rules"]
    stored = {
        "kubevirt.io": ["v1"],
        "pool.kubevirt.io": ["v1beta1"],
        "snapshot.kubevirt.io": ["v1beta1"],
        "export.kubevirt.io": ["v1"],
        "clone.kubevirt.io": ["v1beta1"],
    }
    assert [stored[group] for group in rule["apiGroups"]] == [rule["apiVersions"]]
    assert webhook["clientConfig"]["service"]["name"] == "virt-controller"


def test_of_evictions_only_those_of_launcher_pods_are_asked_about() -> None:
    [rule] = EVICTION["rules"]
    assert (rule["apiGroups"], rule["resources"]) == ([""], ["pods/eviction"])
    assert (rule["apiVersions"], rule["operations"]) == (["v1"], ["CREATE"])
    [condition] = EVICTION["matchConditions"]
    assert condition["expression"] == (
        'request.name.startsWith("virt-launcher-") || request.name.startsWith("hp-volume-")'
    )
    assert launcher_pod_name("myvm", "1").startswith("virt-launcher-")
    assert EVICTION["sideEffects"] == "NoneOnDryRun"
    assert EVICTION["failurePolicy"] == "Fail"
    assert EVICTION["clientConfig"]["service"]["path"] == "/pod-eviction-validate"


def test_an_eviction_is_answered_before_the_api_server_gives_up() -> None:
    assert EVICTION["timeoutSeconds"] > eviction_review.ANSWER_WITHIN_S


def test_owner() -> None:
    owner = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "uid": "1"}
    owned = registration.mutating_configuration("kubevirt", b"CA", owner)
    assert owned["metadata"]["ownerReferences"] == [owner]
    assert "ownerReferences" not in MUTATING["metadata"]


def test_is_covered() -> None:
    live = {"a": 1, "b": [{"c": "x", "added": True}], "d": {}}
    assert registration.is_covered({"b": [{"c": "x"}]}, live)
    assert not registration.is_covered({"b": [{"c": "y"}]}, live)
    assert not registration.is_covered({"b": []}, live)
    assert not registration.is_covered({"e": 1}, live)
    assert not registration.is_covered({"a": [1]}, live)
