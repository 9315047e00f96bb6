"""The machines that a pool makes of its template: their names, manifests and revisions. Pure.

Invariant: equal pools give equal machines, so that one that is made twice, after an answer that was lost or by the next leader, is
one object. A revision is told by its label alone: by the machine's, what of the pool it was made from; by the instance's, what of it
a guest can notice.
"""

import copy
import hashlib
import re
from typing import Any

import msgspec
from podvisor_common.api import v1
from podvisor_common.api.pool import VirtualMachinePool
from podvisor_common.api.v1 import names

from podvisor_controller.webhooks import defaults_instance

Json = dict[str, Any]

_DIGEST_LENGTH = 10
# The value of a label has at most 63 characters.
_MAX_STEM_LENGTH = 63 - 1 - _DIGEST_LENGTH
_INDEX = re.compile(r"0|[1-9][0-9]{0,9}")
_SECRET_REFERENCES = ("secretRef", "networkDataSecretRef")


def name_of(pool: VirtualMachinePool, index: int) -> str:
    """The name of the pool's machine of that index."""
    return f"{pool.metadata.name}-{index}"


def index_of(pool: VirtualMachinePool, name: str) -> int | None:
    """The index of the pool's machine of that name; None when the name is none of the pool's."""
    stem, _, index = name.rpartition("-")
    return int(index) if stem == pool.metadata.name and _INDEX.fullmatch(index) else None


def revision_of(pool: VirtualMachinePool) -> str:
    """The revision of a machine that is what the pool makes now."""
    return _revision(pool, pool.spec.virtual_machine_template)


def instance_revision_of(pool: VirtualMachinePool) -> str:
    """The revision of an instance of such a machine."""
    return _revision(pool, pool.spec.virtual_machine_template.spec.template)


def manifest_of(pool: VirtualMachinePool, index: int) -> Json:
    """The machine of that index."""
    metadata = pool.spec.virtual_machine_template.metadata
    annotations = metadata.annotations if metadata else None
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.VIRTUAL_MACHINE,
        "metadata": {
            "name": name_of(pool, index),
            "namespace": pool.metadata.namespace,
            "labels": _labels(pool),
            **({"annotations": dict(annotations)} if annotations else {}),
            "finalizers": [names.VM_FINALIZER],
            "ownerReferences": [owner_reference(pool)],
        },
        "spec": _spec(pool, index),
    }


def update_of(pool: VirtualMachinePool, vm: v1.VirtualMachine, index: int) -> list[Json]:
    """The JSON patch that makes a machine, only as it was seen, what the pool makes now.

    Its guest stays the one it is: the identity and the board that admission once gave it. Labels are the template's alone;
    annotations of others stay.
    """
    metadata = pool.spec.virtual_machine_template.metadata
    annotations = (vm.metadata.annotations or {}) | (
        (metadata.annotations if metadata else None) or {}
    )
    spec = _spec(pool, index)
    _keep_identity(spec["template"]["spec"], vm.spec.template.spec)
    return [
        {"op": "test", "path": "/metadata/uid", "value": vm.metadata.uid},
        {
            "op": "replace",
            "path": "/metadata/resourceVersion",
            "value": vm.metadata.resource_version,
        },
        {"op": "add", "path": "/metadata/labels", "value": _labels(pool)},
        {"op": "add", "path": "/metadata/annotations", "value": annotations},
        {"op": "replace", "path": "/spec", "value": spec},
    ]


def owner_reference(pool: VirtualMachinePool) -> Json:
    """What says on a machine that the pool manages it."""
    return defaults_instance.owner_reference(
        pool.metadata.name,
        pool.metadata.uid,
        kind=names.POOL,
        api_version=names.POOL_API_VERSION,
    )


def _revision(pool: VirtualMachinePool, part: msgspec.Struct) -> str:
    """A digest of what is set. Another digest of the same restarts every guest of every pool."""
    content = msgspec.json.encode((part, pool.spec.name_generation), order="sorted")
    digest = hashlib.sha256(content).hexdigest()[:_DIGEST_LENGTH]
    return f"{pool.metadata.name[:_MAX_STEM_LENGTH]}-{digest}"


def _labels(pool: VirtualMachinePool) -> Json:
    metadata = pool.spec.virtual_machine_template.metadata
    return ((metadata.labels if metadata else None) or {}) | {
        names.POOL_REVISION_LABEL: revision_of(pool)
    }


def _spec(pool: VirtualMachinePool, index: int) -> Json:
    spec: Json = copy.deepcopy(msgspec.to_builtins(pool.spec.virtual_machine_template.spec))
    template = spec["template"]
    metadata = template.setdefault("metadata", {})
    revision = {names.POOL_REVISION_LABEL: instance_revision_of(pool)}
    metadata["labels"] = metadata.get("labels", {}) | revision
    generation = pool.spec.name_generation
    if generation is not None and generation.append_index_to_secret_refs:
        for volume in template["spec"].get("volumes", ()):
            seed = volume.get("cloudInitNoCloud", {})
            for reference in _SECRET_REFERENCES:
                if reference in seed:
                    seed[reference]["name"] = f"{seed[reference].get('name', '')}-{index}"
    return spec


def _keep_identity(spec: Json, before: v1.VirtualMachineInstanceSpec) -> None:
    """Fill in what the template leaves open from what the machine has been."""
    if before.architecture:
        spec.setdefault("architecture", before.architecture)
    machine, firmware = before.domain.machine, before.domain.firmware
    if machine is not None and machine.type:
        spec["domain"].setdefault("machine", {}).setdefault("type", machine.type)
    for field in ("uuid", "serial"):
        value = getattr(firmware, field, "")
        if value:
            spec["domain"].setdefault("firmware", {}).setdefault(field, value)
