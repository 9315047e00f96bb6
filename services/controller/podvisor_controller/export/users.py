"""Who uses the claims of an export, or is about to. Pure.

Invariant: a claim that anybody may write to is never called free: what is read meanwhile would be torn. Who only reads is in nobody's way.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from podvisor_common.api import core, v1
from podvisor_common.api.export import VirtualMachineExport

from podvisor_controller.snapshot.volumes import volumes_of
from podvisor_controller.vm.observed import wants_new
from podvisor_controller.vmi.claims import claim_of, is_only_read, leaving


def pod_in_the_way(
    pods: Iterable[core.Pod], claims: Iterable[str], export: VirtualMachineExport
) -> str:
    """Which claim is in use by a pod of the export's namespace that is not its own, for a person; empty when none is."""
    wanted = set(claims)
    for pod in pods:
        owner = pod.metadata.controller_reference()
        is_own = owner is not None and owner.uid == export.metadata.uid
        if is_own or pod.is_terminal:
            continue
        for volume in pod.spec.volumes or ():
            if (claim := _written_claim(pod, volume)) in wanted:
                return _told(export, claim, f"Pod {pod.metadata.name}")
    return ""


def instance_in_the_way(
    claim: str, instances: Iterable[v1.VirtualMachineInstance], export: VirtualMachineExport
) -> str:
    """Which of these instances with the claim has it for more than reading, for a person; empty when none has."""
    for vmi in instances:
        has_it = [v for v in vmi.spec.volumes or () if v.claim_name == claim]
        had_it = any(claim_of(entry) == claim for entry in leaving(vmi))
        if had_it or any(not is_only_read(vmi, volume) for volume in has_it):
            return _told(export, claim, f"VirtualMachineInstance {vmi.metadata.name}")
    return ""


def machine_in_the_way(
    claim: str, machines: Iterable[v1.VirtualMachine], export: VirtualMachineExport
) -> str:
    """Which of these machines without an instance is about to get one, for a person; empty when none is.

    Between an instance and its successor nobody has the claim: an export that began there would keep a machine from running again.
    """
    for vm in machines:
        if wants_new(vm) and any(volume.claim_name == claim for volume in volumes_of(vm)):
            name = vm.metadata.name
            return _told(export, claim, f"VirtualMachine {name}, which is to run")
    return ""


def _written_claim(pod: core.Pod, volume: Mapping[str, Any]) -> str:
    """The claim of a pod's volume, empty where there is none or it can only be read."""
    if "ephemeral" in volume:
        return f"{pod.metadata.name}-{volume.get('name')}"
    claim = volume.get("persistentVolumeClaim")
    if not isinstance(claim, Mapping) or claim.get("readOnly") is True:
        return ""
    return str(claim.get("claimName"))


def _told(export: VirtualMachineExport, claim: str, user: str) -> str:
    return f"PersistentVolumeClaim {export.metadata.namespace}/{claim} is in use by {user}"
