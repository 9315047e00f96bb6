"""Label selectors: what they match, and their text. Pure.

Invariant: a selector that admission would refuse matches nothing, so that nothing is adopted by mistake.
"""

from collections.abc import Iterator, Mapping, Sequence

from podvisor_common.api import v1


def matches(selector: v1.LabelSelector, labels: Mapping[str, str] | None) -> bool:
    """Whether an object with these labels is selected. An empty selector selects nothing."""
    labels = labels or {}
    wanted, requirements = selector.match_labels or {}, selector.match_expressions or []
    if not wanted and not requirements:
        return False
    return all(labels.get(key) == value for key, value in wanted.items()) and all(
        holds(requirement, labels) for requirement in requirements
    )


def text_of(selector: v1.LabelSelector) -> str:
    """The selector as the API server takes it in a query, and as a status shows it: requirements by key."""
    return ",".join(text for _, text in sorted(_requirements(selector)))


def holds(
    requirement: v1.LabelSelectorRequirement | v1.NodeSelectorRequirement, labels: Mapping[str, str]
) -> bool:
    """Whether labels are as one requirement wants them."""
    value = labels.get(requirement.key)
    match requirement.operator:
        case "In":
            return value is not None and value in (requirement.values or ())
        case "NotIn":
            return value is None or value not in (requirement.values or ())
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" | "Lt":
            return _compares(requirement.operator, value, requirement.values or [])
    return False


def _compares(operator: str, value: str | None, values: Sequence[str]) -> bool:
    """The value is a number that is greater, or less, than the one asked for. Only selectors of nodes ask so."""
    try:
        number, (limit,) = int(value or ""), map(int, values)
    except ValueError:
        return False
    return number > limit if operator == "Gt" else number < limit


def _requirements(selector: v1.LabelSelector) -> Iterator[tuple[str, str]]:
    """Each requirement's text after the key it is sorted by."""
    for key, value in (selector.match_labels or {}).items():
        yield key, f"{key}={value}"
    for requirement in selector.match_expressions or ():
        key, values = requirement.key, ",".join(sorted(requirement.values or ()))
        match requirement.operator:
            case "In":
                yield key, f"{key} in ({values})"
            case "NotIn":
                yield key, f"{key} notin ({values})"
            case "Exists":
                yield key, key
            case "DoesNotExist":
                yield key, f"!{key}"
