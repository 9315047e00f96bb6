"""Validation of VirtualMachineClones at admission. Pure.

Invariant: an update that changes nothing of what is looked at is never refused.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from podvisor_common.api.clone import VirtualMachineClone, VirtualMachineCloneSpec
from podvisor_common.api.snapshot import names as snapshot_names
from podvisor_common.api.v1 import names

from podvisor_controller.webhooks.permitted import BY_DEFAULT, Permitted
from podvisor_controller.webhooks.validation_fields import (
    Cause,
    CauseReason,
    invalid,
    is_dns_subdomain,
    quoted,
)
from podvisor_controller.webhooks.validation_interfaces import mac_address_fault
from podvisor_controller.webhooks.validation_restores import machine_name_causes, patch_causes
from podvisor_controller.webhooks.validation_snapshots import reference_causes
from podvisor_controller.webhooks.validation_template import decoding_cause
from podvisor_controller.webhooks.validation_updates import immutable_causes

Raw = Mapping[str, Any]

_SOURCES = {names.VIRTUAL_MACHINE: names.GROUP, snapshot_names.SNAPSHOT: snapshot_names.GROUP}


def validate_clone(
    obj: Raw, old: Raw | None = None, *, permitted: Permitted = BY_DEFAULT
) -> list[Cause]:
    """Why a clone is refused; empty when it is not. `old` is what an update replaces; no gate is looked at."""
    if old is not None:
        return immutable_causes(obj, old)
    try:
        spec = msgspec.convert(obj, VirtualMachineClone).spec
    except msgspec.ValidationError as error:
        return [decoding_cause(error)]
    return [
        *_source_causes(spec),
        *_target_causes(spec),
        *_filter_causes(spec.label_filters, "spec.labelFilters"),
        *_filter_causes(spec.annotation_filters, "spec.annotationFilters"),
        *_filter_causes(spec.template.label_filters, "spec.template.labelFilters"),
        *_filter_causes(spec.template.annotation_filters, "spec.template.annotationFilters"),
        *_address_causes(spec.new_mac_addresses or {}),
        *patch_causes(spec.patches or (), "spec.patches"),
    ]


def _source_causes(spec: VirtualMachineCloneSpec) -> Iterator[Cause]:
    source, path = spec.source, "spec.source"
    yield from reference_causes(source, path, _SOURCES)
    if not is_dns_subdomain(source.name):
        text = (
            f"{quoted(source.name)} is no name of an object: lower-case letters, digits, dashes and dots, and a letter or a"
            " digit first and last."
        )
        yield invalid(f"{path}.name", text)


def _target_causes(spec: VirtualMachineCloneSpec) -> Iterator[Cause]:
    target, path = spec.target, "spec.target"
    if target is None:
        return
    # KubeVirt's clients leave the group of a target out.
    given = target if target.api_group else msgspec.structs.replace(target, api_group=names.GROUP)
    yield from reference_causes(given, path, {names.VIRTUAL_MACHINE: names.GROUP})
    yield from machine_name_causes(target, path)
    if spec.source.kind == target.kind and spec.source.name == target.name:
        text = "Target name cannot be equal to source name when both are VirtualMachines"
        yield Cause(f"{path}.name", text)


def _filter_causes(filters: Sequence[str] | None, path: str) -> Iterator[Cause]:
    for index, one in enumerate(filters or ()):
        field, pattern = f"{path}[{index}]", one.removeprefix("!")
        if not pattern:
            yield invalid(field, "must name a key: * stands for all of them.")
        elif "!" in pattern:
            yield invalid(field, f"{quoted(one)} can have a ! only at the beginning.")
        elif "*" in pattern[:-1]:
            yield invalid(field, f"{quoted(one)} can have a * only at the end.")


def _address_causes(addresses: Mapping[str, str]) -> Iterator[Cause]:
    for name, address in addresses.items():
        fault = mac_address_fault(address) if address else ""
        if fault:
            yield invalid(f"spec.newMacAddresses.{name}", fault, CauseReason.INVALID)
