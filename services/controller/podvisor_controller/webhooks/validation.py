"""Validation of VirtualMachines and their instances at admission, on the v1 form.

Invariant: pure functions of the objects and of what the cluster permits; a user's values appear in messages except cloud-init data, which never does.
An update is never refused for what was so before, so that an object admitted under older rules can always be labelled, edited
elsewhere, finished and deleted.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import msgspec
from podvisor_common.api import v1
from podvisor_common.api.v1 import names

from podvisor_controller.webhooks.conversion import written_as_v1alpha1
from podvisor_controller.webhooks.permitted import BY_DEFAULT, Permitted
from podvisor_controller.webhooks.validation_disks import empty_drive_causes
from podvisor_controller.webhooks.validation_fields import (
    Cause,
    CauseReason,
    invalid,
    quoted,
    unsupported,
)
from podvisor_controller.webhooks.validation_hotplug import RESTRICTED, plug_causes
from podvisor_controller.webhooks.validation_network import asked_network_causes
from podvisor_controller.webhooks.validation_snapshots import progress_causes
from podvisor_controller.webhooks.validation_spec import spec_causes
from podvisor_controller.webhooks.validation_template import (
    annotation_causes,
    decoding_cause,
    reserved_label_causes,
    template_causes,
)
from podvisor_controller.webhooks.validation_updates import update_causes
from podvisor_controller.webhooks.validation_volumes import raw_volume_causes

__all__ = [
    "MAX_NAME_LENGTH",
    "Cause",
    "machine_causes",
    "validate_virtual_machine",
    "validate_virtual_machine_instance",
    "validate_virtual_machine_instance_update",
    "warnings_of",
]

Raw = Mapping[str, Any]

# The name is the value of a label of the launcher pod, by which Services and people select it.
MAX_NAME_LENGTH = 63
# Where the specification of a machine stands, by kind.
_MACHINE_PATHS = {names.VIRTUAL_MACHINE: "spec", names.POOL: "spec.virtualMachineTemplate.spec"}


def validate_virtual_machine(
    obj: Raw, old: Raw | None = None, *, permitted: Permitted = BY_DEFAULT
) -> list[Cause]:
    """Why a VirtualMachine is refused; empty when it is not. `old` is what an update replaces."""
    if old is None:
        return [*_name_causes(obj), *_own_causes(obj, permitted)]
    return [
        *progress_causes(obj, old),
        *update_causes(obj, old, partial(_own_causes, permitted=permitted)),
    ]


def _own_causes(obj: Raw, permitted: Permitted) -> list[Cause]:
    """What is wrong with a machine by itself."""
    spec = obj.get("spec")
    template = spec.get("template") if isinstance(spec, Mapping) else None
    if not isinstance(spec, Mapping) or template is None:
        text = "missing virtual machine template."
        return [Cause("spec.template", text, CauseReason.REQUIRED)]
    try:
        machine = msgspec.convert(obj, v1.VirtualMachine)
    except msgspec.ValidationError as error:
        return [decoding_cause(error)]
    causes = machine_causes(machine.spec, spec, "spec", permitted)
    if written_as_v1alpha1(obj):
        causes = [*empty_drive_causes(machine.spec.template.spec, "spec.template.spec"), *causes]
    return causes


def machine_causes(
    spec: v1.VirtualMachineSpec, raw: Raw, path: str, permitted: Permitted
) -> list[Cause]:
    """Everything wrong with what a machine shall be. `raw` is the same before decoding, for the fields decoding drops."""
    return [
        *_unsupported_outside_template(raw, path),
        *_run_strategy_causes(spec, path),
        *template_causes(spec.template, raw["template"], f"{path}.template", permitted),
    ]


def validate_virtual_machine_instance(
    obj: Raw, *, privileged: bool = False, permitted: Permitted = BY_DEFAULT
) -> list[Cause]:
    """Why a new instance is refused. `privileged`: one of podvisor's own service accounts asks."""
    causes = _name_causes(obj)
    try:
        instance = msgspec.convert(obj, v1.VirtualMachineInstance)
    except msgspec.ValidationError as error:
        return [*causes, decoding_cause(error)]
    if not privileged:
        causes += reserved_label_causes(instance.metadata.labels or {}, {}, "metadata.labels")
    annotations = instance.metadata.annotations or {}
    causes += annotation_causes(annotations, "metadata.annotations")
    causes += raw_volume_causes(annotations, instance.spec, "metadata.annotations")
    causes += asked_network_causes(annotations, instance.spec, "metadata.annotations")
    return causes + spec_causes(instance.spec, obj["spec"], "spec", permitted)


def validate_virtual_machine_instance_update(
    obj: Raw,
    old: Raw,
    *,
    privileged: bool = False,
    may_plug: bool = False,
    permitted: Permitted = BY_DEFAULT,
) -> list[Cause]:
    """Why a change of an instance is refused: only podvisor itself (`privileged`) changes reserved labels, and of it only who
    `may_plug` the specification, no more of that than volumes and interfaces which may come and go, and how long the guest may take to end."""
    causes = []
    if obj.get("spec") != old.get("spec"):
        refused = Cause("spec", RESTRICTED, CauseReason.NOT_SUPPORTED)
        causes += plug_causes(obj, old, permitted) if may_plug else [refused]
    if not privileged:
        causes += reserved_label_causes(_labels(obj), _labels(old), "metadata.labels")
    return causes


def warnings_of(obj: Raw) -> list[str]:
    """What a user should know of an instance, or of what makes instances or machines from a template, that is admitted."""
    path = _MACHINE_PATHS.get(obj.get("kind", ""))
    warnings = []
    if path is not None and _at(obj, path).get("running") is not None:
        warnings.append(f"{path}.running is deprecated, please use {path}.runStrategy instead.")
    is_instance = obj.get("kind") == names.VIRTUAL_MACHINE_INSTANCE
    path = "spec" if is_instance else f"{path or 'spec'}.template.spec"
    volumes = _at(obj, path).get("volumes")
    for index, volume in enumerate(volumes if isinstance(volumes, list) else ()):
        warnings += [
            f"{path}.volumes[{index}].{kind}.{name} can be read by everyone who can read this"
            " object; keep passwords in a Secret and name it in secretRef"
            for kind in ("cloudInitNoCloud", "cloudInitConfigDrive")
            for name in ("userData", "userDataBase64")
            if isinstance(volume, Mapping) and _at(volume, kind).get(name)
        ]
    return warnings


def _at(obj: Raw, path: str) -> Raw:
    """What stands at that path; empty when it is no object."""
    for name in path.split("."):
        child = obj.get(name)
        obj = child if isinstance(child, Mapping) else {}
    return obj


def _unsupported_outside_template(spec: Raw, path: str) -> list[Cause]:
    """Fields of a VirtualMachine beside its template that are not supported yet."""
    beside = {key: value for key, value in spec.items() if key != "template"}
    return list(unsupported(beside, v1.VirtualMachineSpec, path))


def _name_causes(obj: Raw) -> list[Cause]:
    metadata = obj.get("metadata")
    name = metadata.get("name") if isinstance(metadata, Mapping) else None
    if not isinstance(name, str) or len(name) <= MAX_NAME_LENGTH:
        return []
    return [
        invalid(
            "metadata.name",
            f"{quoted(name)} is too long for a pod: its launcher pod carries the name as the value of a label,"
            f" and {len(name)} characters are more than the {MAX_NAME_LENGTH} allowed there.",
        )
    ]


def _run_strategy_causes(spec: v1.VirtualMachineSpec, path: str) -> list[Cause]:
    if spec.running is not None and spec.run_strategy:
        text = "Running and RunStrategy are mutually exclusive"
        return [Cause(f"{path}.running", text)]
    if spec.running is not None:
        return []
    if not spec.run_strategy:
        return [Cause(f"{path}.runStrategy", "RunStrategy must be specified", CauseReason.REQUIRED)]
    if spec.run_strategy in names.SUPPORTED_RUN_STRATEGIES:
        return []
    if spec.run_strategy in list(names.RunStrategy):
        text = f"{spec.run_strategy} is not supported yet"
        return [invalid(f"{path}.runStrategy", text, CauseReason.NOT_SUPPORTED)]
    text = (
        f"Invalid RunStrategy ({quoted(spec.run_strategy)}), must be one of:"
        f" {', '.join(sorted(names.SUPPORTED_RUN_STRATEGIES))}"
    )
    return [Cause(f"{path}.runStrategy", text)]


def _labels(obj: Raw) -> dict[str, str]:
    metadata = obj.get("metadata")
    labels = metadata.get("labels") if isinstance(metadata, Mapping) else None
    return dict(labels) if isinstance(labels, Mapping) else {}
