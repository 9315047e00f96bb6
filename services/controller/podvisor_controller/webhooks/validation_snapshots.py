"""Validation of VirtualMachineSnapshots at admission, and of what may not change of a machine while it is kept or restored. Pure.

Invariant: an update that changes nothing of what is looked at is never refused.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from podvisor_common.api.duration import DurationError, parse_duration
from podvisor_common.api.meta import TypedLocalObjectReference
from podvisor_common.api.snapshot import VirtualMachineSnapshot, VirtualMachineSnapshotSpec
from podvisor_common.api.v1 import names
from podvisor_common.api.v1.names import RunStrategy

from podvisor_controller.webhooks.permitted import BY_DEFAULT, Permitted
from podvisor_controller.webhooks.validation_fields import (
    Cause,
    CauseReason,
    invalid,
    object_name_causes,
    quoted,
    raw_at,
)
from podvisor_controller.webhooks.validation_template import decoding_cause
from podvisor_controller.webhooks.validation_updates import immutable_causes

Raw = Mapping[str, Any]

_DISKS = ("template", "spec", "domain", "devices", "disks")
_VOLUMES = ("template", "spec", "volumes")


def validate_snapshot(
    obj: Raw, old: Raw | None = None, *, permitted: Permitted = BY_DEFAULT
) -> list[Cause]:
    """Why a snapshot is refused; empty when it is not. `old` is what an update replaces; no gate is looked at."""
    if old is not None:
        return immutable_causes(obj, old)
    try:
        spec = msgspec.convert(obj, VirtualMachineSnapshot).spec
    except msgspec.ValidationError as error:
        return [decoding_cause(error)]
    causes = reference_causes(spec.source, "spec.source", {names.VIRTUAL_MACHINE: names.GROUP})
    named = object_name_causes(spec.source.name, "spec.source.name", names.VIRTUAL_MACHINE)
    return [*causes, *named, *_deadline_causes(spec)]


def progress_causes(obj: Raw, old: Raw) -> Iterator[Cause]:
    """Why a machine that a snapshot is being taken of, or that is being restored, may not be changed so."""
    status, new_spec, old_spec = raw_at(old, "status"), raw_at(obj, "spec"), raw_at(old, "spec")
    restore, name = status.get("restoreInProgress"), status.get("snapshotInProgress")
    if restore and _strategy(new_spec) != _strategy(old_spec):
        text = f'Cannot update VM runStrategy until restore "{restore}" completes'
        yield Cause("spec", text, CauseReason.NOT_SUPPORTED)
    if not name:
        return
    if any(_value(new_spec, path) != _value(old_spec, path) for path in (_DISKS, _VOLUMES)):
        text = f'Cannot update vm disks or volumes until snapshot "{name}" completes'
        yield Cause("spec", text, CauseReason.NOT_SUPPORTED)
    if _strategy(new_spec) != _strategy(old_spec):
        text = f'Cannot update vm running state until snapshot "{name}" completes'
        yield Cause("spec", text, CauseReason.NOT_SUPPORTED)


def reference_causes(
    reference: TypedLocalObjectReference, path: str, groups: Mapping[str, str]
) -> Iterator[Cause]:
    """What is wrong with a reference to an object of one of these kinds, given with their API groups."""
    kind, group = reference.kind, reference.api_group
    wanted = groups.get(kind)
    if wanted is None:
        text = f"invalid kind {quoted(kind)}: {path}.kind must be {' or '.join(groups)}"
        yield Cause(f"{path}.kind", text)
    may_be = [wanted] if wanted is not None else list(groups.values())
    if group is None:
        text = f"missing apiGroup: {path}.apiGroup must be {' or '.join(may_be)}"
        yield Cause(f"{path}.apiGroup", text, CauseReason.NOT_FOUND)
    elif group not in may_be:
        text = f"invalid apiGroup {quoted(group)}: {path}.apiGroup must be {' or '.join(may_be)}"
        yield Cause(f"{path}.apiGroup", text)


def _deadline_causes(spec: VirtualMachineSnapshotSpec) -> Iterator[Cause]:
    if spec.failure_deadline is None:
        return
    try:
        parse_duration(spec.failure_deadline)
    except DurationError as error:
        yield invalid("spec.failureDeadline", f"cannot be: {error}.")


def _strategy(spec: Raw) -> str:
    """The run strategy, whichever of the two fields says it."""
    by_flag = RunStrategy.ALWAYS if spec.get("running") else RunStrategy.HALTED
    return spec.get("runStrategy") or by_flag


def _value(obj: Raw, path: tuple[str, ...]) -> Any:
    """What stands there; an empty list is as good as nothing."""
    return raw_at(obj, *path[:-1]).get(path[-1]) or None
