"""Validation of sets at admission: what they select, and what they are made of. Pure.

Invariant: a set that is admitted selects what it makes, for otherwise it would make more and more of it.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import msgspec
from podvisor_common.api import v1
from podvisor_common.api.v1 import names

from podvisor_controller.sets.selectors import matches
from podvisor_controller.webhooks.permitted import BY_DEFAULT, Permitted
from podvisor_controller.webhooks.validation_fields import Cause, CauseReason, invalid
from podvisor_controller.webhooks.validation_selectors import label_selector_causes
from podvisor_controller.webhooks.validation_template import (
    decoding_cause,
    template_causes,
)
from podvisor_controller.webhooks.validation_updates import update_causes

Raw = Mapping[str, Any]

_REPLICAS_LIMIT = 2**31
_CHANGING_LABELS = names.RESERVED_LABELS | {names.POOL_REVISION_LABEL}


def validate_replica_set(
    obj: Raw, old: Raw | None = None, *, permitted: Permitted = BY_DEFAULT
) -> list[Cause]:
    """Why a VirtualMachineInstanceReplicaSet is refused; empty when it is not. `old` is what an update replaces."""
    causes_of = partial(_own_causes, permitted=permitted)
    return causes_of(obj) if old is None else update_causes(obj, old, causes_of)


def _own_causes(obj: Raw, permitted: Permitted) -> list[Cause]:
    """What is wrong with a replica set by itself."""
    spec = obj.get("spec")
    missing = list(missing_causes(spec))
    if missing or not isinstance(spec, Mapping):
        return missing
    try:
        replica_set = msgspec.convert(obj, v1.VirtualMachineInstanceReplicaSet)
    except msgspec.ValidationError as error:
        return [decoding_cause(error)]
    template = replica_set.spec.template
    labels = (template.metadata.labels if template.metadata else None) or {}
    return [
        *replicas_causes(replica_set.spec.replicas),
        *selector_causes(replica_set.spec.selector, labels),
        *template_causes(template, spec["template"], "spec.template", permitted),
    ]


def missing_causes(spec: Any) -> Iterator[Cause]:
    """A set without a template or without a selector. What there is of either must decode as well."""
    spec = spec if isinstance(spec, Mapping) else {}
    if spec.get("template") is None:
        yield Cause("spec.template", "missing virtual machine template.", CauseReason.REQUIRED)
    if spec.get("selector") is None:
        yield Cause("spec.selector", "missing selector.", CauseReason.REQUIRED)


def replicas_causes(replicas: int) -> Iterator[Cause]:
    """A number of members that no set can have."""
    if not 0 <= replicas < _REPLICAS_LIMIT:
        yield invalid("spec.replicas", f"must be between 0 and {_REPLICAS_LIMIT - 1}.")


def selector_causes(
    selector: v1.LabelSelector, labels: Mapping[str, str], *, template: str = "spec.template"
) -> list[Cause]:
    """Whether a selector can be one, selects what has `labels`, those of the template, and goes on to do so."""
    if not selector.match_labels and not selector.match_expressions:
        text = "must name at least one requirement, for an empty selector is every object's."
        return [invalid("spec.selector", text, CauseReason.REQUIRED)]
    causes = list(label_selector_causes(selector, "spec.selector"))
    keys = {requirement.key for requirement in selector.match_expressions or ()}
    keys |= (selector.match_labels or {}).keys()
    if changing := sorted(keys & _CHANGING_LABELS):
        text = f"holds {', '.join(changing)}: labels that podvisor changes select nothing for long."
        causes.append(invalid("spec.selector", text, CauseReason.NOT_SUPPORTED))
    if not causes and not matches(selector, labels):
        text = f"does not select what is made: {template}.metadata.labels must match it."
        causes.append(invalid("spec.selector", text))
    return causes
