"""The machine that a restore makes of what was kept. Pure.

Invariant: what was kept is taken word for word, but for its claims, its run strategy and what the restore's patches say. A machine
that is made beside the one that was kept is none of the two in name only: it has neither its firmware's identity nor its addresses.
"""

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from podvisor_common.api import v1
from podvisor_common.api.snapshot import VirtualMachineRestore, VolumeRestore, names
from podvisor_common.api.v1.names import (
    API_VERSION,
    CONVERSION_ANNOTATION,
    VIRTUAL_MACHINE,
    RunStrategy,
)

from podvisor_controller import json_patch

Json = dict[str, Any]

_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_PATCHABLE = ("/spec/", "/metadata/labels/", "/metadata/annotations/")
_IDENTITIES = ("uuid", "serial")


def mark_of(restore: VirtualMachineRestore) -> str:
    """What the annotation LAST_RESTORE_ANNOTATION says on all that this restore made, and nothing that another one did."""
    return f"{restore.metadata.name}-{restore.metadata.uid}"


def replacement(
    restore: VirtualMachineRestore,
    target: v1.VirtualMachine,
    kept: Mapping[str, Any],
    volumes: Sequence[VolumeRestore],
) -> list[Json]:
    """The JSON patch that makes the target, only as it was seen, what was kept; it runs when it ran before."""
    metadata = target.metadata
    annotations = dict(metadata.annotations or {})
    # Says what of the specification is told in another version of the API: it belongs to the specification.
    annotations.pop(CONVERSION_ANNOTATION, None)
    note = (kept["metadata"].get("annotations") or {}).get(CONVERSION_ANNOTATION)
    if note is not None:
        annotations[CONVERSION_ANNOTATION] = note
    annotations[names.LAST_RESTORE_ANNOTATION] = mark_of(restore)
    spec = _without_strategy(_with_claims(kept["spec"], volumes))
    if target.spec.run_strategy:
        spec["runStrategy"] = target.spec.run_strategy
    else:
        spec["running"] = bool(target.spec.running)
    return [
        {"op": "test", "path": "/metadata/uid", "value": metadata.uid},
        {
            "op": "replace",
            "path": "/metadata/resourceVersion",
            "value": metadata.resource_version,
        },
        {"op": "add", "path": "/metadata/annotations", "value": annotations},
        {"op": "replace", "path": "/spec", "value": spec},
    ]


def new_machine(
    restore: VirtualMachineRestore,
    kept: Mapping[str, Any],
    volumes: Sequence[VolumeRestore],
    *,
    source_lives: bool,
) -> Json:
    """The manifest of a target that does not exist yet, and does not run. PatchError where a patch cannot be applied.

    `source_lives`: the machine that was kept is there as well, and its guest may run at the same time.
    """
    old = kept["metadata"]
    given = old.get("annotations") or {}
    annotations = {
        key: value
        for key, value in given.items()
        if key not in (_LAST_APPLIED, names.LAST_RESTORE_ANNOTATION)
    }
    spec = _with_claims(kept["spec"], volumes)
    strategy: Json = {"runStrategy": RunStrategy.HALTED.value}
    if spec.get("running") is not None:
        strategy = {"running": False}
    base = {
        "metadata": {"labels": dict(old.get("labels") or {}), "annotations": annotations},
        "spec": _without_strategy(spec) | strategy,
    }
    machine = json_patch.applied(base, patches_in(restore.spec.patches or ()))
    if source_lives:
        _set_apart(machine["spec"], kept["spec"])
    metadata = machine["metadata"]
    annotations = metadata["annotations"] | {names.LAST_RESTORE_ANNOTATION: mark_of(restore)}
    return {
        "apiVersion": API_VERSION,
        "kind": VIRTUAL_MACHINE,
        "metadata": {
            "name": restore.spec.target.name,
            "namespace": restore.metadata.namespace,
            "labels": metadata["labels"],
            "annotations": annotations,
        },
        "spec": machine["spec"],
    }


def patch_fault(
    restore: VirtualMachineRestore, kept: Mapping[str, Any], volumes: Sequence[VolumeRestore]
) -> str:
    """Why the patches make no machine of what was kept, for a person; empty when they do."""
    try:
        new_machine(restore, kept, volumes, source_lives=False)
    except json_patch.PatchError as error:
        return f"spec.patches[{error.index}]: {error.text}"
    return ""


def patches_in(texts: Sequence[str]) -> list[json_patch.Operation]:
    """The patches of a machine, each of which is a text. PatchError for the first that is none, or touches what no patch may."""
    operations = json_patch.parse(texts)
    json_patch.confine(operations, _PATCHABLE)
    return operations


def claims_named(vm: v1.VirtualMachine | None) -> set[str]:
    """The claims that a machine names."""
    volumes = vm.spec.template.spec.volumes if vm is not None else None
    return {volume.claim_name for volume in volumes or () if volume.claim_name}


def _without_strategy(spec: Mapping[str, Any]) -> Json:
    return {key: value for key, value in spec.items() if key not in ("running", "runStrategy")}


def _with_claims(spec: Mapping[str, Any], volumes: Sequence[VolumeRestore]) -> Json:
    """The specification with the claims that were made in place of those that were kept."""
    made = {volume.volume_name: volume.persistent_volume_claim for volume in volumes}
    result: Json = copy.deepcopy(dict(spec))
    for volume in result["template"]["spec"].get("volumes") or ():
        claim = made.get(volume.get("name"))
        source = volume.get("persistentVolumeClaim") or volume.get("dataVolume")
        if claim is None or source is None:
            continue
        volume.pop("dataVolume", None)
        rest = {key: value for key, value in source.items() if key != "name"}
        volume["persistentVolumeClaim"] = rest | {"claimName": claim}
    return result


def _set_apart(spec: Any, kept: Mapping[str, Any]) -> None:
    """Take from a machine what would make its guest pass for the other one. What is not given is made up at admission."""
    theirs = {address.lower() for interface in _interfaces(kept) if (address := _mac(interface))}
    for interface in _interfaces(spec):
        if _mac(interface).lower() in theirs:
            del interface["macAddress"]
    ours, other = _firmware(spec), _firmware(kept)
    for name in _IDENTITIES:
        if ours.get(name) and ours[name] == other.get(name):
            del ours[name]


def _mac(interface: Mapping[str, Any]) -> str:
    return str(interface.get("macAddress") or "")


def _interfaces(spec: Any) -> Iterable[Json]:
    found = _at(spec, "template", "spec", "domain", "devices").get("interfaces")
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _firmware(spec: Any) -> Json:
    return _at(spec, "template", "spec", "domain", "firmware")


def _at(tree: Any, *path: str) -> Json:
    """What stands there; empty when it is no object: patches may have put anything there."""
    for name in path:
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree if isinstance(tree, dict) else {}
