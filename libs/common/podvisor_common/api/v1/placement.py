"""Where a machine's pod may run and how it resolves names: the parts of a pod's specification that a machine's takes over.

Invariant: the names and meanings are core Kubernetes' own; what is written here reaches the pod unchanged.
"""

from typing import Annotated

from podvisor_common.api.base import ApiStruct, doc


class Toleration(ApiStruct, frozen=True):
    """A taint of nodes that the pod tolerates."""

    key: Annotated[str, doc("Key of the taint; every key when empty.")] = ""
    operator: Annotated[str, doc("`Exists` or `Equal`. `Equal` by default.")] = ""
    value: Annotated[str, doc("Value of the taint.")] = ""
    effect: Annotated[str, doc("Effect of the taint; every effect when empty.")] = ""
    toleration_seconds: Annotated[
        int | None, doc("How long a NoExecute taint is tolerated, in seconds.", format="int64")
    ] = None


class LabelSelectorRequirement(ApiStruct, frozen=True):
    """One requirement on the labels of an object."""

    key: Annotated[str, doc("Key of the label.")]
    operator: Annotated[str, doc("`In`, `NotIn`, `Exists` or `DoesNotExist`.")]
    values: Annotated[
        list[str] | None, doc("Values for `In` and `NotIn`; none for the others.")
    ] = None


class LabelSelector(ApiStruct, frozen=True):
    """Objects by their labels: all requirements must hold."""

    match_labels: Annotated[dict[str, str] | None, doc("Labels that must have these values.")] = (
        None
    )
    match_expressions: Annotated[
        list[LabelSelectorRequirement] | None, doc("Requirements on labels.")
    ] = None


class NodeSelectorRequirement(ApiStruct, frozen=True):
    """One requirement on a label or a field of a node."""

    key: Annotated[str, doc("Key of the label, or the field.")]
    operator: Annotated[str, doc("`In`, `NotIn`, `Exists`, `DoesNotExist`, `Gt` or `Lt`.")]
    values: Annotated[
        list[str] | None, doc("Values for `In` and `NotIn`, one integer for `Gt` and `Lt`.")
    ] = None


class NodeSelectorTerm(ApiStruct, frozen=True):
    """Nodes by their labels and fields: all requirements must hold."""

    match_expressions: Annotated[
        list[NodeSelectorRequirement] | None, doc("Requirements on labels.")
    ] = None
    match_fields: Annotated[
        list[NodeSelectorRequirement] | None, doc("Requirements on `metadata.name`.")
    ] = None


class NodeSelector(ApiStruct, frozen=True):
    """Nodes that one of the terms selects."""

    node_selector_terms: Annotated[list[NodeSelectorTerm], doc("Terms; one must hold.")]


class PreferredSchedulingTerm(ApiStruct, frozen=True):
    """Nodes that are preferred."""

    weight: Annotated[int, doc("How much, from 1 to 100.", format="int32")]
    preference: Annotated[NodeSelectorTerm, doc("Which nodes.")]


class NodeAffinity(ApiStruct, frozen=True):
    """Nodes that the pod needs or prefers."""

    required_during_scheduling_ignored_during_execution: Annotated[
        NodeSelector | None, doc("Nodes the pod may be placed on.")
    ] = None
    preferred_during_scheduling_ignored_during_execution: Annotated[
        list[PreferredSchedulingTerm] | None, doc("Nodes the pod is placed on rather.")
    ] = None


class PodAffinityTerm(ApiStruct, frozen=True):
    """Pods to be near to, or far from."""

    topology_key: Annotated[str, doc("Label of nodes whose equal values mean near.")]
    label_selector: Annotated[LabelSelector | None, doc("Which pods.")] = None
    namespaces: Annotated[list[str] | None, doc("In which namespaces; the pod's by default.")] = (
        None
    )
    namespace_selector: Annotated[LabelSelector | None, doc("In which namespaces, by labels.")] = (
        None
    )
    match_label_keys: Annotated[
        list[str] | None, doc("Labels whose values those pods must share with this one.")
    ] = None
    mismatch_label_keys: Annotated[
        list[str] | None, doc("Labels whose values those pods must not share with this one.")
    ] = None


class WeightedPodAffinityTerm(ApiStruct, frozen=True):
    """Pods that it is preferred to be near to, or far from."""

    weight: Annotated[int, doc("How much, from 1 to 100.", format="int32")]
    pod_affinity_term: Annotated[PodAffinityTerm, doc("Which pods.")]


class PodAffinity(ApiStruct, frozen=True):
    """Pods to be near to; as anti-affinity, to be far from."""

    required_during_scheduling_ignored_during_execution: Annotated[
        list[PodAffinityTerm] | None, doc("What must hold; all terms must.")
    ] = None
    preferred_during_scheduling_ignored_during_execution: Annotated[
        list[WeightedPodAffinityTerm] | None, doc("What is preferred.")
    ] = None


class Affinity(ApiStruct, frozen=True):
    """What draws the pod to nodes and to other pods, or away from them."""

    node_affinity: Annotated[NodeAffinity | None, doc("Nodes it is drawn to.")] = None
    pod_affinity: Annotated[PodAffinity | None, doc("Pods it is drawn to.")] = None
    pod_anti_affinity: Annotated[PodAffinity | None, doc("Pods it keeps away from.")] = None


class TopologySpreadConstraint(ApiStruct, frozen=True):
    """How evenly pods spread over a topology."""

    max_skew: Annotated[int, doc("How uneven at most, 1 or more.", format="int32")]
    topology_key: Annotated[str, doc("Label of nodes whose values are the domains.")]
    when_unsatisfiable: Annotated[str, doc("`DoNotSchedule` or `ScheduleAnyway`.")]
    label_selector: Annotated[LabelSelector | None, doc("Which pods are counted.")] = None
    min_domains: Annotated[int | None, doc("Domains there must be at least.", format="int32")] = (
        None
    )
    node_affinity_policy: Annotated[
        str, doc("Whether nodes outside the affinity count: `Honor` or `Ignore`.")
    ] = ""
    node_taints_policy: Annotated[
        str, doc("Whether nodes with taints count: `Honor` or `Ignore`.")
    ] = ""
    match_label_keys: Annotated[
        list[str] | None, doc("Labels whose values counted pods must share with this one.")
    ] = None


class PodDNSConfigOption(ApiStruct, frozen=True):
    """An option of the resolver."""

    name: Annotated[str, doc("Name of the option, for example `ndots`.")] = ""
    value: Annotated[str | None, doc("Its value, if it has one.")] = None


class PodDNSConfig(ApiStruct, frozen=True):
    """Settings of the resolver, added to those of the DNS policy."""

    nameservers: Annotated[list[str] | None, doc("Addresses of DNS servers, at most 3.")] = None
    searches: Annotated[
        list[str] | None, doc("Search domains, at most 32 and 2048 characters in all.")
    ] = None
    options: Annotated[list[PodDNSConfigOption] | None, doc("Options of the resolver.")] = None
