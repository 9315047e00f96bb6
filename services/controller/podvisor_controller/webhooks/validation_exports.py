"""Validation of VirtualMachineExports at admission. Pure.

Invariant: an update that changes nothing of the specification is never refused.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from podvisor_common.api.duration import DurationError, parse_duration
from podvisor_common.api.export import VirtualMachineExport, VirtualMachineExportSpec
from podvisor_common.api.export.names import SourceKind
from podvisor_common.api.meta import TypedLocalObjectReference
from podvisor_common.api.snapshot import names as snapshot_names
from podvisor_common.api.v1 import names

from podvisor_controller.webhooks.permitted import BY_DEFAULT, Permitted
from podvisor_controller.webhooks.validation_fields import (
    LABEL_RULE,
    Cause,
    invalid,
    is_dns_label,
    is_dns_subdomain,
    quoted,
)
from podvisor_controller.webhooks.validation_template import decoding_cause
from podvisor_controller.webhooks.validation_updates import immutable_causes

Raw = Mapping[str, Any]

_GROUPS = {
    SourceKind.MACHINE: names.GROUP,
    SourceKind.SNAPSHOT: snapshot_names.GROUP,
}
# Of a longer name no Service has more than a hash.
_LABEL_LENGTH = 63


def validate_export(
    obj: Raw, old: Raw | None = None, *, permitted: Permitted = BY_DEFAULT
) -> list[Cause]:
    """Why an export is refused; empty when it is not. `old` is what an update replaces; no gate is looked at."""
    if old is not None:
        return immutable_causes(obj, old)
    try:
        export = msgspec.convert(obj, VirtualMachineExport)
    except msgspec.ValidationError as error:
        return [decoding_cause(error)]
    return [
        *_name_causes(export.metadata.name),
        *_source_causes(export.spec.source),
        *_token_causes(export.spec),
        *_ttl_causes(export.spec),
    ]


def _name_causes(name: str) -> Iterator[Cause]:
    """The name is part of a Service's, which has no dots."""
    if name and len(name) <= _LABEL_LENGTH and not is_dns_label(name):
        yield invalid("metadata.name", f"{quoted(name)} {LABEL_RULE}: a Service is named after it.")


def _source_causes(source: TypedLocalObjectReference) -> Iterator[Cause]:
    path = "spec.source"
    if source.kind not in list(SourceKind):
        kinds = ", ".join(SourceKind)
        yield Cause(
            f"{path}.kind",
            f"invalid kind {quoted(source.kind)}: {path}.kind must be one of {kinds}",
        )
        return
    group, wanted = source.api_group or "", _GROUPS.get(SourceKind(source.kind), "")
    if group != wanted:
        rule = f"be {wanted}" if wanted else "be missing or blank"
        text = f"invalid apiGroup {quoted(group)}: {path}.apiGroup of a {source.kind} must {rule}"
        yield Cause(f"{path}.apiGroup", text)
    if not is_dns_subdomain(source.name):
        yield invalid(f"{path}.name", f"{quoted(source.name)} is not the name of an object.")


def _token_causes(spec: VirtualMachineExportSpec) -> Iterator[Cause]:
    name = spec.token_secret_ref
    if name is not None and not is_dns_subdomain(name):
        yield invalid("spec.tokenSecretRef", f"{quoted(name)} is not the name of a Secret.")


def _ttl_causes(spec: VirtualMachineExportSpec) -> Iterator[Cause]:
    if spec.ttl_duration is None:
        return
    try:
        ttl = parse_duration(spec.ttl_duration)
    except DurationError as error:
        yield invalid("spec.ttlDuration", f"cannot be: {error}.")
        return
    if not ttl:
        yield invalid("spec.ttlDuration", "must be longer than nothing.")
