"""Validation of VirtualMachinePools at admission, on the v1beta1 form.

Invariant: pure; the template is judged by the rules of a VirtualMachine, under its path in the pool, so that no machine of an admitted
pool is refused for what its template says. An update is never refused for what was so before.
"""

import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import msgspec
from podvisor_common.api import pool
from podvisor_common.api.duration import DurationError, parse_duration
from podvisor_common.api.pool import VirtualMachinePool, VirtualMachinePoolSpec
from podvisor_common.api.v1 import names

from podvisor_controller.webhooks.permitted import BY_DEFAULT, Permitted
from podvisor_controller.webhooks.validation import MAX_NAME_LENGTH, machine_causes
from podvisor_controller.webhooks.validation_fields import (
    Cause,
    CauseReason,
    invalid,
    label_causes,
    quoted,
    unsupported,
)
from podvisor_controller.webhooks.validation_selectors import (
    label_selector_causes,
    node_requirement_causes,
)
from podvisor_controller.webhooks.validation_sets import replicas_causes, selector_causes
from podvisor_controller.webhooks.validation_template import (
    annotation_causes,
    decoding_cause,
)
from podvisor_controller.webhooks.validation_updates import update_causes

Raw = Mapping[str, Any]

_PERCENTAGE = re.compile(r"(100|[1-9][0-9]?)%")
_TEMPLATE = "spec.virtualMachineTemplate"


def validate_virtual_machine_pool(
    obj: Raw, old: Raw | None = None, *, permitted: Permitted = BY_DEFAULT
) -> list[Cause]:
    """Why a pool is refused; empty when it is not. `old` is what an update replaces."""
    causes_of = partial(_own_causes, permitted=permitted)
    if old is None:
        return causes_of(obj)
    causes = update_causes(obj, old, causes_of)
    if _selector_of(obj) == _selector_of(old):
        return causes
    # Whatever else is wrong with the new one: it stays the old one.
    others = [cause for cause in causes if not cause.field.startswith("spec.selector")]
    return [invalid("spec.selector", "is immutable after creation."), *others]


def _selector_of(obj: Raw) -> Any:
    spec = obj.get("spec")
    return spec.get("selector") if isinstance(spec, Mapping) else None


def _own_causes(obj: Raw, permitted: Permitted) -> list[Cause]:
    """What is wrong with a pool by itself."""
    try:
        decoded = msgspec.convert(obj, VirtualMachinePool)
    except msgspec.ValidationError as error:
        return [decoding_cause(error)]
    spec, raw = decoded.spec, obj["spec"]
    return [
        *_own_unsupported_causes(raw),
        *_name_causes(decoded),
        *_size_causes(spec),
        *_selector_causes(spec),
        *_strategy_causes(spec),
        *_healing_causes(spec.autohealing or pool.Autohealing()),
        *_template_causes(spec, raw["virtualMachineTemplate"], permitted),
    ]


def _own_unsupported_causes(raw: Raw) -> Iterator[Cause]:
    beside = {key: value for key, value in raw.items() if key != "virtualMachineTemplate"}
    yield from unsupported(beside, VirtualMachinePoolSpec, "spec")


def _name_causes(decoded: VirtualMachinePool) -> Iterator[Cause]:
    """The name of every machine is a value of a label."""
    last = f"{decoded.metadata.name}-{max(decoded.spec.replicas - 1, 0)}"
    if len(last) > MAX_NAME_LENGTH:
        yield invalid(
            "metadata.name",
            f"{quoted(decoded.metadata.name)} is too long: its machine {quoted(last)} would have a name of"
            f" {len(last)} characters, more than the {MAX_NAME_LENGTH} allowed.",
        )


def _size_causes(spec: VirtualMachinePoolSpec) -> Iterator[Cause]:
    yield from replicas_causes(spec.replicas)
    value = spec.max_unavailable
    is_good = isinstance(value, int) and value > 0
    if value is not None and not is_good and not _PERCENTAGE.fullmatch(str(value)):
        yield invalid(
            "spec.maxUnavailable",
            f"{quoted(value)} must be an integer greater than 0 or a percentage from 1% to 100%.",
        )


def _selector_causes(spec: VirtualMachinePoolSpec) -> list[Cause]:
    metadata = spec.virtual_machine_template.metadata
    labels = (metadata.labels if metadata else None) or {}
    return selector_causes(spec.selector, labels, template=_TEMPLATE)


def _strategy_causes(spec: VirtualMachinePoolSpec) -> Iterator[Cause]:
    scale_in = spec.scale_in_strategy or pool.ScaleInStrategy()
    update = spec.update_strategy or pool.UpdateStrategy()
    for field, strategy in (("scaleInStrategy", scale_in), ("updateStrategy", update)):
        given = [
            key
            for key in ("proactive", "opportunistic", "unmanaged")
            if getattr(strategy, key) is not None
        ]
        if len(given) > 1:
            text = f"must name one strategy, not {len(given)}: {', '.join(given)}."
            yield invalid(f"spec.{field}", text)
    for name in ("proactive", "opportunistic"):
        one: pool.ProactiveScaleIn | pool.OpportunisticScaleIn | None = getattr(scale_in, name)
        field = f"spec.scaleInStrategy.{name}.statePreservation"
        yield from _preservation_causes(one.state_preservation if one else "", field)
    for field, policy in (
        ("scaleInStrategy", scale_in.proactive.selection_policy if scale_in.proactive else None),
        ("updateStrategy", update.proactive.selection_policy if update.proactive else None),
    ):
        if policy is not None:
            yield from _policy_causes(policy, f"spec.{field}.proactive.selectionPolicy")


def _preservation_causes(value: str, field: str) -> Iterator[Cause]:
    if value in ("", *names.SUPPORTED_STATE_PRESERVATIONS):
        return
    if value in list(names.StatePreservation):
        yield invalid(field, f"{value} is not supported yet", CauseReason.NOT_SUPPORTED)
    else:
        yield _not_one_of(field, value, names.SUPPORTED_STATE_PRESERVATIONS)


def _policy_causes(policy: pool.SelectionPolicy, field: str) -> Iterator[Cause]:
    if policy.sort_policy not in ("", *names.SortPolicy):
        yield _not_one_of(f"{field}.sortPolicy", policy.sort_policy, frozenset(names.SortPolicy))
    selectors = policy.selectors or pool.Selectors()
    if selectors.label_selector is not None:
        where = f"{field}.selectors.labelSelector"
        yield from label_selector_causes(selectors.label_selector, where)
    for index, requirement in enumerate(selectors.node_selector_requirement_matcher or ()):
        where = f"{field}.selectors.nodeSelectorRequirementMatcher[{index}]"
        yield from node_requirement_causes(requirement, where)


def _healing_causes(healing: pool.Autohealing) -> Iterator[Cause]:
    threshold = healing.start_up_failure_threshold
    if threshold is not None and threshold < 1:
        yield invalid("spec.autohealing.startUpFailureThreshold", "must be greater than 0.")
    if healing.min_failing_to_start_duration:
        try:
            parse_duration(healing.min_failing_to_start_duration)
        except DurationError as error:
            yield invalid("spec.autohealing.minFailingToStartDuration", f"{error}.")


def _not_one_of(field: str, value: str, allowed: frozenset[str]) -> Cause:
    text = f"{quoted(value)} must be one of: {', '.join(sorted(allowed))}"
    return invalid(field, text, CauseReason.NOT_SUPPORTED)


def _template_causes(
    spec: VirtualMachinePoolSpec, raw: Raw, permitted: Permitted
) -> Iterator[Cause]:
    template = spec.virtual_machine_template
    labels = (template.metadata.labels if template.metadata else None) or {}
    annotations = (template.metadata.annotations if template.metadata else None) or {}
    yield from label_causes(labels, f"{_TEMPLATE}.metadata.labels")
    yield from annotation_causes(annotations, f"{_TEMPLATE}.metadata.annotations")
    yield from machine_causes(template.spec, raw["spec"], f"{_TEMPLATE}.spec", permitted)
