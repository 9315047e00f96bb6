"""What is wrong with a template that instances are made from, whatever kind it is part of. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from podvisor_common.api import v1
from podvisor_common.api.v1 import names

from podvisor_controller.webhooks.permitted import Permitted
from podvisor_controller.webhooks.validation_fields import (
    Cause,
    CauseReason,
    Undecodable,
    invalid,
    is_label_key,
    label_causes,
    quoted,
)
from podvisor_controller.webhooks.validation_network import asked_network_causes
from podvisor_controller.webhooks.validation_spec import spec_causes
from podvisor_controller.webhooks.validation_volumes import raw_volume_causes


def template_causes(
    template: v1.VirtualMachineInstanceTemplateSpec,
    raw: Mapping[str, Any],
    path: str,
    permitted: Permitted,
) -> list[Cause]:
    """Everything wrong with a template. `raw` is the same one before decoding, for the fields decoding drops."""
    metadata = template.metadata
    labels = (metadata.labels if metadata else None) or {}
    annotations = (metadata.annotations if metadata else None) or {}
    return [
        *label_causes(labels, f"{path}.metadata.labels"),
        *reserved_label_causes(labels, {}, f"{path}.metadata.labels"),
        *annotation_causes(annotations, f"{path}.metadata.annotations"),
        *raw_volume_causes(annotations, template.spec, f"{path}.metadata.annotations"),
        *asked_network_causes(annotations, template.spec, f"{path}.metadata.annotations"),
        *spec_causes(template.spec, raw["spec"], f"{path}.spec", permitted),
    ]


def annotation_causes(annotations: Mapping[str, str], field: str) -> Iterator[Cause]:
    """Annotations that no object can have, and those that ask for what is not implemented yet."""
    for key in annotations:
        if key in names.UNSUPPORTED_ANNOTATIONS:
            text = f"{field}: {key} is not supported yet"
            yield Cause(f"{field}.{key}", text, CauseReason.NOT_SUPPORTED)
        elif not is_label_key(key.lower()):
            yield invalid(field, f"holds {quoted(key)}, which is not the key of an annotation.")


def decoding_cause(error: msgspec.ValidationError) -> Undecodable:
    """msgspec says `Expected ..., got ... - at `$.path``; the path becomes the field."""
    text, _, where = str(error).partition(" - at `$.")
    field = where.rstrip("`")
    return Undecodable(field, f"{field} {text}" if field else text)


def reserved_label_causes(
    labels: Mapping[str, str], old: Mapping[str, str], field: str
) -> list[Cause]:
    """Labels that only podvisor itself sets, set or changed by somebody else."""
    changed = [key for key in sorted(names.RESERVED_LABELS) if labels.get(key) != old.get(key)]
    if not changed:
        return []
    return [
        invalid(
            field,
            f"holds {', '.join(changed)}: setting or changing reserved kubevirt.io/ labels is prohibited",
            CauseReason.NOT_SUPPORTED,
        )
    ]
