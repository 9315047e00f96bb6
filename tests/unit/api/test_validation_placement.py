"""Where a machine may run and how it resolves names: what the pod's own validation would refuse is refused here, by path."""

from typing import Any

import pytest
from podvisor_controller.webhooks.validation import validate_virtual_machine

from tests.unit.api.machines import changed
from tests.unit.controller.builders import Json, situations

NODES = "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms"
WISHES = "affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0]"
PODS = "affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0]"
NEAR = "affinity.podAffinity.preferredDuringSchedulingIgnoredDuringExecution[0]"
SPREAD = "topologySpreadConstraints[0]"
EVENLY = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}


def nodes(**requirement: Any) -> Json:
    return node_terms([{"matchExpressions": [requirement]}])


def node_terms(terms: list[Json]) -> Json:
    required = {"nodeSelectorTerms": terms}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}


def wished(weight: int, term: Json) -> Json:
    wishes = [{"weight": weight, "preference": term}]
    return {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": wishes}}


def apart(**term: Any) -> Json:
    terms = [{"topologyKey": "zone"} | term]
    return {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}


def near(weight: int) -> Json:
    terms = [{"weight": weight, "podAffinityTerm": {"topologyKey": "zone"}}]
    return {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": terms}}


@pytest.mark.parametrize(
    ("path", "value", "field", "message"),
    situations(
        ("subdomain of two labels", "subdomain", "a.b", "subdomain", "one label"),
        ("scheduler", "schedulerName", "A B", "schedulerName", "is not the name"),
        ("priority class", "priorityClassName", "_", "priorityClassName", "is not the name"),
        (
            "key of a toleration",
            "tolerations",
            [{"key": "a b", "operator": "Exists"}],
            "tolerations[0].key",
            "is not the key of a taint",
        ),
        (
            "operator of a toleration",
            "tolerations",
            [{"key": "a", "operator": "Is"}],
            "tolerations[0].operator",
            "must be one of: Exists, Equal",
        ),
        (
            "a toleration of everything by value",
            "tolerations",
            [{"value": "x"}],
            "tolerations[0].operator",
            "must be Exists when the key is empty",
        ),
        (
            "a toleration with a value too many",
            "tolerations",
            [{"key": "a", "operator": "Exists", "value": "x"}],
            "tolerations[0].value",
            "must be empty",
        ),
        (
            "value of a toleration",
            "tolerations",
            [{"key": "a", "value": "x y"}],
            "tolerations[0].value",
            "is not the value of a taint",
        ),
        (
            "effect of a toleration",
            "tolerations",
            [{"key": "a", "effect": "Never"}],
            "tolerations[0].effect",
            "must be one of: NoSchedule",
        ),
        (
            "seconds of an effect that has none",
            "tolerations",
            [{"key": "a", "effect": "NoSchedule", "tolerationSeconds": 1}],
            "tolerations[0].effect",
            "must be NoExecute",
        ),
        ("no term", "affinity", node_terms([]), NODES, "at least one"),
        (
            "key of a node's label",
            "affinity",
            nodes(key="a b", operator="Exists"),
            f"{NODES}[0].matchExpressions[0].key",
            "is not the key of a label",
        ),
        (
            "operator",
            "affinity",
            nodes(key="a", operator="Has"),
            f"{NODES}[0].matchExpressions[0].operator",
            "must be one of: In, NotIn",
        ),
        (
            "no value",
            "affinity",
            nodes(key="a", operator="In"),
            f"{NODES}[0].matchExpressions[0].values",
            "must be given for In",
        ),
        (
            "a value too many",
            "affinity",
            nodes(key="a", operator="Exists", values=["x"]),
            f"{NODES}[0].matchExpressions[0].values",
            "must not be given for Exists",
        ),
        (
            "two integers",
            "affinity",
            nodes(key="a", operator="Gt", values=["1", "2"]),
            f"{NODES}[0].matchExpressions[0].values",
            "one integer",
        ),
        (
            "no integer",
            "affinity",
            nodes(key="a", operator="Lt", values=["much"]),
            f"{NODES}[0].matchExpressions[0].values[0]",
            "is no integer",
        ),
        (
            "value of a node's label",
            "affinity",
            nodes(key="a", operator="In", values=["x", "y z"]),
            f"{NODES}[0].matchExpressions[0].values[1]",
            "is not the value of a label",
        ),
        (
            "a field that nodes are not selected by",
            "affinity",
            node_terms([{"matchFields": [{"key": "spec", "operator": "In", "values": ["n"]}]}]),
            f"{NODES}[0].matchFields[0].key",
            "must be metadata.name",
        ),
        (
            "the names of two nodes",
            "affinity",
            wished(
                1,
                {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["a", "b"]}]},
            ),
            f"{WISHES}.preference.matchFields[0].values",
            "the name of one node",
        ),
        (
            "a node by what it is not",
            "affinity",
            wished(1, {"matchFields": [{"key": "metadata.name", "operator": "Exists"}]}),
            f"{WISHES}.preference.matchFields[0].operator",
            "must be one of: In, NotIn",
        ),
        ("weight", "affinity", wished(101, {}), f"{WISHES}.weight", "range 1-100"),
        ("weight of pods", "affinity", near(0), f"{NEAR}.weight", "range 1-100"),
        ("no topology", "affinity", apart(topologyKey=""), f"{PODS}.topologyKey", "must name"),
        (
            "topology",
            "affinity",
            apart(topologyKey="a b"),
            f"{PODS}.topologyKey",
            "is not the key of a label",
        ),
        (
            "pods by a bad label",
            "affinity",
            apart(labelSelector={"matchLabels": {"a": "x y"}}),
            f"{PODS}.labelSelector.matchLabels",
            "is not the value of a label",
        ),
        (
            "pods by a bad requirement",
            "affinity",
            apart(labelSelector={"matchExpressions": [{"key": "a", "operator": "Gt"}]}),
            f"{PODS}.labelSelector.matchExpressions[0].operator",
            "must be one of",
        ),
        (
            "namespaces by a bad requirement",
            "affinity",
            apart(namespaceSelector={"matchExpressions": [{"key": "", "operator": "Exists"}]}),
            f"{PODS}.namespaceSelector.matchExpressions[0].key",
            "is not the key of a label",
        ),
        (
            "namespace",
            "affinity",
            apart(namespaces=["a", "B"]),
            f"{PODS}.namespaces[1]",
            "is not the name of a namespace",
        ),
        (
            "keys without a selector",
            "affinity",
            apart(matchLabelKeys=["a"]),
            f"{PODS}.matchLabelKeys",
            "when labelSelector is not set",
        ),
        (
            "a key of both kinds",
            "affinity",
            apart(labelSelector={}, matchLabelKeys=["a"], mismatchLabelKeys=["a"]),
            f"{PODS}.matchLabelKeys[0]",
            "in mismatchLabelKeys as well",
        ),
        (
            "skew",
            "topologySpreadConstraints",
            [EVENLY | {"maxSkew": 0}],
            f"{SPREAD}.maxSkew",
            "must be greater than 0",
        ),
        (
            "what then",
            "topologySpreadConstraints",
            [EVENLY | {"whenUnsatisfiable": "Cry"}],
            f"{SPREAD}.whenUnsatisfiable",
            "must be one of: DoNotSchedule",
        ),
        (
            "the same twice",
            "topologySpreadConstraints",
            [EVENLY, EVENLY],
            "topologySpreadConstraints[1]",
            "repeats {zone, DoNotSchedule}",
        ),
        (
            "domains",
            "topologySpreadConstraints",
            [EVENLY | {"minDomains": 0}],
            f"{SPREAD}.minDomains",
            "must be greater than 0",
        ),
        (
            "domains of a wish",
            "topologySpreadConstraints",
            [EVENLY | {"whenUnsatisfiable": "ScheduleAnyway", "minDomains": 1}],
            f"{SPREAD}.minDomains",
            "needs whenUnsatisfiable DoNotSchedule",
        ),
        (
            "policy",
            "topologySpreadConstraints",
            [EVENLY | {"nodeTaintsPolicy": "Maybe"}],
            f"{SPREAD}.nodeTaintsPolicy",
            "must be one of: Honor, Ignore",
        ),
        (
            "a key that the selector has",
            "topologySpreadConstraints",
            [EVENLY | {"labelSelector": {"matchLabels": {"a": ""}}, "matchLabelKeys": ["a"]}],
            f"{SPREAD}.matchLabelKeys[0]",
            "is in labelSelector as well",
        ),
        ("policy of names", "dnsPolicy", "Maybe", "dnsPolicy", "must be one of: ClusterFirst"),
        ("no server", "dnsPolicy", "None", "dnsConfig.nameservers", "at least one server"),
        (
            "too many servers",
            "dnsConfig",
            {"nameservers": ["10.0.0.1"] * 4},
            "dnsConfig.nameservers",
            "more than 3",
        ),
        (
            "no address",
            "dnsConfig",
            {"nameservers": ["10.0.0"]},
            "dnsConfig.nameservers[0]",
            "is no IP address",
        ),
        (
            "too many searches",
            "dnsConfig",
            {"searches": ["a"] * 33},
            "dnsConfig.searches",
            "more than 32",
        ),
        (
            "searches too long",
            "dnsConfig",
            {"searches": ["a" * 60] * 31 + [".".join(["b" * 60] * 3)]},
            "dnsConfig.searches",
            "more than 2048 characters",
        ),
        (
            "no name to search",
            "dnsConfig",
            {"searches": ["a b"]},
            "dnsConfig.searches[0]",
            "is no DNS name",
        ),
        (
            "an option of no name",
            "dnsConfig",
            {"options": [{"value": "1"}]},
            "dnsConfig.options[0].name",
            "must not be empty",
        ),
    ),
)
def test_bad_placement(path: str, value: Any, field: str, message: str) -> None:
    [cause] = validate_virtual_machine(changed(path, value))
    assert cause.field == f"spec.template.spec.{field}"
    assert cause.message.startswith(cause.field)
    assert message in cause.message


GOOD_TERM = {
    "matchExpressions": [
        {"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["a", ""]},
        {"key": "cores", "operator": "Gt", "values": ["-4"]},
        {"key": "gpu", "operator": "DoesNotExist"},
    ],
    "matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": ["node1"]}],
}


@pytest.mark.parametrize(
    ("path", "value"),
    situations(
        ("node affinity", "affinity", node_terms([GOOD_TERM])),
        ("a preference", "affinity", wished(100, {})),
        (
            "pods apart",
            "affinity",
            apart(
                labelSelector={"matchLabels": {"app": "db"}},
                namespaces=["shop"],
                namespaceSelector={},
                mismatchLabelKeys=["tenant"],
            ),
        ),
        ("pods near", "affinity", near(1)),
        (
            "spreading",
            "topologySpreadConstraints",
            [
                EVENLY | {"minDomains": 2, "nodeAffinityPolicy": "Ignore", "labelSelector": {}},
                EVENLY | {"whenUnsatisfiable": "ScheduleAnyway"},
            ],
        ),
        ("tolerating everything", "tolerations", [{"operator": "Exists"}]),
        (
            "tolerating for a time",
            "tolerations",
            [{"key": "a.b/c", "value": "x", "effect": "NoExecute", "tolerationSeconds": -1}],
        ),
        (
            "a resolver",
            "dnsConfig",
            {
                "nameservers": ["10.0.0.1", "fd00::1"],
                "searches": ["svc.local", "."],
                "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}],
            },
        ),
        ("the node's resolver", "dnsPolicy", "Default"),
        ("names", "priorityClassName", "system-cluster-critical"),
    ),
)
def test_good_placement(path: str, value: Any) -> None:
    assert validate_virtual_machine(changed(path, value)) == []
