"""The instances that a VirtualMachineInstanceReplicaSet makes. Pure."""

from typing import Any

import msgspec
from podvisor_common.api import v1
from podvisor_common.api.v1 import names

from podvisor_controller.webhooks.defaults_instance import owner_reference


def base_name_of(replica_set: v1.VirtualMachineInstanceReplicaSet) -> str:
    """What the names of a set's instances begin with: what the template says of names, or the set's own."""
    template = replica_set.spec.template.metadata
    own = replica_set.metadata.name
    return (template.name or template.generate_name or own) if template is not None else own


def instance_of(replica_set: v1.VirtualMachineInstanceReplicaSet, name: str) -> dict[str, Any]:
    """The manifest of an instance of that name; labels and annotations come from the template."""
    template = replica_set.spec.template
    described = template.metadata
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.VIRTUAL_MACHINE_INSTANCE,
        "metadata": {
            "name": name,
            "namespace": replica_set.metadata.namespace,
            "labels": dict((described.labels if described else None) or {}),
            "annotations": dict((described.annotations if described else None) or {}),
            "finalizers": [names.VMI_FINALIZER],
            "ownerReferences": [reference_to_set(replica_set)],
        },
        "spec": msgspec.to_builtins(template.spec),
    }


def reference_to_set(replica_set: v1.VirtualMachineInstanceReplicaSet) -> dict[str, Any]:
    """What says on an instance that the set manages it."""
    metadata = replica_set.metadata
    return owner_reference(metadata.name, metadata.uid, kind=names.REPLICA_SET)
