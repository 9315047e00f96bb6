"""The instance that a VirtualMachine makes of itself."""

import copy
from collections.abc import Mapping
from typing import Any
from uuid import UUID, uuid5

import msgspec
from podvisor_common.api import v1
from podvisor_common.api.v1 import names

from podvisor_controller.webhooks.conversion import written_as_v1alpha1

Json = dict[str, Any]

# Makes firmware UUIDs out of UIDs of VirtualMachines. Never changes: guests take the result for their identity.
_FIRMWARE_UUIDS = UUID("6a1a24a1-4061-4607-8bf4-a3963d0c5895")


def instance_of(machine: v1.VirtualMachine | Mapping[str, Any]) -> Json:
    """The manifest of the instance of a v1 VirtualMachine; equal for equal machines.

    Labels and annotations come from the template. A machine written as v1alpha1 has no template of its own, so its
    own labels are the instance's: Services select by them.
    """
    raw = msgspec.to_builtins(machine) if isinstance(machine, v1.VirtualMachine) else machine
    metadata, template = raw["metadata"], raw["spec"]["template"]
    template_metadata = template.get("metadata") or {}
    labels = dict(metadata.get("labels") or {}) if written_as_v1alpha1(raw) else {}
    labels |= template_metadata.get("labels") or {}
    spec = copy.deepcopy(dict(template["spec"]))
    firmware = spec["domain"].setdefault("firmware", {})
    if not firmware.get("uuid"):
        firmware["uuid"] = str(uuid5(_FIRMWARE_UUIDS, metadata["uid"]))
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.VIRTUAL_MACHINE_INSTANCE,
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            **({"labels": labels} if labels else {}),
            "annotations": {
                **(template_metadata.get("annotations") or {}),
                names.VM_GENERATION_ANNOTATION: str(metadata.get("generation", 0)),
            },
            "finalizers": [names.VMI_FINALIZER],
            "ownerReferences": [owner_reference(metadata["name"], metadata["uid"])],
        },
        "spec": spec,
    }


def owner_reference(
    name: str, uid: str, *, kind: str = names.VIRTUAL_MACHINE, api_version: str = names.API_VERSION
) -> Json:
    """What says on an object that another one, of a VirtualMachine's kind unless said otherwise, manages it."""
    return {
        "apiVersion": api_version,
        "kind": kind,
        "name": name,
        "uid": uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
