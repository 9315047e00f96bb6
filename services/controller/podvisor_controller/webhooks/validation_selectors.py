"""What is wrong with a selector of objects by labels, or of nodes by labels and fields. Pure; as Kubernetes itself judges."""

import re
from collections.abc import Iterator, Sequence

from podvisor_common.api import v1

from podvisor_controller.webhooks.validation_fields import (
    Cause,
    CauseReason,
    invalid,
    is_dns_subdomain,
    is_label_key,
    is_label_value,
    label_causes,
    quoted,
)

_LABEL_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")
_NODE_OPERATORS = (*_LABEL_OPERATORS, "Gt", "Lt")
_NODE_NAME = "metadata.name"
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")


def label_selector_causes(selector: v1.LabelSelector, field: str) -> Iterator[Cause]:
    """Checks the labels and the requirements of a selector."""
    yield from label_causes(selector.match_labels or {}, f"{field}.matchLabels")
    for index, requirement in enumerate(selector.match_expressions or ()):
        where = f"{field}.matchExpressions[{index}]"
        operator, values = requirement.operator, requirement.values or []
        if not is_label_key(requirement.key):
            text = f"{quoted(requirement.key)} is not the key of a label."
            yield invalid(f"{where}.key", text)
        yield from _operator_causes(operator, values, _LABEL_OPERATORS, where)
        yield from _value_causes(values, where)


def node_selector_term_causes(term: v1.NodeSelectorTerm, field: str) -> Iterator[Cause]:
    """Checks the requirements of a term on labels and on the name of a node."""
    for index, requirement in enumerate(term.match_expressions or ()):
        yield from node_requirement_causes(requirement, f"{field}.matchExpressions[{index}]")
    for index, requirement in enumerate(term.match_fields or ()):
        where = f"{field}.matchFields[{index}]"
        operator, values = requirement.operator, requirement.values or []
        if requirement.key != _NODE_NAME:
            text = f"{quoted(requirement.key)} is not supported, must be {_NODE_NAME}"
            yield invalid(f"{where}.key", text, CauseReason.NOT_SUPPORTED)
        if operator not in ("In", "NotIn"):
            text = f"{quoted(operator)} is not supported, must be one of: In, NotIn"
            yield invalid(f"{where}.operator", text, CauseReason.NOT_SUPPORTED)
        elif len(values) != 1 or not is_dns_subdomain(values[0]):
            yield invalid(f"{where}.values", "must be the name of one node.")


def node_requirement_causes(requirement: v1.NodeSelectorRequirement, where: str) -> Iterator[Cause]:
    """Checks one requirement on the labels of a node."""
    operator, values = requirement.operator, requirement.values or []
    if not is_label_key(requirement.key):
        text = f"{quoted(requirement.key)} is not the key of a label."
        yield invalid(f"{where}.key", text)
    yield from _operator_causes(operator, values, _NODE_OPERATORS, where)
    if operator in ("Gt", "Lt") and values and not _INTEGER.fullmatch(values[0]):
        yield invalid(f"{where}.values[0]", f"{quoted(values[0])} is no integer.")
    elif operator not in ("Gt", "Lt"):
        yield from _value_causes(values, where)


def _operator_causes(
    operator: str, values: Sequence[str], allowed: Sequence[str], where: str
) -> Iterator[Cause]:
    """The operator is known, and has as many values as it takes."""
    if operator not in allowed:
        text = f"{quoted(operator)} is not supported, must be one of: {', '.join(allowed)}"
        yield invalid(f"{where}.operator", text, CauseReason.NOT_SUPPORTED)
    elif operator in ("In", "NotIn") and not values:
        yield invalid(f"{where}.values", f"must be given for {operator}.", CauseReason.REQUIRED)
    elif operator in ("Exists", "DoesNotExist") and values:
        yield invalid(f"{where}.values", f"must not be given for {operator}.")
    elif operator in ("Gt", "Lt") and len(values) != 1:
        yield invalid(f"{where}.values", f"must be one integer for {operator}.")


def _value_causes(values: Sequence[str], where: str) -> Iterator[Cause]:
    for index, value in enumerate(values):
        if not is_label_value(value):
            text = f"{quoted(value)} is not the value of a label."
            yield invalid(f"{where}.values[{index}]", text)
