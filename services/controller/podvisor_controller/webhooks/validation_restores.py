"""Validation of VirtualMachineRestores at admission, and of what restores and clones have in common. Pure.

Invariant: an update that changes nothing of what is looked at is never refused.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from podvisor_common.api.meta import TypedLocalObjectReference
from podvisor_common.api.snapshot import VirtualMachineRestore, VolumeRestoreOverride
from podvisor_common.api.snapshot.names import SNAPSHOT
from podvisor_common.api.v1 import names

from podvisor_controller.clone.indexes import clone_of
from podvisor_controller.json_patch import PatchError
from podvisor_controller.restore.machine import patches_in
from podvisor_controller.webhooks.permitted import BY_DEFAULT, Permitted
from podvisor_controller.webhooks.validation_fields import (
    Cause,
    CauseReason,
    invalid,
    is_dns_subdomain,
    is_label_key,
    label_causes,
    object_name_causes,
    quoted,
)
from podvisor_controller.webhooks.validation_snapshots import reference_causes
from podvisor_controller.webhooks.validation_template import decoding_cause
from podvisor_controller.webhooks.validation_updates import immutable_causes

Raw = Mapping[str, Any]

# The name is the value of a label of the machine's launcher pod.
_MAX_MACHINE_NAME_LENGTH = 63
# Patches are read and applied in one go, for which everything else waits.
MOST_PATCHES = 64
MOST_PATCH_BYTES = 32 << 10
# A clone's restore has those that leave labels and annotations out as well.
_TIMES_OF_CLONES = 8


def validate_restore(
    obj: Raw, old: Raw | None = None, *, permitted: Permitted = BY_DEFAULT
) -> list[Cause]:
    """Why a restore is refused; empty when it is not. `old` is what an update replaces; no gate is looked at."""
    if old is not None:
        return immutable_causes(obj, old)
    try:
        restore = msgspec.convert(obj, VirtualMachineRestore)
    except msgspec.ValidationError as error:
        return [decoding_cause(error)]
    spec, path = restore.spec, "spec.target"
    times = 1 if clone_of(restore.metadata) is None else _TIMES_OF_CLONES
    return [
        *reference_causes(spec.target, path, {names.VIRTUAL_MACHINE: names.GROUP}),
        *machine_name_causes(spec.target, path),
        *object_name_causes(
            spec.virtual_machine_snapshot_name, "spec.virtualMachineSnapshotName", SNAPSHOT
        ),
        *patch_causes(spec.patches or (), "spec.patches", times=times),
        *_override_causes(spec.volume_restore_overrides or (), "spec.volumeRestoreOverrides"),
    ]


def machine_name_causes(reference: TypedLocalObjectReference, path: str) -> Iterator[Cause]:
    """What is wrong with the name of a machine that is to be made."""
    name = reference.name
    if len(name) > _MAX_MACHINE_NAME_LENGTH or not is_dns_subdomain(name):
        text = (
            f"{quoted(name)} is no name of a machine: at most {_MAX_MACHINE_NAME_LENGTH} lower-case letters, digits,"
            " dashes and dots, and a letter or a digit first and last."
        )
        yield invalid(f"{path}.name", text)


def patch_causes(patches: Sequence[str], path: str, *, times: int = 1) -> Iterator[Cause]:
    """The first thing that is wrong with the patches for a machine: there may be so many `times` as many as people write."""
    most, most_bytes = MOST_PATCHES * times, MOST_PATCH_BYTES * times
    if len(patches) > most:
        yield Cause(path, f"{path}: at most {most} patches")
        return
    if sum(len(text.encode(errors="surrogatepass")) for text in patches) > most_bytes:
        yield Cause(path, f"{path}: at most {most_bytes} bytes in all patches together")
        return
    try:
        patches_in(patches)
    except PatchError as error:
        yield Cause(path, f"{path}[{error.index}]: {error.text}")


def _override_causes(overrides: Sequence[VolumeRestoreOverride], path: str) -> Iterator[Cause]:
    given: set[str] = set()
    volumes: set[str] = set()
    for index, override in enumerate(overrides):
        field = f"{path}[{index}]"
        if not override.volume_name:
            text = f"{field}: must provide a volume name"
            yield Cause(f"{field}.volumeName", text, CauseReason.REQUIRED)
        elif override.volume_name in volumes:
            text = f"{quoted(override.volume_name)} has an override already."
            yield invalid(f"{field}.volumeName", text, CauseReason.DUPLICATE)
        volumes.add(override.volume_name)
        if not (override.restore_name or override.labels or override.annotations):
            text = f"{field}: must provide at least one of restoreName, labels and annotations"
            yield Cause(field, text, CauseReason.REQUIRED)
        if override.restore_name and not is_dns_subdomain(override.restore_name):
            yield invalid(
                f"{field}.restoreName", f"{quoted(override.restore_name)} is no name of a claim."
            )
        yield from label_causes(override.labels or {}, f"{field}.labels")
        for key in override.annotations or ():
            if not is_label_key(key.lower()):
                text = f"holds {quoted(key)}, which is not the key of an annotation."
                yield invalid(f"{field}.annotations", text)
        if override.restore_name in given:
            text = f"{quoted(override.restore_name)} is the name of another volume's claim."
            yield invalid(f"{field}.restoreName", text)
        if override.restore_name:
            given.add(override.restore_name)
