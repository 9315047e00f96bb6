"""The ControllerRevision in which a start records what the machine was. Pure.

Invariant: the name tells machine and generation, and a revision never changes: it is made, compared with and deleted.
"""

from typing import Any

import msgspec
from podvisor_common.api import v1
from podvisor_common.api.base import ApiStruct
from podvisor_common.api.meta import ObjectMeta
from podvisor_common.api.v1 import names
from podvisor_common.kube.resources import CONTROLLER_REVISIONS

from podvisor_controller.webhooks.defaults_instance import owner_reference

Json = dict[str, Any]


class RevisionData(ApiStruct, frozen=True):
    """What was recorded."""

    spec: v1.VirtualMachineSpec | None = None


class Revision(ApiStruct, frozen=True):
    """A ControllerRevision of a start."""

    metadata: ObjectMeta
    data: RevisionData = RevisionData()


class RevisionOutline(ApiStruct, frozen=True):
    """Which revision it is."""

    metadata: ObjectMeta


def name_of(vm_uid: str, generation: int | str) -> str:
    """The name of the revision of a start at that generation."""
    return f"revision-start-vm-{vm_uid}-{generation}"


def manifest_of(vm: v1.VirtualMachine) -> Json:
    """The revision to be made before an instance of `vm` is."""
    metadata = vm.metadata
    return {
        "apiVersion": CONTROLLER_REVISIONS.api_version,
        "kind": CONTROLLER_REVISIONS.kind,
        "metadata": {
            "name": name_of(metadata.uid, metadata.generation),
            "namespace": metadata.namespace,
            "labels": {names.VM_UID_LABEL: metadata.uid},
            "ownerReferences": [owner_reference(metadata.name, metadata.uid)],
        },
        "revision": metadata.generation,
        "data": as_the_api_server_writes(RevisionData(vm.spec)),
    }


def as_the_api_server_writes(data: RevisionData) -> msgspec.Raw:
    """The JSON of a revision's data as Go's encoder has it: keys sorted, <, > and & escaped.

    The API server compares the bytes of this immutable field, and encodes them anew whenever the revision is patched, as the garbage
    collector does when a machine is orphaned: in any other form no patch is accepted.
    """
    text = msgspec.json.encode(data, order="sorted")
    for character in "<>&\u2028\u2029":
        text = text.replace(character.encode(), f"\\u{ord(character):04x}".encode())
    return msgspec.Raw(text)


def revision_name_of(vmi: v1.VirtualMachineInstance) -> str:
    """The name of the revision that an instance was made from; empty when no machine made it."""
    if vmi.status.virtual_machine_revision_name:
        # Said once, and from then on neither the generation nor the owner tells it any more.
        return vmi.status.virtual_machine_revision_name
    owner = vmi.metadata.controller_reference()
    generation = vmi.metadata.annotation(names.VM_GENERATION_ANNOTATION)
    if owner is None or owner.kind != names.VIRTUAL_MACHINE or generation is None:
        return ""
    return name_of(owner.uid, generation)
