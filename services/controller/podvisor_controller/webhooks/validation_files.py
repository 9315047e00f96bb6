"""What is wrong with volumes that are disks with files: ConfigMaps, Secrets, facts about the pod, credentials. Pure."""

import re
from collections.abc import Iterator
from decimal import Decimal

from podvisor_common.api import v1
from podvisor_common.api.quantity import QuantityError, parse_quantity

from podvisor_controller.webhooks.validation_fields import (
    Cause,
    CauseReason,
    has_control,
    invalid,
    is_label_key,
    object_name_causes,
    quoted,
)

# What the descriptor of an ISO image has room for.
_MAX_LABEL_LENGTH = 32
# What a pod can tell in a volume.
_POD_FIELDS = (
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
)
_POD_FIELD_OF_KEY = re.compile(r"metadata\.(annotations|labels)\['(?P<key>[^']*)'\]")
_COMPUTE = "compute"
_AMOUNTS_OF_BYTES = ("ephemeral-storage", "memory")
_RESOURCES = tuple(
    f"{kind}.{name}" for kind in ("limits", "requests") for name in ("cpu", *_AMOUNTS_OF_BYTES)
)
_CPU_DIVISORS = frozenset(map(parse_quantity, ("0", "1m", "1")))
_BYTE_DIVISORS = frozenset(
    map(
        parse_quantity,
        ("0", "1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"),
    )
)
_MAX_MODE = 0o777


def file_causes(volume: v1.Volume, field: str) -> Iterator[Cause]:
    """Checks the source of a volume that is a disk with files; other volumes have nothing to check here."""
    if volume.config_map is not None:
        where = f"{field}.configMap"
        yield from object_name_causes(volume.config_map.name, f"{where}.name", "ConfigMap")
        yield from _label_causes(volume.config_map.volume_label, where)
    if volume.secret is not None:
        where = f"{field}.secret"
        yield from object_name_causes(volume.secret.secret_name, f"{where}.secretName", "Secret")
        yield from _label_causes(volume.secret.volume_label, where)
    if volume.downward_api is not None:
        where = f"{field}.downwardAPI"
        yield from _label_causes(volume.downward_api.volume_label, where)
        for index, file in enumerate(volume.downward_api.fields or ()):
            yield from _fact_causes(file, f"{where}.fields[{index}]")
    if volume.service_account is not None:
        name = volume.service_account.service_account_name
        where = f"{field}.serviceAccount.serviceAccountName"
        yield from object_name_causes(name, where, "ServiceAccount")
    if volume.sysprep is not None:
        yield from _sysprep_causes(volume.sysprep, f"{field}.sysprep")


def _label_causes(label: str, field: str) -> Iterator[Cause]:
    if len(label) > _MAX_LABEL_LENGTH or has_control(label):
        text = f"{quoted(label)} must be at most {_MAX_LABEL_LENGTH} characters, none of them a control character."
        yield invalid(f"{field}.volumeLabel", text)


def _sysprep_causes(sysprep: v1.Sysprep, field: str) -> Iterator[Cause]:
    sources = (
        ("secret", "Secret", sysprep.secret),
        ("configMap", "ConfigMap", sysprep.config_map),
    )
    given = [name for name, _, source in sources if source is not None]
    if len(given) != 1:
        text = f"must have exactly one source, not {' and '.join(given) or 'none'}."
        yield invalid(field, text, CauseReason.INVALID if given else CauseReason.REQUIRED)
    for name, kind, source in sources:
        if source is not None:
            yield from object_name_causes(source.name, f"{field}.{name}.name", kind)


def _fact_causes(file: v1.DownwardAPIFile, field: str) -> Iterator[Cause]:
    """Checks a file with a fact about the pod as Kubernetes does with a pod's own."""
    parts = file.path.split("/")
    if not file.path or file.path.startswith("/") or ".." in parts or has_control(file.path):
        text = f"{quoted(file.path)} must be a relative path without '..' and control characters."
        yield invalid(f"{field}.path", text)
    elif file.path.startswith(".."):
        yield invalid(f"{field}.path", f"{quoted(file.path)} must not start with '..'.")
    if file.mode is not None and not 0 <= file.mode <= _MAX_MODE:
        yield invalid(f"{field}.mode", "must be a number between 0 and 0777 octal, which is 511.")
    if (file.field_ref is None) == (file.resource_field_ref is None):
        given = "none" if file.field_ref is None else "both"
        yield invalid(
            field, f"must have exactly one of fieldRef and resourceFieldRef, not {given}."
        )
    if file.field_ref is not None:
        yield from _field_causes(file.field_ref, f"{field}.fieldRef")
    if file.resource_field_ref is not None:
        yield from _resource_causes(file.resource_field_ref, f"{field}.resourceFieldRef")


def _field_causes(reference: v1.ObjectFieldSelector, field: str) -> Iterator[Cause]:
    if reference.api_version not in ("", "v1"):
        yield invalid(f"{field}.apiVersion", f"{quoted(reference.api_version)} must be v1.")
    of_key = _POD_FIELD_OF_KEY.fullmatch(reference.field_path)
    if of_key is not None and not is_label_key(of_key["key"].lower()):
        text = f"{quoted(reference.field_path)} has no key of a label or an annotation in its brackets."
        yield invalid(f"{field}.fieldPath", text)
    elif of_key is None and reference.field_path not in _POD_FIELDS:
        text = (
            f"{quoted(reference.field_path)} must be one of: {', '.join(_POD_FIELDS)}, or one label or annotation"
            " such as metadata.labels['app']"
        )
        yield invalid(f"{field}.fieldPath", text, CauseReason.NOT_SUPPORTED)


def _resource_causes(reference: v1.ResourceFieldSelector, field: str) -> Iterator[Cause]:
    if reference.container_name != _COMPUTE:
        text = (
            f"{quoted(reference.container_name)} must be {_COMPUTE}, the container with the guest."
        )
        yield invalid(f"{field}.containerName", text)
    if reference.resource not in _RESOURCES:
        text = f"{quoted(reference.resource)} must be one of: {', '.join(_RESOURCES)}"
        yield invalid(f"{field}.resource", text, CauseReason.NOT_SUPPORTED)
        return
    divisors = _CPU_DIVISORS if reference.resource.endswith(".cpu") else _BYTE_DIVISORS
    if reference.divisor is not None and _amount(reference.divisor) not in divisors:
        text = f"{quoted(reference.divisor)} is no unit of {reference.resource}: 1m or 1 for a cpu, else 1, 1k, 1Ki, 1M, 1Mi and so on."
        yield invalid(f"{field}.divisor", text)


def _amount(divisor: str | int) -> Decimal | None:
    """The amount, None when it is no quantity."""
    try:
        return parse_quantity(divisor)
    except QuantityError:
        return None
