"""What a VirtualMachineSnapshotContent has kept, where it makes sense. Pure.

Invariant: nothing is believed that whoever may edit contents may have written: what is returned has the form that is asked for.
"""

from typing import Any

from podvisor_common.api.snapshot import VirtualMachineSnapshotContent, VolumeBackup

Json = dict[str, Any]


class Malformed(Exception):
    """A content is not such as a snapshot leaves it; the message says where, for a person."""


def kept_machine(content: VirtualMachineSnapshotContent) -> Json | None:
    """The machine, with `metadata` and `spec`; None where none was kept. Raises Malformed."""
    machine = content.spec.source.virtual_machine
    if machine is not None:
        where = _title(content, "virtualMachine")
        _object(machine, where, "metadata", "annotations", is_needed=False)
        for part in ("metadata", "spec"):
            _object(machine, where, part)
    return machine


def kept_claim(content: VirtualMachineSnapshotContent, backup: VolumeBackup) -> tuple[str, Json]:
    """Name and specification of a volume's claim. Raises Malformed."""
    claim, where = backup.persistent_volume_claim, _title(content, backup.volume_name)
    name = _object(claim, where, "metadata").get("name")
    if not isinstance(name, str) or not name:
        raise Malformed(f"{where}: metadata.name is no name.")
    spec = _object(claim, where, "spec")
    _object(spec, f"{where}: spec", "resources", "requests", is_needed=False)
    return name, spec


def _title(content: VirtualMachineSnapshotContent, part: str) -> str:
    return f"VirtualMachineSnapshotContent {content.metadata.name} is damaged: {part}"


def _object(obj: Json, where: str, *path: str, is_needed: bool = True) -> Json:
    """The object that stands there. Raises Malformed when there is something else, or nothing where it is needed."""
    for name in path:
        child = obj.get(name)
        if child is None and not is_needed:
            return {}
        if not isinstance(child, dict):
            raise Malformed(f"{where}: {name} is no object.")
        obj = child
    return obj
