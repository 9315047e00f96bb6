"""The instance that a VirtualMachine's template asks for. Pure.

Invariant: the same machine at the same generation gives the same manifest; what identifies the machine to its guest
(firmware UUID) stays the same over all instances. Defaults are the webhook's, which sees the instance on its way in.
"""

import uuid
from typing import Any

import msgspec
from podvisor_common.api import v1
from podvisor_common.api.v1 import names

# Names of machines' UUIDs live in a space of their own.
_FIRMWARE_NAMESPACE = uuid.UUID("5c0a7f1d-6f1e-4d0e-9d7b-0d7d1f3f9a11")

Manifest = dict[str, Any]


def instance_of(vm: v1.VirtualMachine) -> Manifest:
    """The manifest of the machine's next instance."""
    template = vm.spec.template
    labels = (template.metadata.labels if template.metadata else None) or {}
    annotations = (template.metadata.annotations if template.metadata else None) or {}
    spec: Manifest = msgspec.to_builtins(template.spec)
    firmware = spec.setdefault("domain", {}).setdefault("firmware", {})
    firmware.setdefault("uuid", str(uuid.uuid5(_FIRMWARE_NAMESPACE, vm.metadata.uid)))
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.VIRTUAL_MACHINE_INSTANCE,
        "metadata": {
            "name": vm.metadata.name,
            "namespace": vm.metadata.namespace,
            "labels": dict(labels),
            "annotations": {
                **annotations,
                names.VM_GENERATION_ANNOTATION: str(vm.metadata.generation),
            },
            "finalizers": [names.VMI_FINALIZER],
            "ownerReferences": [
                {
                    "apiVersion": names.API_VERSION,
                    "kind": names.VIRTUAL_MACHINE,
                    "name": vm.metadata.name,
                    "uid": vm.metadata.uid,
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        "spec": spec,
    }
