"""What is wrong with where a machine's pod may run and how it resolves names. Pure.

Invariant: what passes here passes the API server's own check of the pod, so that no machine is admitted whose pod is
refused for a reason that was in the manifest.
"""

import ipaddress
from collections.abc import Iterator, Sequence

from podvisor_common.api import v1

from podvisor_controller.webhooks.validation_fields import (
    Cause,
    CauseReason,
    invalid,
    is_dns_label,
    is_dns_subdomain,
    is_label_key,
    is_label_value,
    label_causes,
    quoted,
)
from podvisor_controller.webhooks.validation_selectors import (
    label_selector_causes,
    node_selector_term_causes,
)

_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_DNS_POLICIES = ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None")
_MAX_NAMESERVERS = 3
_MAX_SEARCHES = 32
_MAX_SEARCH_CHARACTERS = 2048
_MOST_INT32 = 2**31 - 1


def placement_causes(spec: v1.VirtualMachineInstanceSpec, path: str) -> Iterator[Cause]:
    """Checks names, node selector, tolerations, affinity, spreading and the resolver's settings."""
    if spec.hostname and not is_dns_label(spec.hostname):
        yield invalid(
            f"{path}.hostname",
            f"{quoted(spec.hostname)} does not conform to the DNS-1123 label rules.",
        )
    if spec.subdomain and not is_dns_label(spec.subdomain):
        # A pod's subdomain is a single label, whatever its name says.
        yield invalid(
            f"{path}.subdomain",
            f"{quoted(spec.subdomain)} does not conform to the DNS-1123 subdomain rules of a pod: it must be one label.",
        )
    for name, value in (
        ("schedulerName", spec.scheduler_name),
        ("priorityClassName", spec.priority_class_name),
    ):
        if value and not is_dns_subdomain(value):
            yield invalid(f"{path}.{name}", f"{quoted(value)} is not the name of an object.")
    yield from label_causes(spec.node_selector or {}, f"{path}.nodeSelector")
    for index, toleration in enumerate(spec.tolerations or ()):
        yield from _toleration_causes(toleration, f"{path}.tolerations[{index}]")
    if spec.affinity is not None:
        yield from _affinity_causes(spec.affinity, f"{path}.affinity")
    yield from _spread_causes(
        spec.topology_spread_constraints or (), f"{path}.topologySpreadConstraints"
    )
    yield from _dns_causes(spec, path)


def one_of(field: str, value: str, allowed: Sequence[str]) -> Iterator[Cause]:
    """A cause when a value is none of those allowed."""
    if value not in allowed:
        text = f"{quoted(value)} is not supported, must be one of: {', '.join(allowed)}"
        yield invalid(field, text, CauseReason.NOT_SUPPORTED)


def _toleration_causes(toleration: v1.Toleration, field: str) -> Iterator[Cause]:
    if toleration.key and not is_label_key(toleration.key):
        yield invalid(f"{field}.key", f"{quoted(toleration.key)} is not the key of a taint.")
    operator = toleration.operator or "Equal"
    yield from one_of(f"{field}.operator", operator, ("Exists", "Equal"))
    if not toleration.key and operator != "Exists":
        yield invalid(f"{field}.operator", "must be Exists when the key is empty.")
    if operator == "Exists" and toleration.value:
        yield invalid(f"{field}.value", "must be empty when the operator is Exists.")
    elif not is_label_value(toleration.value):
        yield invalid(f"{field}.value", f"{quoted(toleration.value)} is not the value of a taint.")
    if toleration.effect:
        yield from one_of(f"{field}.effect", toleration.effect, _EFFECTS)
    if toleration.toleration_seconds is not None and toleration.effect not in ("", "NoExecute"):
        yield invalid(f"{field}.effect", "must be NoExecute when tolerationSeconds is set.")


def _affinity_causes(affinity: v1.Affinity, field: str) -> Iterator[Cause]:
    if affinity.node_affinity is not None:
        yield from _node_affinity_causes(affinity.node_affinity, f"{field}.nodeAffinity")
    if affinity.pod_affinity is not None:
        yield from _pod_affinity_causes(affinity.pod_affinity, f"{field}.podAffinity")
    if affinity.pod_anti_affinity is not None:
        yield from _pod_affinity_causes(affinity.pod_anti_affinity, f"{field}.podAntiAffinity")


def _node_affinity_causes(affinity: v1.NodeAffinity, field: str) -> Iterator[Cause]:
    required = affinity.required_during_scheduling_ignored_during_execution
    if required is not None:
        base = f"{field}.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms"
        if not required.node_selector_terms:
            yield invalid(base, "must have at least one node selector term", CauseReason.REQUIRED)
        for index, term in enumerate(required.node_selector_terms):
            yield from node_selector_term_causes(term, f"{base}[{index}]")
    base = f"{field}.preferredDuringSchedulingIgnoredDuringExecution"
    preferred = affinity.preferred_during_scheduling_ignored_during_execution or ()
    for index, wish in enumerate(preferred):
        yield from _weight_causes(wish.weight, f"{base}[{index}].weight")
        yield from node_selector_term_causes(wish.preference, f"{base}[{index}].preference")


def _pod_affinity_causes(affinity: v1.PodAffinity, field: str) -> Iterator[Cause]:
    base = f"{field}.requiredDuringSchedulingIgnoredDuringExecution"
    required = affinity.required_during_scheduling_ignored_during_execution or ()
    for index, term in enumerate(required):
        yield from _pod_term_causes(term, f"{base}[{index}]")
    base = f"{field}.preferredDuringSchedulingIgnoredDuringExecution"
    preferred = affinity.preferred_during_scheduling_ignored_during_execution or ()
    for index, wish in enumerate(preferred):
        yield from _weight_causes(wish.weight, f"{base}[{index}].weight")
        yield from _pod_term_causes(wish.pod_affinity_term, f"{base}[{index}].podAffinityTerm")


def _weight_causes(weight: int, field: str) -> Iterator[Cause]:
    if not 1 <= weight <= 100:
        yield invalid(field, f"{weight} must be in the range 1-100.")


def _pod_term_causes(term: v1.PodAffinityTerm, field: str) -> Iterator[Cause]:
    yield from _topology_key_causes(term.topology_key, f"{field}.topologyKey")
    if term.label_selector is not None:
        yield from label_selector_causes(term.label_selector, f"{field}.labelSelector")
    if term.namespace_selector is not None:
        yield from label_selector_causes(term.namespace_selector, f"{field}.namespaceSelector")
    for index, namespace in enumerate(term.namespaces or ()):
        if not is_dns_label(namespace):
            text = f"{quoted(namespace)} is not the name of a namespace."
            yield invalid(f"{field}.namespaces[{index}]", text)
    match, mismatch = term.match_label_keys or [], term.mismatch_label_keys or []
    yield from _label_keys_causes(match, term.label_selector, f"{field}.matchLabelKeys")
    yield from _label_keys_causes(mismatch, term.label_selector, f"{field}.mismatchLabelKeys")
    for index, key in enumerate(match):
        if key in mismatch:
            text = f"{quoted(key)} is in mismatchLabelKeys as well."
            yield invalid(f"{field}.matchLabelKeys[{index}]", text)


def _topology_key_causes(key: str, field: str) -> Iterator[Cause]:
    if not key:
        text = "is empty: it must name a label of nodes."
        yield invalid(field, text, CauseReason.REQUIRED)
    elif not is_label_key(key):
        yield invalid(field, f"{quoted(key)} is not the key of a label.")


def _label_keys_causes(
    keys: Sequence[str], selector: v1.LabelSelector | None, field: str
) -> Iterator[Cause]:
    """Keys are valid, refine a selector, and are not in it already."""
    if keys and selector is None:
        yield invalid(field, "must not be specified when labelSelector is not set")
        return
    taken = {requirement.key for requirement in (selector and selector.match_expressions) or ()}
    taken |= set((selector and selector.match_labels) or ())
    for index, key in enumerate(keys):
        if not is_label_key(key):
            yield invalid(f"{field}[{index}]", f"{quoted(key)} is not the key of a label.")
        elif key in taken:
            yield invalid(f"{field}[{index}]", f"{quoted(key)} is in labelSelector as well.")


def _spread_causes(
    constraints: Sequence[v1.TopologySpreadConstraint], base: str
) -> Iterator[Cause]:
    seen: set[tuple[str, str]] = set()
    for index, constraint in enumerate(constraints):
        field = f"{base}[{index}]"
        if not 1 <= constraint.max_skew <= _MOST_INT32:
            yield invalid(f"{field}.maxSkew", "must be greater than 0.")
        yield from _topology_key_causes(constraint.topology_key, f"{field}.topologyKey")
        when = constraint.when_unsatisfiable
        yield from one_of(f"{field}.whenUnsatisfiable", when, ("DoNotSchedule", "ScheduleAnyway"))
        if (constraint.topology_key, when) in seen:
            text = f"repeats {{{constraint.topology_key}, {when}}}."
            yield invalid(field, text, CauseReason.DUPLICATE)
        seen.add((constraint.topology_key, when))
        if constraint.min_domains is not None:
            if not 1 <= constraint.min_domains <= _MOST_INT32:
                yield invalid(f"{field}.minDomains", "must be greater than 0.")
            if when != "DoNotSchedule":
                yield invalid(f"{field}.minDomains", "needs whenUnsatisfiable DoNotSchedule.")
        for name, policy in (
            ("nodeAffinityPolicy", constraint.node_affinity_policy),
            ("nodeTaintsPolicy", constraint.node_taints_policy),
        ):
            if policy:
                yield from one_of(f"{field}.{name}", policy, ("Honor", "Ignore"))
        selector, keys = constraint.label_selector, constraint.match_label_keys or []
        if selector is not None:
            yield from label_selector_causes(selector, f"{field}.labelSelector")
        yield from _label_keys_causes(keys, selector, f"{field}.matchLabelKeys")


def _dns_causes(spec: v1.VirtualMachineInstanceSpec, path: str) -> Iterator[Cause]:
    if spec.dns_policy:
        yield from one_of(f"{path}.dnsPolicy", spec.dns_policy, _DNS_POLICIES)
    config, field = spec.dns_config or v1.PodDNSConfig(), f"{path}.dnsConfig"
    servers, searches = config.nameservers or [], config.searches or []
    if spec.dns_policy == "None" and not servers:
        text = "must name at least one server when dnsPolicy is None."
        yield invalid(f"{field}.nameservers", text, CauseReason.REQUIRED)
    if len(servers) > _MAX_NAMESERVERS:
        text = f"must not have more than {_MAX_NAMESERVERS} nameservers."
        yield invalid(f"{field}.nameservers", text)
    for index, server in enumerate(servers):
        if not _is_address(server):
            yield invalid(f"{field}.nameservers[{index}]", f"{quoted(server)} is no IP address.")
    if len(searches) > _MAX_SEARCHES:
        text = f"must not have more than {_MAX_SEARCHES} search paths."
        yield invalid(f"{field}.searches", text)
    if len(" ".join(searches)) > _MAX_SEARCH_CHARACTERS:
        text = f"must not have more than {_MAX_SEARCH_CHARACTERS} characters, spaces included."
        yield invalid(f"{field}.searches", text)
    for index, search in enumerate(searches):
        if not is_dns_subdomain(search.removesuffix(".")) and search != ".":
            yield invalid(f"{field}.searches[{index}]", f"{quoted(search)} is no DNS name.")
    for index, option in enumerate(config.options or ()):
        if not option.name:
            text = "must not be empty."
            yield invalid(f"{field}.options[{index}].name", text, CauseReason.REQUIRED)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text
